"""What a language model reads for a prompt: worked examples or an instruction around it, the same for all prompts.

The tokens before the prompt, the head, are read once for all prompts of a generator. Every search is charged for them
nevertheless: what it costs does not depend on those that ran before it.
"""

from __future__ import annotations

from functools import cached_property
from itertools import takewhile
from typing import Any

from prunus.errors import require
from prunus.generators.text_model import TextModel


class Template:
    """``text`` with ``{prompt}`` in it; ``chat`` is what ``TextModel.encode`` is told for the head."""

    def __init__(self, text: str, model: TextModel, chat: bool | None) -> None:
        require("{prompt}" in text, "template", text, "a text with {prompt} in it")
        self.text, self.model, self.chat = text, model, chat

    def encode(self, prompt: str, chat: bool | None) -> list[int]:
        """A prompt that is tokens or turns is read as it is, unless there is something around it."""
        whole = prompt if self.text == "{prompt}" else self.text.replace("{prompt}", prompt)
        return self.model.encode(whole, chat)

    def begin(self, tokens: list[int]) -> tuple[Any, int]:
        """The context that is there for these tokens, and how many of them it holds: the head, or none."""
        count = len(self.head)
        if 0 < count < len(tokens) and tuple(tokens[:count]) == self.head:
            return self.context, count
        return self.model.engine.empty, 0  # without a head, or the prompt's first letters are one token with its last

    @cached_property
    def head(self) -> tuple[int, ...]:
        """None where the text begins with the prompt, and where candidates are copies."""
        if self.text.startswith("{prompt}") or self.model.why_copied:
            return ()
        letters = list(dict.fromkeys(c for c in self.text.replace("{prompt}", "") if c.isalnum()))
        if len(letters) < 2:  # two prompts that begin differently, of letters that the tokenizer can write
            return ()
        pairs = zip(*(self.encode(letter, self.chat) for letter in letters[:2]), strict=False)
        return tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    @cached_property
    def context(self) -> Any:
        engine: Any = self.model.engine
        [context], _ = engine.read([engine.empty], [self.head])
        return context
