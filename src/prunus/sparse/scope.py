"""Scopes: what is pruned as one, a weight, a run of weights, a channel, a head, a layer, and who competes with whom.

A scope takes the scores of single weights and returns new masks. ``density`` is the share of *units* kept. Pruning is
monotone: only what ``masks`` still keep can be kept (pass all-dense masks to choose afresh).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Protocol

import torch
from torch import Tensor

from prunus.errors import SettingError, require
from prunus.sparse.allocation import Allocation
from prunus.sparse.exact import keep_largest, largest_in_rows
from prunus.sparse.masks import Masks

Unit = Mapping[str, tuple]
"""A unit: the names of the weights it has a part in -> an index into each, e.g. ``{"fc1.weight": (3,)}``, a row."""


class Scope(Protocol):
    def select(self, scores: Mapping[str, Tensor], masks: Masks, density: float, allocation: Allocation) -> Masks: ...


@dataclass(frozen=True)
class Weights:
    """Single weights (unstructured)."""

    def select(self, scores: Mapping[str, Tensor], masks: Masks, density: float, allocation: Allocation) -> Masks:
        counts = allocation.counts(scores, masks, density)
        return Masks(keep_largest(scores, counts, masks, allocation.floor))


@dataclass(frozen=True)
class InRows:
    """Single weights that compete inside their output row only, as Wanda asks; each row keeps the same number."""

    def select(self, scores: Mapping[str, Tensor], masks: Masks, density: float, allocation: Allocation) -> Masks:
        counts = allocation.counts(scores, masks, density)
        if isinstance(counts, int):
            raise SettingError("rows cannot compete with each other and over all layers; use Uniform, ERK or Given")
        new = {}
        for name, s in scores.items():
            rows, among = s.flatten(1), masks[name].flatten(1)
            keep = among.sum(-1).clamp(max=max(1, round(counts[name] / len(rows))))
            new[name] = largest_in_rows(rows, keep, among, name).view(s.shape)
        return Masks(new)


@dataclass(frozen=True)
class NofM:
    """``n`` kept of each ``m`` consecutive weights along the input (the flattened dimensions after the first).

    The density is n/m, whatever is asked for. (Names differ elsewhere: llm-compressor's "n:m" *prunes* n of m.)
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        require(1 <= self.n < self.m, "n, m", (self.n, self.m), "1 <= n < m: n kept of m")

    def select(self, scores: Mapping[str, Tensor], masks: Masks, density: float, allocation: Allocation) -> Masks:
        new = {}
        for name, s in scores.items():
            inputs = s[0].numel()
            if inputs % self.m:
                raise SettingError(f"{name} has {inputs} inputs, which {self.m} does not divide; exclude it")
            runs, among = s.reshape(-1, self.m), masks[name].reshape(-1, self.m)
            keep = among.sum(-1).clamp(max=self.n)
            new[name] = largest_in_rows(runs, keep, among, name).view(s.shape)
        return Masks(new)


@dataclass(frozen=True)
class Units:
    """Groups of units that are kept or pruned whole: channels, heads, layers, or any that you name.

    ``groups``: a group's name -> its units. Units compete inside their group, or all together under ``Global``. A
    unit's score is the ``sum``, ``mean`` or ``norm`` (root of the sum of squares) of its weights' scores. Weights that
    are in no unit keep their masks.
    """

    groups: Mapping[str, Sequence[Unit]]
    reduce: str = "sum"

    def __post_init__(self) -> None:
        require(self.reduce in ("sum", "mean", "norm"), "reduce", self.reduce, "sum, mean or norm")

    def score(self, scores: Mapping[str, Tensor], unit: Unit) -> Tensor:
        """A scalar."""
        values = torch.cat([scores[name][index].flatten() for name, index in unit.items()])
        return {"sum": torch.sum, "mean": torch.mean, "norm": torch.linalg.vector_norm}[self.reduce](values)

    def scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A group's name -> (units,)."""
        return {g: torch.stack([self.score(scores, unit) for unit in units]) for g, units in self.groups.items()}

    def kept(self, masks: Masks) -> dict[str, Tensor]:
        """A group's name -> bool (units,): a unit is kept as long as any of its weights is."""
        return {
            group: torch.tensor([any(bool(masks[name][i].any()) for name, i in unit.items()) for unit in units])
            for group, units in self.groups.items()
        }

    def select(self, scores: Mapping[str, Tensor], masks: Masks, density: float, allocation: Allocation) -> Masks:
        of_units, kept = self.scores(scores), self.kept(masks)
        counts = allocation.counts(of_units, kept, density)
        chosen = keep_largest(of_units, counts, kept, allocation.floor)
        return self.without(masks, {group: ~keep for group, keep in chosen.items()})

    def without(self, masks: Masks, pruned: Mapping[str, Tensor]) -> Masks:
        """``masks`` less the units that are True in ``pruned`` (a group's name -> bool (units,))."""
        names = {name for units in self.groups.values() for unit in units for name in unit}
        new = {name: masks[name].clone() for name in names}
        for group, gone in pruned.items():
            for place in gone.nonzero().flatten().tolist():
                for name, index in self.groups[group][place].items():
                    new[name][index] = False
        return masks.changed(new)


def channels(masks: Masks, layers: Sequence[str] = ("*",), reduce: str = "sum", inputs: bool = False) -> Units:
    """The output rows (filters, neurons) of the weights that match ``layers``, or their input channels; a group for
    each weight."""
    names = [name for name in masks if any(fnmatch(name, pattern) for pattern in layers)]
    require(bool(names), "layers", list(layers), f"patterns of {', '.join(masks)}")
    if inputs:
        return Units({n: [{n: (slice(None), place)} for place in range(masks[n].shape[1])] for n in names}, reduce)
    return Units({name: [{name: (row,)} for row in range(len(masks[name]))] for name in names}, reduce)


def heads(attentions: Mapping[str, tuple[Sequence[str], str]], masks: Masks, width: int, reduce: str = "sum") -> Units:
    """Attention heads of ``width`` rows: a layer's name -> (its query, key, value weights, its output weight).

    A head is its rows of the former and its columns of the latter.
    """
    groups = {}
    for layer, (inputs, output) in attentions.items():
        size = masks[output].shape[1]
        require(size % width == 0, "width", width, f"a divisor of {size}, the inputs of {output}")
        if odd := [name for name in inputs if len(masks[name]) != size]:
            raise SettingError(
                f"{odd[0]} has {len(masks[odd[0]])} rows, {output} {size} inputs: heads that share keys and values "
                "cannot be pruned one by one"
            )
        parts = [slice(start, start + width) for start in range(0, size, width)]
        groups[layer] = [{**dict.fromkeys(inputs, (part,)), output: (slice(None), part)} for part in parts]
    return Units(groups, reduce)


def layers(masks: Masks, blocks: Sequence[str], reduce: str = "sum") -> Units:
    """Whole modules, by name: all their weights are one unit, and all compete in one group ``layers``."""
    units = []
    for block in blocks:
        inside = {name: (slice(None),) for name in masks if name.startswith(f"{block}.")}
        require(bool(inside), "blocks", block, "the name of a module that has prunable weights")
        units.append(inside)
    return Units({"layers": units}, reduce)
