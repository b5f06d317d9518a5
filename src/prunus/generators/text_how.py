"""How a strategy may have text grown: fields that every generator of text knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunus.errors import require
from prunus.roles import How


@dataclass(frozen=True)
class TextHow(How):
    """``steps``: how many tokens to write now, at most; the node may then end inside its unit. None: to the unit's end.

    ``temperature``: None: the generator's own; 0: greedy.
    """

    steps: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1")
        heat = self.temperature
        require(heat is None or 0 <= heat < float("inf"), "temperature", heat, "at least 0")


def stop_texts(stop: Sequence[str], most: int | None = None) -> tuple[str, ...]:
    """Texts that end a candidate, at most so many. Raises SettingError."""
    listed = isinstance(stop, list | tuple) and all(isinstance(s, str) and s for s in stop)
    allowed = "texts of at least 1 character" if most is None else f"at most {most} texts of at least 1 character"
    require(listed and (most is None or len(stop) <= most), "stop", stop, allowed)
    return tuple(stop)
