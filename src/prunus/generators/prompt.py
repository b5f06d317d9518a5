"""A prompt that is more than a text: the turns of a chat, or tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Prompt(str):
    """What is asked, as rewards read it; a generator of text takes ``messages`` or ``tokens`` instead if there are any.

    ``messages`` are the turns of a chat, {"role", "content"}; ``tokens`` are the numbers of the model's own tokens.
    """

    __slots__ = ("messages", "tokens")

    messages: tuple[dict[str, str], ...]
    tokens: tuple[int, ...]

    def __new__(cls, text: str, messages: Sequence[Mapping[str, str]] = (), tokens: Sequence[int] = ()) -> Prompt:
        prompt = super().__new__(cls, text)
        prompt.messages, prompt.tokens = tuple(dict(m) for m in messages), tuple(tokens)
        return prompt

    def __getnewargs__(self) -> tuple[Any, ...]:  # type: ignore[override]
        return str(self), self.messages, self.tokens
