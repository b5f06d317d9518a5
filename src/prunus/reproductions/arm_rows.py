"""The lines of ``sparse.table`` as rows of a reproduction: the mean, the paired differences, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunus.interval import t_interval
from prunus.reproductions.claim import Finding, Trial
from prunus.reproductions.paired import finding, part_of
from prunus.sparse.table import Line


def columns(against: Sequence[str]) -> tuple[str, ...]:
    return ("arm", "right", *(f"against {name}" for name in against), "kept", "MACs", "steps", "seconds")


def row(line: Line, against: Mapping[str, Line | None], trial: Trial) -> dict[str, Any]:
    """The cells of ``columns``. ``against``: a column's name -> the line that is subtracted; None: an empty cell."""
    part = part_of(trial)
    own = getattr(line, part)
    cells: dict[str, Any] = {
        "arm": line.name + (" (cut short)" if line.capped else ""),
        "right": t_interval(own).mean,
    }
    for name, other in against.items():
        shown = ""
        if other is not None and other is not line:
            gap = t_interval([a - b for a, b in zip(own, getattr(other, part), strict=True)])
            shown = f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        cells[f"against {name}"] = shown
    costs = {"kept": line.density, "MACs": round(line.macs), "steps": line.steps, "seconds": round(line.seconds, 2)}
    return cells | costs | {"parameters": round(line.parameters), "scores": list(own)}


def compare(ours: Line, baseline: Line, trial: Trial, more_than: float = 0.0, reason: str = "") -> Finding:
    """The paired difference of two lines."""
    part = part_of(trial)
    return finding(ours.name, baseline.name, getattr(ours, part), getattr(baseline, part), more_than, reason)
