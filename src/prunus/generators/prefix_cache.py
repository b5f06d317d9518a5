"""Keys and values of texts that begin alike: blocks that are held once, however many candidates go on from them.

A candidate's context is a row of blocks; siblings name the same ones. For a batch, ``pieces`` sorts the rows' blocks
into as few pieces as can be attended to in one go, each by all rows that share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

LONG = 128
"""Blocks of at least so many tokens are read where they lie; shorter ones are laid side by side for a batch."""


@dataclass(frozen=True, eq=False)
class Block:
    """Keys and values (layers, key-value heads, tokens, dim) of neighbouring tokens, rotated to their positions."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def tokens(self) -> int:
        return self.keys.shape[2]


@dataclass(frozen=True, eq=False)
class Context:
    """The tokens of a candidate that the model has read."""

    blocks: tuple[Block, ...] = ()
    length: int = 0

    def then(self, block: Block) -> Context:
        return Context((*self.blocks, block), self.length + block.tokens)

    def tensors(self) -> Iterator[torch.Tensor]:
        for block in self.blocks:
            yield block.keys
            yield block.values


def allowed(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What is added to scores where ``mask`` is True (0), and where it is not (minus infinity)."""
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(~mask, -torch.inf)


@dataclass(eq=False)
class Piece:
    """Keys and values (layers, segments, key-value heads, tokens, dim); ``rows[i]`` attend to segment i.

    ``mask`` (segments, 1, tokens) is True where there is a token, None if there is one everywhere.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor | None
    rows: list[list[int]]

    @cached_property
    def index(self) -> torch.Tensor:
        """The rows of every segment (segments, most rows), the last one repeated where there are fewer."""
        most = max(map(len, self.rows))
        return torch.tensor([r + r[-1:] * (most - len(r)) for r in self.rows], device=self.keys.device)

    @cached_property
    def places(self) -> torch.Tensor | None:
        """Which of the flattened ``index`` are not repeated; None if none is."""
        most = max(map(len, self.rows))
        if all(len(r) == most for r in self.rows):
            return None
        flat = [i * most + j for i, r in enumerate(self.rows) for j in range(len(r))]
        return torch.tensor(flat, device=self.keys.device)

    @cached_property
    def members(self) -> torch.Tensor:
        """All rows that attend to this piece, segment by segment."""
        return torch.tensor([row for r in self.rows for row in r], device=self.keys.device)

    @cached_property
    def added(self) -> torch.Tensor | None:
        """What ``mask`` adds to scores (segments, heads, queries, tokens)."""
        return None if self.mask is None else allowed(self.mask.unsqueeze(1), self.keys)

    @cached_property
    def in_order(self) -> bool:
        """Whether its rows are the first of the batch, in their order, as many for each segment."""
        flat = [row for r in self.rows for row in r]
        return self.places is None and flat == list(range(len(flat)))

    def keep(self, place: dict[int, int]) -> Piece | None:
        """The piece for the rows that are left, ``place`` says where they stand now; None if none of its are."""
        rows = [[place[row] for row in r if row in place] for r in self.rows]
        live = [i for i, r in enumerate(rows) if r]
        if len(live) == len(rows):
            return Piece(self.keys, self.values, self.mask, rows)
        if not live:
            return None
        chosen = torch.tensor(live, device=self.keys.device)
        mask = None if self.mask is None else self.mask[chosen]
        return Piece(self.keys[:, chosen], self.values[:, chosen], mask, [rows[i] for i in live])


def pieces(contexts: Sequence[Context], rows: Sequence[Sequence[int]]) -> list[Piece]:
    """What a batch attends to; ``rows[i]`` are the rows of the batch whose context is ``contexts[i]``.

    Blocks that the same contexts share, one after another, are one segment. The segments of one level of the tree are
    one piece. Every block is in one piece, once; what is copied for it lives as long as the batch.
    """
    out: list[Piece] = []
    level = [(list(range(len(contexts))), 0)]
    while level:
        segments: list[tuple[list[int], list[Block]]] = []
        below = []
        for group, depth in level:
            for run, members in _runs(contexts, group, depth):
                mine = [row for i in members for row in rows[i]]
                out += [_whole(block, mine) for block in run if block.tokens >= LONG]
                if short := [block for block in run if block.tokens < LONG]:
                    segments.append((mine, short))
                below.append((members, depth + len(run)))
        if len(segments) == 1 and len(segments[0][1]) == 1:
            out.append(_whole(segments[0][1][0], segments[0][0]))
        elif segments:
            out.append(_side_by_side(segments))
        level = below
    return out


def _runs(contexts: Sequence[Context], group: list[int], depth: int) -> Iterator[tuple[list[Block], list[int]]]:
    """The ways in which contexts that are alike up to ``depth`` go on: the blocks, and who shares them."""
    ways: dict[Block, list[int]] = {}
    for i in group:
        if len(contexts[i].blocks) > depth:
            ways.setdefault(contexts[i].blocks[depth], []).append(i)
    for members in ways.values():
        first, *others = [contexts[i].blocks for i in members]
        end = depth + 1
        while end < len(first) and all(len(o) > end and o[end] is first[end] for o in others):
            end += 1
        yield list(first[depth:end]), members


def _whole(block: Block, rows: list[int]) -> Piece:
    return Piece(block.keys[:, None], block.values[:, None], None, [rows])


def _side_by_side(segments: Sequence[tuple[list[int], list[Block]]]) -> Piece:
    lengths = [sum(block.tokens for block in blocks) for _, blocks in segments]
    longest = max(lengths)
    like, valued = segments[0][1][0].keys, segments[0][1][0].values
    keys = like.new_zeros((like.shape[0], len(segments), like.shape[1], longest, like.shape[3]))
    values = valued.new_zeros((*keys.shape[:-1], valued.shape[3]))
    for i, (_, blocks) in enumerate(segments):
        keys[:, i, :, : lengths[i]] = torch.cat([block.keys for block in blocks], 2)
        values[:, i, :, : lengths[i]] = torch.cat([block.values for block in blocks], 2)
    mask = None
    if min(lengths) < longest:
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None, None]
    return Piece(keys, values, None if mask is None else mask.to(keys.device), [rows for rows, _ in segments])
