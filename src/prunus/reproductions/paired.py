"""What the miniatures of sparsification share: seeds that differ between choosing and reporting, and findings that are
paired by seed, with Student's interval."""

from __future__ import annotations

from collections.abc import Sequence

from prunus.interval import t_interval
from prunus.reproductions.claim import Finding, Trial

SEEDS, CHOOSING = 5, 100


def seeds_of(trial: Trial) -> list[int]:
    """Five seeds from the trial's on for evidence; from 100 on while settings are chosen; two for a smoke run."""
    first = trial.seed + (0 if trial.split == "report" else CHOOSING)
    return list(range(first, first + (2 if trial.smoke else SEEDS)))


def part_of(trial: Trial) -> str:
    """The part of the data that judges: ``test`` for evidence, ``validation`` while settings are chosen."""
    return "test" if trial.split == "report" else "validation"


def finding(
    ours: str, baseline: str, values: Sequence[float], base: Sequence[float], more_than: float = 0.0, reason: str = ""
) -> Finding:
    """``values`` against ``base``, seed by seed; higher is better. The reason is kept if it does not simply hold."""
    difference = t_interval([a - b for a, b in zip(values, base, strict=True)])
    needed = "" if difference.low > more_than else reason
    return Finding(ours, baseline, t_interval(values), t_interval(base), difference, more_than, needed)
