"""A mean with its 95 % interval."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from prunus.errors import SettingError


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values with Student's interval. Raises SettingError for fewer than two."""
    from scipy.stats import t  # comes with scikit-learn

    if len(values) < 2:
        raise SettingError(f"an interval needs two seeds or more, not {len(values)}")
    mean, n = statistics.fmean(values), len(values)
    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * statistics.stdev(values) / n**0.5
    return Interval(mean, mean - half, mean + half)
