"""The tables and the curve of the study of long videos: what was measured of each clip, as means with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunus.reproductions.comparison import Interval, bootstrap, by_prompt

Measured = dict[str, Any]
"""Figures of one clip, by name, with its ``prompt`` and ``seed``."""


def interval(clips: Sequence[Measured], field: str, minus: Sequence[Measured] | None = None) -> Interval:
    """Mean and interval of a figure, or of its paired difference to other clips; a list counts by its mean."""
    values = {(c["prompt"], c["seed"]): float(np.mean(c[field])) for c in clips}
    base = {(c["prompt"], c["seed"]): float(np.mean(c[field])) for c in minus or ()}
    return bootstrap(by_prompt({key: value - base.get(key, 0.0) for key, value in values.items()}))


def drift_curve(clips: Sequence[Measured]) -> list[Interval]:
    """The score of each window, over clips."""
    count = len(clips[0]["windows"])
    return [interval([{**c, "one": c["windows"][i]} for c in clips], "one") for i in range(count)]


def drifted(clips: Sequence[Measured], last: int = 7) -> Interval:
    """How much higher the last windows score than the first, on average."""
    ends = [{**c, "change": np.mean(c["windows"][-last:]) - np.mean(c["windows"][:last])} for c in clips]
    return interval(ends, "change")


def apart(clips: Sequence[Measured], others: Sequence[Measured]) -> float:
    """Mean distance in px of a clip's sprite from where the other clip of its prompt and seed has it, over frames."""
    steps = [np.subtract(a["positions"], b["positions"]) for a, b in zip(clips, others, strict=True)]
    return float(np.hypot(*np.moveaxis(np.array(steps), -1, 0)).mean())


def said(value: Interval, sign: bool = False) -> str:
    kind = "+.3f" if sign else ".3f"
    return f"{value.mean:{kind}} [{value.low:{kind}}, {value.high:{kind}}]".replace("-", "\u2212")


def tables(
    drift: Mapping[str, Sequence[Measured]],
    memory: Mapping[str, Sequence[Measured]],
    curtain: Mapping[str, Sequence[Measured]],
) -> str:
    """All that was found, in Markdown."""
    both = {"plain": memory["discard"], **drift}
    lines = ["| method | whole clip | mean of windows | first 7 windows | last 7 windows | last \u2212 first | NFE |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, clips in both.items():
        ends = [[{**c, "end": c["windows"][part]} for c in clips] for part in (slice(7), slice(-7, None))]
        figures = [interval(clips, "judge"), interval(clips, "windows"), *(interval(end, "end") for end in ends)]
        lines.append(
            f"| {name} | {' | '.join(map(said, figures))} | {said(drifted(clips), True)} | {clips[0]['nfe']} |"
        )
    lines += ["", "| rule | whole clip | difference | windows | difference | px from discard |"]
    lines += ["|---|---|---|---|---|---|"]
    base = memory["discard"]
    for name, clips in memory.items():
        cells: list[str] = []
        for field in ("judge", "windows"):
            cells += [said(interval(clips, field)), said(interval(clips, field, base), True) if clips != base else ""]
        lines.append(f"| {name} | {' | '.join(cells)} | {apart(clips, base):.2f} |")
    lines += ["", "| rule | whole clip | place | difference | persistence | difference | score | difference |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    base = curtain["discard"]
    for name, clips in {"no curtain": memory["discard"], **curtain}.items():
        cells = [said(interval(clips, "judge"))]
        for field in ("place", "persistence", "score"):
            cells += [said(interval(clips, field)), said(interval(clips, field, base), True) if clips != base else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| rule | place, moving | place, standing still | px from discard |", "|---|---|---|---|"]
    for name, clips in {"no curtain": memory["discard"], **curtain}.items():
        kinds = [[c for c in clips if c["prompt"].endswith("standing still") is still] for still in (False, True)]
        cells = [said(interval(kind, "place")) if kind else "" for kind in kinds]
        lines.append(f"| {name} | {' | '.join(cells)} | {apart(clips, base):.2f} |")
    return "\n".join(lines)
