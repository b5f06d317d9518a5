"""The geometry of a small line chart: values by chunk, with parts and the spread of all candidates. A page draws it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MOST_LABELS = 10  # chunk numbers below the axis

Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One line: its name, its last value and its points in pixels; gaps where there was no finite value."""

    name: str
    last: float | None
    points: tuple[tuple[float, float, int, float], ...]  # x, y, chunk, value

    @property
    def path(self) -> str:
        """SVG path data; only neighbouring chunks are joined."""
        said, before = [], None
        for x, y, chunk, _ in self.points:
            said.append(f"{'L' if before == chunk - 1 else 'M'}{x:.1f} {y:.1f}")
            before = chunk
        return " ".join(said)


@dataclass(frozen=True)
class Chart:
    """``lines`` begins with the value itself; ``band`` is the polygon between the lowest and the highest candidate."""

    title: str
    lines: tuple[Line, ...]
    band: str
    x_ticks: tuple[tuple[float, int], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str, values: Values, parts: Mapping[str, Values] | None = None, spread: Sequence[Values] = ()
) -> Chart | None:
    """A chart of values by chunk (the first is chunk 1); ``spread`` holds all candidates' values of each chunk.

    None if there is no finite value to draw.
    """
    series = {title: values, **(parts or {})}
    finite = _finite(v for line in (*series.values(), *spread) for v in line)
    if not _finite(values):
        return None
    ticks = _nice(min(finite), max(finite))
    low, high = ticks[0], ticks[-1]

    def x(chunk: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (0.5 if len(values) == 1 else (chunk - 1) / (len(values) - 1))

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    def line(name: str, numbers: Values) -> Line:
        points = tuple((x(i), y(v), i, v) for i, v in enumerate(numbers, 1) if v is not None and math.isfinite(v))
        return Line(name, points[-1][3] if points else None, points)

    known = [(x(i), _finite(row)) for i, row in enumerate(spread, 1)]
    edges = [(px, y(max(row)), y(min(row))) for px, row in known if row]
    outline = [(px, top) for px, top, _ in edges] + [(px, bottom) for px, _, bottom in reversed(edges)]
    every = math.ceil(len(values) / MOST_LABELS)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0])))
    return Chart(
        title,
        tuple(line(name, numbers) for name, numbers in series.items()),
        " ".join(f"{px:.1f},{py:.1f}" for px, py in outline),
        tuple((x(i), i) for i in range(1, len(values) + 1, every)),
        tuple((y(t), f"{t:.{digits}f}".replace("-", "\u2212")) for t in ticks),
    )


def _finite(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _nice(low: float, high: float) -> list[float]:
    """Three to seven round numbers (steps of 1, 2 or 5 times a power of ten) that enclose both."""
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [n * step for n in range(first, last + 1)]
