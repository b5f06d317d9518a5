"""Attention of language models over shared prefixes, registered with transformers' ``AttentionInterface``.

All new tokens of a batch stand one after another in a single sequence, so that nothing is padded. What they attend to
travels in a context variable. Each candidate's tokens attend to its own new keys and, piece by piece, to the blocks
that it shares with others, where the queries of all that share a piece are folded into one product; the results are
merged by their log-sum-exp,

    out <- out + sigmoid(lse_piece - lse) * (piece - out),   lse <- log(exp lse + exp lse_piece).

Without work the function does what ``sdpa`` does.
"""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from prunus.errors import ModelError
from prunus.generators.prefix_cache import Piece, allowed
from prunus.generators.wan_attention import FLASH_WITH_LSE

NAME = "prunus_shared_prefix"

WORK: contextvars.ContextVar[TextWork | None] = contextvars.ContextVar("prunus_text_work", default=None)

PLAIN = ("sliding_window", "softcap", "s_aux", "position_bias", "chunk_size")
"""Options of other kinds of attention, none of which may be set."""


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention (n, heads, queries, dim) and its log-sum-exp (n, heads, queries); ``mask`` is added to the scores."""
    if FLASH_WITH_LSE is not None and query.device.type == "cpu" and query.shape[-2] >= 4:
        return FLASH_WITH_LSE(query, keys, values, attn_mask=mask, scale=scale)
    scores = ((query * scale) @ keys.transpose(-1, -2)).float()
    if mask is not None:
        scores += mask
    weights = scores.softmax(-1)
    # The largest weight is exp(the largest score - lse): cheaper than a logsumexp of its own.
    lse = scores.amax(-1) - weights.amax(-1).log()
    return weights.to(values.dtype) @ values, lse


def fold(query: torch.Tensor) -> torch.Tensor:
    """Queries (..., rows, key-value heads, group, dim) that look at the same keys: (..., key-value heads, rows * group,
    dim)."""
    return query.transpose(-4, -3).flatten(-3, -2)


def unfold(folded: torch.Tensor, group: int) -> torch.Tensor:
    """The reverse, for (..., key-value heads, rows * group, dim)."""
    return folded.unflatten(-2, (-1, group)).transpose(-4, -3)


class TextWork:
    """What the attention layers do in the forward pass at hand. ``pieces`` are what the batch's tokens share."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.layers = 0  # that have attended

    def own(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention (rows, kv heads, group, dim) to the new keys (kv heads, rows, dim), and its log-sum-exp."""
        raise NotImplementedError

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """(1, heads, rows, dim) -> (1, rows, heads, dim), as transformers has them."""
        self.layers += 1
        heads = key.shape[1]
        rows = query[0].unflatten(0, (heads, -1)).permute(2, 0, 1, 3)
        out, lse = self.own(layer, rows, key[0], value[0], scale)
        for piece in self.pieces:
            _merge(out, lse, rows, piece, layer, scale)
        return out.flatten(1, 2).unsqueeze(0)


def _merge(out: torch.Tensor, lse: torch.Tensor, rows: torch.Tensor, piece: Piece, layer: int, scale: float) -> None:
    """Let ``rows`` (n, kv heads, group, dim) attend to a piece too; changes ``out`` and ``lse``."""
    group, segments = rows.shape[2], len(piece.rows)
    everyone = piece.in_order and sum(map(len, piece.rows)) == len(rows)
    query = rows.unflatten(0, (segments, -1)) if everyone else rows[piece.index]
    more, weight = attend(fold(query), piece.keys[layer], piece.values[layer], scale, piece.added)
    more = unfold(more, group).flatten(0, 1)
    weight = unfold(weight.unsqueeze(-1), group).flatten(0, 1).squeeze(-1)
    if everyone:
        share = torch.sigmoid(weight - lse).unsqueeze(-1)
        out.lerp_(more, share.to(out.dtype))
        torch.logaddexp(lse, weight, out=lse)
        return
    if piece.places is not None:
        more, weight = more[piece.places], weight[piece.places]
    members = piece.members
    mine, held = out[members], lse[members]
    out[members] = mine.lerp(more, torch.sigmoid(weight - held).unsqueeze(-1).to(out.dtype))
    lse[members] = torch.logaddexp(held, weight)


class ReadWork(TextWork):
    """New tokens of several candidates, a run of them for each, and their keys and values kept.

    ``groups`` are (first token, candidates, tokens of each, whether they have a context) of runs of one length.
    """

    def __init__(self, pieces: Sequence[Piece], groups: Sequence[tuple[int, int, int, bool]]) -> None:
        super().__init__(pieces)
        self.groups = groups
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def own(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys.append(key)
        self.values.append(value)
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        lse = torch.zeros(query.shape[:-1], dtype=torch.float32, device=query.device)
        group = query.shape[2]
        for first, count, length, context in self.groups:
            here = slice(first, first + count * length)
            q = query[here].unflatten(0, (count, length))
            k, v = (x[:, here].unflatten(1, (count, length)).transpose(0, 1) for x in (key, value))
            if not context:  # the log-sum-exp is not needed, and torch's attention does not hold all scores at once
                heads = q.flatten(2, 3).transpose(1, 2)
                k, v = (x.repeat_interleave(group, 1) for x in (k, v))
                told = F.scaled_dot_product_attention(heads, k, v, is_causal=length > 1, scale=scale)
                out[here] = told.transpose(1, 2).reshape(out[here].shape)
                continue
            causal = torch.ones(length, length, dtype=torch.bool, device=q.device).tril().repeat_interleave(group, 0)
            told, weight = attend(fold(q), k, v, scale, allowed(causal, q))
            out[here] = unfold(told, group).flatten(0, 1)
            lse[here] = unfold(weight.unsqueeze(-1), group).flatten(0, 1).squeeze(-1)
        return out, lse


class WriteWork(TextWork):
    """One new token for each candidate, behind the new tokens of the calls before, which are kept side by side."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__(pieces)
        self.written = 0
        self.keys: list[torch.Tensor] = []  # of each layer: (rows, kv heads, room, dim)
        self.values: list[torch.Tensor] = []

    def own(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        at = self.written
        if layer == len(self.keys):
            for store, new in ((self.keys, key), (self.values, value)):
                store.append(new.new_empty((new.shape[1], new.shape[0], 16, new.shape[2])))
        if at == self.keys[layer].shape[2]:  # full: twice the room
            for store in (self.keys, self.values):
                store[layer] = torch.cat((store[layer], torch.empty_like(store[layer])), 2)
        self.keys[layer][:, :, at] = key.transpose(0, 1)
        self.values[layer][:, :, at] = value.transpose(0, 1)
        return attend(query, self.keys[layer][:, :, : at + 1], self.values[layer][:, :, : at + 1], scale)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        place = {row: i for i, row in enumerate(rows)}
        self.pieces = [kept for piece in self.pieces if (kept := piece.keep(place)) is not None]
        chosen = torch.tensor(list(rows), device=self.keys[0].device) if self.keys else None
        for store in (self.keys, self.values):
            for layer, held in enumerate(store):
                store[layer] = held[chosen]


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function. Raises ModelError for attention that is not plain and causal."""
    work = WORK.get()
    if work is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    if odd := [name for name in PLAIN if options.get(name) is not None]:
        raise ModelError(f"its attention has {', '.join(odd)}")
    if options.get("is_causal") is False or not getattr(module, "is_causal", True):
        raise ModelError("its attention is not causal")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return work.attend(module.layer_idx, query, key, value, scale), None  # type: ignore[arg-type]


def shared_prefix_mask(*arguments: Any, **options: Any) -> torch.Tensor | None:
    """transformers' mask function: with work there is no mask to make."""
    return sdpa_mask(*arguments, **options) if WORK.get() is None else None


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, shared_prefix_mask)
