"""Allocations: how many units each layer keeps when the whole is to have a given density.

An allocation reads the units' scores (a name -> tensor of the units' shape), which of them are still kept, and the
density wanted of all units; it returns a count for each name, or one count over all layers together. Counts are
integers that sum to round(density * N) exactly, at least one a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Protocol

from torch import Tensor

from prunus.errors import SettingError, require

Counts = int | dict[str, int]


class Allocation(Protocol):
    @property
    def floor(self) -> int:
        """What each layer keeps at least when layers compete."""

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float) -> Counts: ...


def whole_counts(sizes: Mapping[str, int], densities: Mapping[str, float], total: int) -> dict[str, int]:
    """Integers near sizes * densities that sum to ``total``: the largest remainders go up, of equals the first."""
    exact = {name: sizes[name] * densities[name] for name in sizes}
    counts = {name: min(sizes[name], max(1, math.floor(x + 1e-9))) for name, x in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: counts[name] - exact[name])
    while (missing := total - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        able = [n for n in by_remainder[::step] if (counts[n] < sizes[n] if step > 0 else counts[n] > 1)]
        require(bool(able), "density", total / sum(sizes.values()), "enough for one unit a layer")
        for name in able[: abs(missing)]:
            counts[name] += step
    return counts


def _check(density: float) -> None:
    require(0 < density <= 1, "density", density, "above 0, at most 1")


@dataclass(frozen=True)
class Uniform:
    """The same density in each layer; those that match ``dense`` (shell patterns) stay whole and the others make up."""

    dense: Sequence[str] = ()
    floor: int = 1

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float) -> dict[str, int]:
        _check(density)
        sizes = {name: s.numel() for name, s in scores.items()}
        total = round(density * sum(sizes.values()))
        whole = {name for name in sizes if any(fnmatch(name, pattern) for pattern in self.dense)}
        open_size = sum(size for name, size in sizes.items() if name not in whole)
        left = total - sum(sizes[name] for name in whole)
        require(
            0 < left or not open_size, "density", density, f"enough for the layers that stay dense: {sorted(whole)}"
        )
        share = left / open_size if open_size else 1.0
        return whole_counts(sizes, {name: 1.0 if name in whole else share for name in sizes}, total)


@dataclass(frozen=True)
class OutputKept:
    """The same density in each layer, but the last, the output, keeps at least ``least``; the others make up for it.

    GraNet_uniform's rule (card 25: once the rest is sparser than 80 % the classifier stays at .2).
    """

    least: float = 0.2
    floor: int = 1

    def __post_init__(self) -> None:
        require(0 < self.least <= 1, "least", self.least, "above 0, at most 1")

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float) -> dict[str, int]:
        _check(density)
        sizes = {name: s.numel() for name, s in scores.items()}
        total, output = round(density * sum(sizes.values())), list(sizes)[-1]
        if density >= self.least or len(sizes) == 1:
            return whole_counts(sizes, dict.fromkeys(sizes, density), total)
        own = max(1, round(self.least * sizes[output]))
        others = {name: size for name, size in sizes.items() if name != output}
        require(len(others) <= total - own, "density", density, f"enough for {own} weights of {output}")
        share = (total - own) / sum(others.values())
        return {**whole_counts(others, dict.fromkeys(others, share), total - own), output: own}


@dataclass(frozen=True)
class ERK:
    """Erdős-Rényi-kernel (RigL, arXiv 1911.11134): density_l = eps * sum(shape_l) / prod(shape_l), at most 1.

    eps solves sum_l density_l N_l = density N; a layer that would be denser than 1 is made dense and eps solved again.
    Thin layers stay denser. Costs about twice the MACs of ``Uniform`` at equal size in convolutional nets.
    """

    floor: int = 1

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float) -> dict[str, int]:
        sizes = {name: s.numel() for name, s in scores.items()}
        densities = erk_densities({name: tuple(s.shape) for name, s in scores.items()}, density)
        return whole_counts(sizes, densities, round(density * sum(sizes.values())))


def erk_densities(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The densities by name, from the shapes of the weights."""
    _check(density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        spread = sum(raw[name] * sizes[name] for name in shapes if name not in dense)
        eps = left / spread if spread else 0.0
        over = {name for name in shapes if name not in dense and eps * raw[name] > 1}
        if not over:
            return {name: 1.0 if name in dense else eps * raw[name] for name in shapes}
        dense.add(max(over, key=raw.__getitem__))  # one at a time, as RigL's code does: the next eps is smaller


@dataclass(frozen=True)
class Global:
    """One ranking over all layers; each keeps at least its ``floor`` best, so that none is emptied."""

    floor: int = 1

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float) -> int:
        _check(density)
        return round(density * sum(s.numel() for s in scores.values()))


@dataclass(frozen=True)
class Given:
    """Densities by layer: a name or shell pattern -> density; layers that none matches keep what they have.

    The ``density`` of the whole is then not free: pass the one that follows, or any other to have it ignored.
    """

    densities: Mapping[str, float] = field(default_factory=dict)
    floor: int = 1

    def __post_init__(self) -> None:
        for name, density in self.densities.items():
            require(0 < density <= 1, f"densities[{name!r}]", density, "above 0, at most 1")

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float = 1.0) -> dict[str, int]:
        for pattern in self.densities:
            if not any(fnmatch(name, pattern) for name in scores):
                raise SettingError(f"densities names {pattern!r}, which is none of the layers: {', '.join(scores)}")
        counts = {}
        for name, s in scores.items():
            wanted = next((d for pattern, d in self.densities.items() if fnmatch(name, pattern)), None)
            counts[name] = int(kept[name].sum()) if wanted is None else max(1, round(wanted * s.numel()))
        return counts


@dataclass(frozen=True)
class Remaining:
    """Prune a share of what is left: ``rates``, a number or by name or pattern; others lose nothing (cards 12, 26).

    round(rate * n) of a layer's n survivors are removed. ``density`` is ignored.
    """

    rates: float | Mapping[str, float] = 0.2
    floor: int = 1

    def __post_init__(self) -> None:
        for rate in self.rates.values() if isinstance(self.rates, Mapping) else [self.rates]:
            require(0 <= rate < 1, "rates", rate, "from 0 to below 1")

    def rate(self, name: str) -> float:
        if not isinstance(self.rates, Mapping):
            return self.rates
        return next((rate for pattern, rate in self.rates.items() if fnmatch(name, pattern)), 0.0)

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float = 1.0) -> dict[str, int]:
        left = {name: int(kept[name].sum()) for name in scores}
        return {name: max(min(1, n), n - round(self.rate(name) * n)) for name, n in left.items()}
