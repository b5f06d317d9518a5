"""Schedules: which density is wanted when, as a function of progress from 0 (nothing pruned yet) to 1 (the end).

A method says what progress is: training steps in its pruning window, or rounds. Progress outside [0, 1] is clamped, and
at 1 the density is exactly the target, so that no off-by-one can leave a weight too many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from prunus.errors import require


class Schedule(Protocol):
    def density(self, progress: float, target: float) -> float: ...


@dataclass(frozen=True)
class OneShot:
    """All at once: dense before ``at``, the target from there on."""

    at: float = 0.0

    def density(self, progress: float, target: float) -> float:
        return target if progress >= min(self.at, 1.0) else 1.0


@dataclass(frozen=True)
class Iterative:
    """The same share of the survivors in each of ``rounds``: target^(k/rounds) after round k."""

    rounds: int

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")

    def density(self, progress: float, target: float) -> float:
        done = math.floor(self.rounds * min(max(progress, 0.0), 1.0) + 1e-9)
        return target if done == self.rounds else target ** (done / self.rounds)


@dataclass(frozen=True)
class Cubic:
    """Gradual pruning (arXiv 1710.01878): d = d_f + (d_i - d_f)(1 - progress)^3, fast at first."""

    initial: float = 1.0

    def density(self, progress: float, target: float) -> float:
        return target + (self.initial - target) * (1 - min(max(progress, 0.0), 1.0)) ** 3


@dataclass(frozen=True)
class Cyclic:
    """The cubic schedule ``cycles`` times over (arXiv 2202.01290): each begins again at ``initial`` density.

    Masks grow at the beginning of a cycle, so this one is for methods that can grow weights back.
    """

    cycles: int = 4
    initial: float = 1.0

    def __post_init__(self) -> None:
        require(self.cycles >= 1, "cycles", self.cycles, "at least 1")

    def density(self, progress: float, target: float) -> float:
        if progress >= 1:
            return target
        return Cubic(self.initial).density(math.fmod(max(progress, 0.0) * self.cycles, 1.0), target)
