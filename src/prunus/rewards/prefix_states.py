"""Keys and values of texts that a causal model has read, kept by the text, each piece once.

A piece is a prompt or a step; its key is the tuple of all pieces up to it. What candidates share is held once, so the
memory grows with the tree, not with candidates times length.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

Key = tuple[str | None, ...]  # None: the text was given with its prompt in it


@dataclass(frozen=True)
class Segment:
    """One piece: keys and values (heads, tokens, size) of each layer, and the score that was read at its end."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    score: float

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[1]


class PrefixStates:
    """At most so many tokens' segments; those that were used longest ago go first, descendants before ancestors."""

    def __init__(self, most: int) -> None:
        self.most, self.tokens = most, 0
        self._held: OrderedDict[Key, Segment] = OrderedDict()

    def longest(self, keys: Sequence[Key]) -> list[Segment]:
        """The segments of the first keys, up to one that is not held; keys are a text's, from its prompt on."""
        found = []
        for key in keys:
            if key not in self._held:
                break
            found.append(key)
        for key in reversed(found):
            self._held.move_to_end(key)
        return [self._held[key] for key in found]

    def keep(self, key: Key, segment: Segment) -> None:
        if key in self._held:
            self.tokens -= self._held.pop(key).tokens
        self._held[key] = segment
        self.tokens += segment.tokens
        while self.tokens > self.most:
            self.tokens -= self._held.popitem(last=False)[1].tokens


def joined(rows: Sequence[Sequence[Segment]], widest: int, count: int) -> Any:
    """A transformers cache of ``count`` rows, each its segments in order, padded on the left to ``widest`` tokens."""
    from transformers import DynamicCache

    cache = DynamicCache()
    example = next((segments[0] for segments in rows if segments), None)
    if example is None:
        return cache
    for layer, pair in enumerate(example.layers):
        tensors: list[torch.Tensor] = []
        for which, like in enumerate(pair):
            out = like.new_zeros(count, like.shape[0], widest, like.shape[2])
            for row, segments in zip(out, rows, strict=True):
                at = widest - sum(s.tokens for s in segments)
                for segment in segments:
                    row[:, at : at + segment.tokens] = segment.layers[layer][which]
                    at += segment.tokens
            tensors.append(out)
        cache.update(tensors[0], tensors[1], layer)
    return cache


def split_states(cache: Any, row: int, cuts: Sequence[int], scores: Sequence[float]) -> list[Segment]:
    """The segments between the cuts of one row of a cache, copied out of it."""
    return [
        Segment(tuple((la.keys[row, :, a:b].clone(), la.values[row, :, a:b].clone()) for la in cache.layers), score)
        for (a, b), score in zip(pairwise(cuts), scores)
    ]
