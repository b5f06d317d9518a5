"""Numbers and settings as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash where there is none."""
    if value is None or math.isnan(value):
        return "\u2013"
    return f"{value:.{digits}f}".replace("-", "\u2212").replace("inf", "\u221e")


def amount(value: float) -> str:
    """A large number with its prefix: 1.2 G."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def plain(value: Any) -> str:
    """A setting's value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {plain(v)}" for k, v in value.items() if v is not None) or "\u2013"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "\u2013"
    if isinstance(value, float):
        return f"{value:g}".replace("-", "\u2212", 1) if value < 0 else f"{value:g}"
    return "\u2013" if value is None else str(value)
