"""A score: one number of one reward, with the named parts it was made of. Higher is better, always."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """What a reward says of one candidate.

    ``value`` is the number that strategies compare; ``parts`` are named numbers that explain it (``motion``,
    ``format``, ...). Both are plain floats.
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value) and all(map(math.isfinite, self.parts.values()))
