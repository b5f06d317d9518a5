"""How a strategy may have text grown: fields that every generator of text knows."""

from __future__ import annotations

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
