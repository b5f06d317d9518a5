"""Attention for streaming on diffusers' unchanged Wan class: the processor, and the three ways to attend.

``WanTransformer3DModel.forward`` has no way to hand a cache down to its blocks, so the *work* at hand travels in a
context variable: each thread, and each search in it, has its own. Without work the processor does what it replaced.

The context is attended to where it lies, block by block and without a copy: the queries of all rows that share a block,
siblings and cousins, are folded into one attention over it, each row attends to its own chunk, and results are merged
one after another by their log-sum-exp,

    out <- out + sigmoid(lse_shared - lse) * (shared - out),   lse <- log(exp lse + exp lse_shared).
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

# torch's public attention does not return the log-sum-exp. This operator does, on CPUs; elsewhere, and if a version of
# torch lacks it, a row's blocks and its own chunk are put side by side (a copy that lives as long as the layer runs).
FLASH_WITH_LSE = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

Item = TypeVar("Item")

WORK: contextvars.ContextVar[Work | None] = contextvars.ContextVar("prunus_wan_work", default=None)


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn neighbouring pairs of x (..., tokens, heads, dim) by ``rotation`` (..., tokens, 1, dim / 2; complex64).

    The same as diffusers' rotary embedding; as one complex product it is two to eight times faster on a CPU.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).type_as(x)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Plain attention of (n, tokens, heads, dim); returns the shape of ``query``. ``mask`` is True where to look."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Shared:
    """Keys and values of all layers, (layers, tokens, heads, dim), that ``rows`` of a batch attend to alike."""

    rows: slice
    keys: torch.Tensor
    values: torch.Tensor

    def fold(self, query: torch.Tensor) -> torch.Tensor:
        """The queries of all rows as those of one: (n, tokens, heads, dim) -> (1, rows * tokens, heads, dim)."""
        return query[self.rows].flatten(0, 1).unsqueeze(0)


def runs(items: Sequence[Item]) -> Iterator[tuple[slice, Item]]:
    """Neighbours that are the same object: the slice that they fill, and the object."""
    start = 0
    for end in range(1, len(items) + 1):
        if end == len(items) or items[end] is not items[start]:
            yield slice(start, end), items[start]
            start = end


def attend_shared(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[Shared], layer: int
) -> torch.Tensor:
    """Each row of (n, tokens, heads, dim) attends to its own keys and to those of the blocks that it shares."""
    if not blocks:
        return attend(query, key, value)
    if FLASH_WITH_LSE is None or query.device.type != "cpu":
        return _attend_side_by_side(query, key, value, blocks, layer)
    out, lse = FLASH_WITH_LSE(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    for block in blocks:
        split = (block.rows.stop - block.rows.start, query.shape[1])
        keys, values = block.keys[layer, None].transpose(1, 2), block.values[layer, None].transpose(1, 2)
        shared, more = FLASH_WITH_LSE(block.fold(query).transpose(1, 2), keys, values)
        shared, more = shared[0].unflatten(1, split).transpose(0, 1), more[0].unflatten(1, split).transpose(0, 1)
        merged = lse[block.rows]
        out[block.rows].lerp_(shared, torch.sigmoid(more - merged).unsqueeze(-1).to(out.dtype))
        torch.logaddexp(merged, more, out=merged)
    return out.transpose(1, 2)


def _attend_side_by_side(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Sequence[Shared], layer: int
) -> torch.Tensor:
    out = torch.empty_like(query)
    edges = sorted({0, len(query), *(edge for block in blocks for edge in (block.rows.start, block.rows.stop))})
    for start, end in pairwise(edges):  # rows that share the same blocks
        mine = [block for block in blocks if block.rows.start <= start and end <= block.rows.stop]
        rows, alike = slice(start, end), (end - start, -1, -1, -1)
        keys = torch.cat((*(block.keys[layer].expand(alike) for block in mine), key[rows]), 1)
        values = torch.cat((*(block.values[layer].expand(alike) for block in mine), value[rows]), 1)
        out[rows] = attend(query[rows], keys, values)
    return out


class Work:
    """What the attention layers have to do in the forward pass at hand. All tensors are (n, tokens, heads, dim)."""

    def attend_frames(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:  # pragma: no cover
        """Self-attention. Queries and keys are normalised, not rotated."""
        raise NotImplementedError

    def attend_text(self, layer: int, attention: Any, query: torch.Tensor) -> torch.Tensor:  # pragma: no cover
        """Cross-attention of the layer's module ``attention``."""
        raise NotImplementedError


