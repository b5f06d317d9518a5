"""Text that a search has written: a string that knows the steps it is made of."""

from __future__ import annotations

from collections.abc import Sequence


class Written(str):
    """The text of a candidate; anything that takes a string may read it as one.

    ``steps`` are the texts of its units; joined they are the string. ``whole``: the last of them is complete.
    """

    __slots__ = ("steps", "whole")

    steps: tuple[str, ...]
    whole: bool

    def __new__(cls, steps: Sequence[str] = (), whole: bool = True) -> Written:
        written = super().__new__(cls, "".join(steps))
        written.steps, written.whole = tuple(steps), whole
        return written

    def __getnewargs__(self) -> tuple[tuple[str, ...], bool]:  # type: ignore[override]
        return self.steps, self.whole  # copies and pickles are made of the steps
