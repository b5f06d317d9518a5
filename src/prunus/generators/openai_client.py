"""A client of OpenAI-compatible servers: requests that go on with a text, asked many at a time.

Only fields of OpenAI's own protocol are sent, and what ``extra`` adds. Requests that differ in their seeds alone are
asked for together with ``n``, so that their prompt is billed once; where a server does not know ``n``, or gives fewer
choices, each is asked for by itself, with its own seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from prunus.errors import ServerError, require
from prunus.generators.openai_answer import Choice, Usage, read
from prunus.generators.openai_probe import Ability, continues, probe, refused
from prunus.http import Server

MOST_CHOICES = 16  # of one request


@dataclass
class Client:
    """Asks ``model`` of a server; ``usage`` is what it billed so far.

    chat: chat completions; else the prompt is the text to go on with. template: what a prompt is put into ({prompt});
    system: the chat's first message. top_p: of tokens. share: ask together where that can be. extra: more fields.
    """

    server: Server
    model: str
    chat: bool = False
    template: str = "{prompt}"
    system: str = ""
    top_p: float = 1.0
    share: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        require("{prompt}" in self.template, "template", self.template, "a text with {prompt} in it")
        require(self.chat or not self.system, "system", self.system, "empty, or chat must be True")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1")

    @cached_property
    def ability(self) -> Ability:
        """What the server can do; asked once. Raises ServerError if it cannot be used."""
        return probe(self)

    @cached_property
    def continues(self) -> bool:
        """Whether the server goes on with a begun text: completions do, few chats do; asked once."""
        return not self.chat or continues(self)

    def body(
        self,
        prompt: str,
        text: str,
        limit: int,
        temperature: float,
        seed: int = 0,
        stop: Sequence[str] = (),
        ability: Ability | None = None,
    ) -> dict[str, Any]:
        """A request that goes on with ``text`` for at most ``limit`` tokens."""
        ability, asked = ability or self.ability, self.template.replace("{prompt}", prompt)
        body: dict[str, Any] = {"model": self.model, "seed": seed, "temperature": temperature, "top_p": self.top_p}
        if self.chat:
            turns = getattr(prompt, "messages", ()) or ({"role": "user", "content": asked},)
            said = ({"role": "system", "content": self.system}, *turns, {"role": "assistant", "content": text})
            body["messages"] = [turn for turn in said if turn["content"]]
        else:
            body["prompt"] = asked + text
        if stop:
            body["stop"] = list(stop)
        if ability.log_probabilities:
            body["logprobs"] = True if self.chat else 1
        return {**body, ability.limit: limit, **self.extra}

    def again(self, top_p: float | None = None) -> Client:
        """A client with a usage of its own that knows what this one has found out, or finds out now."""
        other = replace(self, top_p=self.top_p if top_p is None else top_p, usage=Usage())
        other.ability, other.continues = self.ability, self.continues
        return other

    def post(self, body: dict) -> list[Choice]:
        """The choices that answer one request. Raises ServerError."""
        return self._read(self.server.post(self._path, [body])[0])

    def answers(self, bodies: Sequence[dict]) -> list[Choice | ServerError]:
        """A choice for each request, or why it has none."""
        answers: dict[int, Choice | ServerError] = {}
        groups = self._together(bodies)
        several = [{**bodies[group[0]], "n": len(group)} if len(group) > 1 else bodies[group[0]] for group in groups]
        for group, answer in zip(groups, self._post_each(several), strict=True):
            if isinstance(answer, list):
                answers |= zip(group, answer)
            elif len(group) == 1 or not refused(answer):
                answers |= dict.fromkeys(group, answer)
        if missing := [i for i in range(len(bodies)) if i not in answers]:
            singles = self._post_each([bodies[i] for i in missing])
            answers |= {i: one[0] if isinstance(one, list) else one for i, one in zip(missing, singles, strict=True)}
            if any(isinstance(one, list) for one in singles):  # so it was asking together that did not work
                self.ability = replace(self.ability, several=False)
        return [answers[i] for i in range(len(bodies))]

    def _together(self, bodies: Sequence[dict]) -> list[list[int]]:
        alike: dict[str, list[int]] = {}
        for i, body in enumerate(bodies):
            shared = self.share and self.ability.several and body["temperature"] > 0
            alike.setdefault(repr({**body, "seed": 0}) if shared else str(i), []).append(i)
        return [one[at : at + MOST_CHOICES] for one in alike.values() for at in range(0, len(one), MOST_CHOICES)]

    def _post_each(self, bodies: Sequence[dict]) -> list[list[Choice] | ServerError]:
        answers: list[list[Choice] | ServerError] = []
        for answer in self.server.post_each(self._path, bodies):
            try:
                answers.append(answer if isinstance(answer, ServerError) else self._read(answer))
            except ServerError as error:
                answers.append(error)
        return answers

    def _read(self, answer: Any) -> list[Choice]:
        choices, usage = read(answer, self.server)
        self.usage += usage
        return choices

    @property
    def _path(self) -> str:
        return "/chat/completions" if self.chat else "/completions"