@dataclass
class ChunkWork(Work):
    """One chunk per row over the blocks that rows share.

    With ``record``, the rows' own rotated keys and values are kept layer by layer.
    """

    rotation: torch.Tensor
    blocks: Sequence[Shared]
    texts: Sequence[Shared]
    record: bool = False
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def attend_frames(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key = rotate(query, self.rotation).type_as(value), rotate(key, self.rotation).type_as(value)
        if self.record:
            self.keys.append(key)
            self.values.append(value)
        return attend_shared(query, key, value, self.blocks, layer)

    def attend_text(self, layer: int, attention: Any, query: torch.Tensor) -> torch.Tensor:
        outs = []
        for text in self.texts:
            values = text.values[layer, None]
            out = attend(text.fold(query).type_as(values), text.keys[layer, None], values)
            outs.append(out.unflatten(1, (-1, query.shape[1])).squeeze(0))
        return outs[0] if len(outs) == 1 else torch.cat(outs)


@dataclass
class ClipWork(Work):
    """Whole clips under a mask, with gradients. Each *frame* is a row of the batch, so that it has its own timestep."""

    frames: int
    rotation: torch.Tensor
    mask: torch.Tensor | None
    """(n or 1, 1, tokens, tokens) of a whole clip."""
    text: torch.Tensor
    """(n, text tokens, width), after the text embedder."""
    text_mask: torch.Tensor | None

    def _clips(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(0, (-1, self.frames)).flatten(1, 2)

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(1, (self.frames, -1)).flatten(0, 1)

    def attend_frames(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = self._clips(query), self._clips(key), self._clips(value)
        query, key = rotate(query, self.rotation).type_as(value), rotate(key, self.rotation).type_as(value)
        return self._rows(attend(query, key, value, self.mask))

    def attend_text(self, layer: int, attention: Any, query: torch.Tensor) -> torch.Tensor:
        key, value = text_keys_values(attention, self.text)
        return self._rows(attend(self._clips(query).type_as(value), key.type_as(value), value, self.text_mask))


def text_keys_values(attention: Any, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values (n, tokens, heads, dim) of a cross-attention module for embedded text (n, tokens, width)."""
    key, value = attention.norm_k(attention.to_k(text)), attention.to_v(text)
    return key.unflatten(2, (attention.heads, -1)), value.unflatten(2, (attention.heads, -1))


class StreamingProcessor:
    """Wan's attention for the work at hand; what it replaced (``usual``) if there is none."""

    def __init__(self, layer: int, usual: Callable[..., torch.Tensor]) -> None:
        self.layer, self.usual = layer, usual

    def __call__(self, attention: Any, hidden: torch.Tensor, *usual: Any, **options: Any) -> torch.Tensor:
        work = WORK.get()
        if work is None:
            return self.usual(attention, hidden, *usual, **options)
        heads = (attention.heads, -1)
        query = attention.norm_q(attention.to_q(hidden)).unflatten(2, heads)
        if attention.is_cross_attention:
            out = work.attend_text(self.layer, attention, query)
        else:
            key = attention.norm_k(attention.to_k(hidden)).unflatten(2, heads)
            out = work.attend_frames(self.layer, query, key, attention.to_v(hidden).unflatten(2, heads))
        project, dropout = attention.to_out
        return dropout(project(out.flatten(2)))
