"""What a server offers: models, rewards and strategies that its operator has listed. Requests choose among these."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any

from prunus.errors import SettingError, require
from prunus.generators.prompt import Prompt
from prunus.roles import FunctionReward, Generator, Reward
from prunus.server import methods

PLAIN = FunctionReward(lambda text, prompt: 0.0, "none")
"""Of searches that choose without a reward."""


class Model:
    """A generator of text, local or behind an OpenAI-compatible server, under the name that requests know it by."""

    def __init__(self, name: str, generator: Any) -> None:
        self.name, self.generator, self.created = name, generator, int(time.time())
        self.remote: bool = generator.remote
        self._lock = threading.Lock()
        self._reader: Any = None
        if not self.remote:
            # Requests are read while the model's thread writes, so with a tokenizer of their own.
            self._reader = copy(generator.model)
            self._reader.tokenizer = deepcopy(generator.model.tokenizer)

    def open(self) -> None:
        """Ask a server what it can do. Raises ServerError if it cannot be used."""
        if self.remote:
            self.generator.begin("")
            _ = self.generator.client.ability, self.generator.client.continues

    @property
    def takes_turns(self) -> bool:
        """Whether it can be given a chat of several messages."""
        if self.remote:
            return self.generator.client.chat
        return bool(self._reader.tokenizer.chat_template) and self.generator.chat is not False

    @property
    def takes_text(self) -> bool:
        """Whether it can be given a text to go on with."""
        return not (self.remote and self.generator.client.chat)

    @property
    def longest(self) -> int:
        """Tokens of an answer, where a request does not say."""
        return self.generator.max_tokens if self.remote else self.generator.longest

    def adjusted(self, raw: bool, **settings: Any) -> Any:
        """The generator with a request's settings; None leaves one as it is. Raises SettingError."""
        given = {name: value for name, value in settings.items() if value is not None}
        if self.remote and "top_k" in given:
            raise SettingError("top_k is not allowed: the server behind this model may not know it")
        made = self.generator.adjusted(**given)
        if raw and not self.remote:
            made.chat = False
        return made

    def read(self, prompt: str, raw: bool) -> Prompt | str:
        """The prompt with its tokens, so that a search need not read it. Raises PromptError."""
        if self.remote:
            return prompt
        with self._lock:
            tokens = self._reader.encode(prompt, False if raw else self.generator.chat)
        return Prompt(prompt, getattr(prompt, "messages", ()), tokens)

    def text_of(self, tokens: Sequence[int]) -> str:
        """Raises SettingError for tokens of a model whose numbers are not known here, or that it does not have."""
        if self.remote:
            raise SettingError("prompt must be a text: the numbers of this model's tokens are not known here")
        size = self._reader.config.vocab_size
        for token in tokens:
            require(0 <= token < size, "prompt", token, f"tokens of the model, 0 to {size - 1}")
        with self._lock:
            return self._reader.decode(tokens)


@dataclass
class Catalogue:
    """``strategies`` are names as ``methods`` reads them. The first reward is the one that is used unless another is
    asked for."""

    models: Mapping[str, Generator]
    rewards: Mapping[str, Reward] = field(default_factory=dict)
    strategies: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raises SettingError for a name that cannot be asked for, and a strategy that lacks its reward."""
        require(bool(self.models), "models", list(self.models), "at least one")
        for name in (*self.models, *self.rewards):
            ok = bool(name) and name.isascii() and name.isprintable() and not set(name) & set("@ ")
            require(ok, "name", name, "printable ASCII without spaces and @")
        for name in self.strategies:
            if methods.parse(name).needs_reward and not self.rewards:
                raise SettingError(f"strategy {name!r} chooses by a reward, and none is listed; give --reward NAME=DIR")
        self.served = {name: Model(name, generator) for name, generator in self.models.items()}

    def names(self) -> list[tuple[str, Model]]:
        """All names that a request may give as its model."""
        return [
            (name, model)
            for model in self.served.values()
            for name in (model.name, *(f"{model.name}@{strategy}" for strategy in self.strategies))
        ]
