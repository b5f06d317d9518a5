"""Tokens to text as they come, in whole characters: what is written joined is what decoding all tokens at once gives.

A tokenizer decodes a token differently with and without tokens before it (a leading space), and a character's bytes may
be spread over several tokens. So new tokens are decoded behind some of those before them, and what ends in an
incomplete character waits for the next token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

CONTEXT, WINDOW = 4, 16  # tokens that are decoded again with new ones, at least and at most
INCOMPLETE = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """The text of one growing candidate. ``add`` gives what a token adds, ``rest`` what is still waiting at the end."""

    def __init__(self, decode: Decode, prompt: Sequence[int] = ()) -> None:
        self._decode = decode
        self._tokens = list(prompt[-CONTEXT:])
        self._shown = decode(self._tokens)  # the text of these tokens that was given out, or stands in the prompt

    def copy(self) -> Detokenizer:
        other = Detokenizer.__new__(Detokenizer)
        other._decode, other._tokens, other._shown = self._decode, list(self._tokens), self._shown
        return other

    def add(self, token: int) -> str:
        """The characters that are complete with this token and were not before."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith(INCOMPLETE):
            return ""
        new, self._shown = text[len(self._shown) :], text
        if len(self._tokens) >= WINDOW:
            self._forget(text)
        return new

    def rest(self) -> str:
        """What is waiting for its last bytes, shown as it is: the candidate has ended."""
        return self._decode(self._tokens)[len(self._shown) :]

    def _forget(self, text: str) -> None:
        """Let go of all but the last tokens, if text can be split there: not inside a character."""
        for count in range(CONTEXT, len(self._tokens)):
            kept = self._decode(self._tokens[-count:])
            if kept and not kept.startswith(INCOMPLETE) and text.endswith(kept):
                self._tokens, self._shown = self._tokens[-count:], kept
                return
