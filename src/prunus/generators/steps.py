"""Where a step of text ends: at a separator, at a regular expression, or after so many tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prunus.errors import SettingError, require

Step = str | int | re.Pattern


@dataclass(frozen=True)
class StepEnd:
    """``step`` is a separator (``"\\n"``), a number of tokens, or a compiled regular expression.

    A step ends with the first token at which its text holds the separator, or a match of the expression, after
    something that is not white space: blank lines before a step belong to it. Tokens are never cut, so a token that
    goes on behind the separator is the step's to its end. Four lines are ``re.compile(r"(?:[^\\n]*\\n){4}")``.
    """

    step: Step

    def __post_init__(self) -> None:
        step = self.step
        allowed = "a separator, a number of tokens of at least 1, or a compiled regular expression"
        require(isinstance(step, str | int | re.Pattern) and not isinstance(step, bool), "step", step, allowed)
        require(step != "" and (not isinstance(step, int) or step >= 1), "step", step, allowed)
        if isinstance(step, re.Pattern) and not isinstance(step.pattern, str):
            raise SettingError(f"step = {step!r} matches bytes; compile it from a str")

    @property
    def tokens(self) -> int | None:
        """The most tokens of a step, if it is counted in tokens."""
        return self.step if isinstance(self.step, int) else None

    def reached(self, text: str, tokens: int) -> bool:
        """Whether a step of this text, which has so many tokens, is complete."""
        if isinstance(self.step, int):
            return tokens >= self.step
        if isinstance(self.step, str):
            start = len(text) - len(text.lstrip())
            # A separator that is itself white space may have been stripped: it must come after what is not.
            return bool(text[start:]) and self.step in text[start:]
        match = self.step.search(text)
        return match is not None and bool(text[: match.end()].strip())

    def spec(self) -> str | int | dict[str, str]:
        return {"expression": self.step.pattern} if isinstance(self.step, re.Pattern) else self.step
