"""A picture of a few curves with their 95 % bands, as a PNG: for documents, where a page cannot draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prunus.errors import require
from prunus.report.chart import _nice
from prunus.report.media import write_png

PAPER, INK, FAINT, GRID = (255, 255, 255), (32, 32, 40), (96, 96, 108), (226, 226, 232)
COLOURS = (
    (40, 100, 200), (214, 96, 30), (30, 140, 80), (150, 70, 170), (110, 110, 120), (190, 40, 60), (20, 150, 170),
    (140, 110, 20), (230, 120, 170), (60, 60, 70),
)  # fmt: skip
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 480, 80, 24, 56, 64
MARKED = 8  # points of a curve, at most, that are marked; a single one has no line
FINE = 2  # drawn so much larger, then reduced: smooth lines


class Spread(Protocol):
    """A mean with the ends of its interval."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True)
class Curve:
    """A name and a value for each place on the axis: ``places`` (default: 1, 2, 3, ...)."""

    name: str
    values: Sequence[Spread]
    places: Sequence[float] = ()

    @property
    def at(self) -> list[float]:
        return list(self.places) or [float(i + 1) for i in range(len(self.values))]


def write_curves(path: str | Path, curves: Sequence[Curve], y_title: str, x_title: str, *, bands: bool = True) -> None:
    """Draw the curves to a PNG file; many are easier to tell apart without ``bands``. SettingError beyond ten."""
    from PIL import Image, ImageDraw

    require(len(curves) <= len(COLOURS), "curves", len(curves), f"at most {len(COLOURS)}, that each has a colour")

    low = (lambda v: v.low) if bands else (lambda v: v.mean)
    high = (lambda v: v.high) if bands else (lambda v: v.mean)
    ys = _nice(min(low(v) for c in curves for v in c.values), max(high(v) for c in curves for v in c.values))
    xs = [x for c in curves for x in c.at]
    left, right = min(xs), max(xs)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - ys[0]) / (ys[-1] - ys[0])
        return (LEFT + across * (WIDTH - LEFT - RIGHT)) * FINE, (HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)) * FINE

    image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), PAPER)
    pen = ImageDraw.Draw(image, "RGBA")
    digits = max(0, -math.floor(math.log10(ys[1] - ys[0]) + 1e-9))
    for y in ys:
        pen.line((place(left, y), place(right, y)), GRID, FINE)
        _write(pen, place(left, y), f"{y:.{digits}f}", 15, FAINT, "rm", (-10, 0))
    for x in [x for x in _nice(left, right) if left <= x <= right]:
        _write(pen, place(x, ys[0]), f"{x:g}", 15, FAINT, "mt", (0, 10))
    for curve, colour in zip(curves, COLOURS):
        top = [place(x, v.high) for x, v in zip(curve.at, curve.values, strict=True)]
        bottom = [place(x, v.low) for x, v in zip(curve.at, curve.values, strict=True)]
        if bands:
            pen.polygon(top + bottom[::-1], fill=(*colour, 44))
        middle = [place(x, v.mean) for x, v in zip(curve.at, curve.values, strict=True)]
        pen.line(middle, colour, 3 * FINE, "curve")
        for x, y in middle if len(middle) <= MARKED else ():
            pen.ellipse((x - 5 * FINE, y - 5 * FINE, x + 5 * FINE, y + 5 * FINE), colour)
    half = -(-len(curves) // 2)
    rows = [curves[:half], curves[half:]] if len(curves) > 5 else [curves]
    x, y = float(LEFT * FINE), (22 if len(rows) == 1 else 16) * FINE
    for curve, colour in zip(curves, COLOURS):
        if len(rows) > 1 and curve is rows[1][0]:
            x, y = float(LEFT * FINE), 38 * FINE
        pen.line((x, y, x + 26 * FINE, y), colour, 4 * FINE)
        _write(pen, (x, y), curve.name, 17, INK, "lm", (34, 0))
        x += pen.textlength(curve.name, _font(17)) + 70 * FINE
    _write(pen, (WIDTH * FINE / 2, HEIGHT * FINE), x_title, 15, INK, "mb", (0, -12))
    _write(pen, (WIDTH * FINE, 22 * FINE), y_title, 15, INK, "rm", (-RIGHT, 0))
    write_png(path, image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size * FINE)


def _write(pen: Any, at: tuple[float, float], text: str, size: int, colour: Any, anchor: str, by: Any) -> None:
    """Write ``by`` pixels off a place."""
    pen.text((at[0] + by[0] * FINE, at[1] + by[1] * FINE), text, colour, _font(size), anchor=anchor)
