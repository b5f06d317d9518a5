"""What a paper claims, and what a miniature of it shows: the frame that all reproductions share.

A reproduction is a module of this package with a ``CLAIM``; it is listed in ``PAPERS``. Its ``measure`` runs the
miniature of a ``Trial`` and returns ``Evidence``: a ``Finding`` for each baseline. The judge decides, not the reward;
all methods have the same total cost, and best-of-n, rounded up, is among the baselines.

The verdict of a finding follows from the 95 % interval [low, high] of the paired difference, ours minus baseline:

    low > more_than      holds
    high <= more_than    does not hold here
    otherwise            inconclusive

``more_than`` is 0 for "better", the claimed size for "better by so much", and SAME = -0.02 for "the same".
The claim's verdict is the worst of its findings'. What is computed exactly has no interval: low = mean = high.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.errors import SettingError, require
from prunus.reproductions.comparison import Interval

HOLDS, INCONCLUSIVE, NOT_HERE = "holds", "inconclusive", "does not hold here"
SAME = -0.02

PAPERS = {
    1: "prunus.reproductions.stream_t1",
    4: "prunus.reproductions.ttsnap",
    10: "prunus.reproductions.layer_lottery",
    12: "prunus.reproductions.lottery_ticket",
    21: "prunus.reproductions.scratch",
    22: "prunus.reproductions.bip",
    24: "prunus.reproductions.process_advantage",
    25: "prunus.reproductions.granet",
    26: "prunus.reproductions.rewinding",
    36: "prunus.reproductions.pruning_game",
    38: "prunus.reproductions.process_reward_agent",
    39: "prunus.reproductions.three_regimes",
    41: "prunus.reproductions.early_rejection",
    42: "prunus.reproductions.jackpots",
    46: "prunus.reproductions.pruning_survey",
    48: "prunus.reproductions.sap",
    52: "prunus.reproductions.self_evaluation",
    53: "prunus.reproductions.consensus",
    58: "prunus.reproductions.alignment",
    61: "prunus.reproductions.rest_mcts",
}
"""Where the claim of each paper is; numbers are those of the paper cards."""


@dataclass(frozen=True)
class Trial:
    """How to run a miniature. ``split`` is dev while settings are mended, report for evidence."""

    split: str = "report"
    seed: int = 0
    smoke: bool = False
    """As little as shows that everything runs; its verdicts mean nothing."""
    say: Callable[[str], None] = lambda text: None
    """Told what begins, for people who wait."""

    def __post_init__(self) -> None:
        require(self.split in ("dev", "report"), "split", self.split, "dev or report")
        require(self.seed >= 0, "seed", self.seed, "at least 0")


@dataclass(frozen=True)
class Finding:
    """Ours against one baseline: both means, and the paired difference. ``reason``: why, if it does not simply hold."""

    ours: str
    baseline: str
    value: Interval
    base: Interval
    difference: Interval
    more_than: float = 0.0
    reason: str = ""

    @property
    def verdict(self) -> str:
        if self.difference.low > self.more_than:
            return HOLDS
        return NOT_HERE if self.difference.high <= self.more_than else INCONCLUSIVE


@dataclass(frozen=True)
class Evidence:
    """What a miniature found. ``settings`` tells how: on which ``split``, with which packaged ``model``, and so on."""

    findings: Sequence[Finding]
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """The methods' lines: their scores and what they cost."""
    columns: Sequence[str] = ()
    """Which fields of the rows are shown as a table below the findings; a row may lack some."""
    pictures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    """Names of pictures, and what draws each of them to a PNG file."""

    def __post_init__(self) -> None:
        require(len(self.findings) > 0, "findings", self.findings, "at least one")

    @property
    def verdict(self) -> str:
        found = {f.verdict for f in self.findings}
        return next(v for v in (NOT_HERE, INCONCLUSIVE, HOLDS) if v in found)


@dataclass(frozen=True)
class Claim:
    """A paper's main claim in a sentence, what it is held against, what is measured, and the miniature."""

    paper: int
    title: str
    says: str
    baseline: str
    measured: str
    measure: Callable[[Trial], Evidence]


def claim(number: str) -> Claim:
    """The claim of a paper, by the number of its card. Raises SettingError that lists those that exist."""
    if not number.isascii() or not number.isdigit() or int(number) not in PAPERS:
        known = ", ".join(f"{n:02d}" for n in sorted(PAPERS))
        raise SettingError(f"there is no reproduction of paper {number!r}; there are {known}")
    return importlib.import_module(PAPERS[int(number)]).CLAIM
