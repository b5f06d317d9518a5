"""Text from any server that speaks OpenAI's protocol (vLLM, llama.cpp, SGLang, hosted ones): completions or chat.

A unit is a step: what is written up to ``step``, a separator or a number of tokens, or all of it (None). The prompt and
what has been written so far are sent again for each step; servers keep prefixes in a cache.

A step ends with its separator, whether or not the server returns it; blank lines before a step belong to it. Servers
say "stop" both for a separator and for the end of the text. Where their tokens do not tell which it was, one more token
is asked for, greedily: nothing means the end. Text that was cut by a limit is never finished. In chat, steps need a
server that goes on with what an assistant has begun (``openai_probe``); most do not, and are refused.

Draws are the server's. With a request for each candidate (``share=False``) the seed depends on (seed, prompt, path,
place) alone, and a server that honours it gives the same candidates in any batch; with shared requests siblings depend
on each other. A unit that is left and gone on with is another one than if it had been written at once.
"""

from __future__ import annotations

from collections.abc import Generator as Coroutine
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np

from prunus.budget import Cost
from prunus.errors import ServerError, require
from prunus.generators.openai_answer import Choice, Usage
from prunus.generators.openai_client import Client
from prunus.generators.text_how import TextHow, stop_texts
from prunus.generators.written import Written
from prunus.http import Server
from prunus.roles import Ask, Failed, Generator, Grown, How, View
from prunus.tree import Node, seed_of

UNKNOWN = -1  # a token's number is not told
MOST_STOPS = 3  # OpenAI takes four, and one is the separator


@dataclass(frozen=True)
class Sent:
    """A candidate's text so far, and the completion tokens that were billed for it."""

    text: str = ""
    billed: int = 0


class OpenAIText(Generator):
    """Candidates from the ``model`` of the server at ``url`` (its base, such as http://127.0.0.1:8000/v1).

    step: where a unit ends: a separator, a number of tokens, or None (at the end of the text). stop: at most three
    texts that end a candidate and are no part of it. temperature: of tokens; 0 is greedy. max_tokens of a candidate,
    max_step tokens of a step and max_steps are limits (None: none); a budget holds in reserve what they allow.
    chat, template, system, top_p, share and extra are ``openai_client.Client``'s. ``connection``: key (the *name* of
    the environment variable with the API key), time_limit, retries, back_off and concurrency of ``prunus.http.Server``.

    A unit is {"text", "tokens", "log_probabilities", "reason", "billed"}. Of tokens only the number is known (-1 each);
    log-probabilities are empty where the server tells none. ``reason``: step, end, length, or partial, inside a step.
    A candidate whose request fails after all retries is a failed one, the others go on. A growth costs one forward and
    the completion tokens that were billed; prompt and cached tokens are in ``usage``. Raises ServerError before
    anything is grown if the server cannot be used.
    """

    how: ClassVar[type[How]] = TextHow
    remote = True

    def __init__(
        self,
        url: str,
        model: str,
        step: str | int | None = "\n",
        *,
        chat: bool = False,
        template: str = "{prompt}",
        system: str = "",
        stop: Sequence[str] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 512,
        max_step: int | None = None,
        max_steps: int | None = None,
        share: bool = True,
        extra: Mapping[str, Any] | None = None,
        name: str = "openai",
        **connection: Any,
    ) -> None:
        known = step is None or (isinstance(step, str) and step != "") or (type(step) is int and step >= 1)
        allowed = "a separator, a number of tokens, or None (a regular expression needs a local model)"
        require(known, "step", step, allowed)
        require(0 <= temperature < float("inf"), "temperature", temperature, "at least 0")
        for field, limit in {"max_tokens": max_tokens, "max_step": max_step, "max_steps": max_steps}.items():
            require((limit is None and field != "max_tokens") or (limit or 0) >= 1, field, limit, "at least 1")
        self.name, self.step, self.stop, self.temperature = name, step, stop_texts(stop, MOST_STOPS), temperature
        bounds = [bound for bound in (max_step, step) if isinstance(bound, int)]
        self.max_tokens, self.max_step, self.max_steps = max_tokens, min(bounds, default=None), max_steps
        server = Server(url, f"generator {name!r}", **{"time_limit": 300.0, **connection})
        self.client = Client(server, model, chat, template, system, top_p, share, dict(extra or {}))

    @property
    def usage(self) -> Usage:
        """What the server has billed to this generator, in all."""
        return self.client.usage

    def adjusted(
        self,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: Sequence[str] | None = None,
        max_tokens: int | None = None,
    ) -> OpenAIText:
        """One with other settings, and a usage of its own, that asks the same server; None leaves a setting as it is.

        Raises SettingError, and ServerError if the server, which is asked what it can do, cannot be used.
        """
        other = copy(self)
        if temperature is not None:
            require(0 <= temperature < float("inf"), "temperature", temperature, "at least 0")
            other.temperature = temperature
        if stop is not None:
            other.stop = stop_texts(stop, MOST_STOPS)
        if max_tokens is not None:
            require(max_tokens >= 1, "max_tokens", max_tokens, "at least 1")
            other.max_tokens = max_tokens
        other.client = self.client.again(top_p)
        return other

    # ---- growing -------------------------------------------------------------------------------------------------

    def begin(self, prompt: str) -> Sent:
        if self.client.ability and self._stepwise:
            self._must_continue()
        return Sent()

    @property
    def _stepwise(self) -> bool:
        return self.step is not None or self.max_step is not None

    def _must_continue(self) -> None:
        if not self.client.continues:
            raise self.client.server.error(
                "does not go on exactly with a message that an assistant has begun, so chat cannot be grown in steps; "
                "take completions (chat=False), or whole answers (step=None)"
            )

    def grow(self, asks: Sequence[Ask]) -> list[Grown | Failed]:
        if any(a.parent.state.text or _how(a).steps for a in asks):
            self._must_continue()
        order = sorted(range(len(asks)), key=lambda i: (asks[i].prompt, asks[i].path))
        growing = {i: self._unit(asks[i]) for i in order}
        waiting, grown = {i: next(unit) for i, unit in growing.items()}, {}
        while waiting:
            answers = self.client.answers(list(waiting.values()))
            for i, answer in zip(list(waiting), answers, strict=True):
                try:
                    waiting[i] = growing[i].send(answer)
                except StopIteration as ended:
                    grown[i] = ended.value
                    del waiting[i]
        return [grown[i] for i in range(len(asks))]

    def _unit(self, ask: Ask) -> Coroutine[dict, Choice | ServerError, Grown | Failed]:
        """Grow one unit, or a piece of it: yields requests, is sent a choice (or what went wrong) for each."""
        parent, how, body = ask.parent, _how(ask), self.client.body
        begun = {} if parent.boundary else parent.unit
        text, count = begun.get("text", ""), begun.get("billed", 0)
        before = parent.state.text[: len(parent.state.text) - len(text)]
        logs: list[float | None] = list(begun["log_probabilities"].tolist()) if begun else []
        if begun and len(logs) < len(begun["tokens"]):
            logs = [None] * len(begun["tokens"])
        temperature = self.temperature if how.temperature is None else how.temperature
        stop = [s for s in (self.step, *self.stop) if isinstance(s, str)]
        billed, end = 0, ""
        while not end:
            reason, limit = self._limit(parent, how, billed)
            if limit <= 0:
                end = reason
                break
            seed = seed_of(ask.seed, ask.prompt, ask.path, len(before) + len(text)) % 2**31
            choice = yield body(ask.prompt, before + text, limit, temperature, seed, stop)
            if isinstance(choice, ServerError):
                return Failed(str(choice), Cost(1, billed))
            billed += max(1, choice.billed)
            if choice.finish not in ("stop", "length"):
                return Failed(f"the server ended the text for the reason {choice.finish!r}", Cost(1, billed))
            new, end = self._cut(before, text, choice.text)
            text, logs = text + new, logs + _log_probabilities(choice, new)
            if not end and choice.finish == "length":
                end = reason if len(choice.tokens or range(limit)) >= limit else "length"  # the server's own limit
            elif not end and not self._blank(new):
                if (end := self._told(choice)) == "":
                    check = yield body(ask.prompt, before + text, 1, 0.0)
                    if isinstance(check, ServerError):
                        return Failed(str(check), Cost(1, billed))
                    billed += max(1, check.billed)
                    end = self._begins(check)
                if end == "step":
                    text += str(self.step)
                    end = "" if self._blank(text) else end
        last = self.max_steps is not None and parent.depth + parent.boundary >= self.max_steps
        if end == "step" and (last or parent.state.billed + billed >= self.max_tokens):
            end = "length"
        told = [log for log in logs if log is not None]
        told = told if len(told) == len(logs) else []
        unit = {
            "tokens": np.full(len(logs), UNKNOWN, np.int64),
            "log_probabilities": np.array(told, np.float32),
            "text": text,
            "reason": end,
            "billed": count + billed,
        }
        return Grown(
            unit,
            Sent(before + text, parent.state.billed + billed),
            done=end in ("end", "length"),
            boundary=end != "partial",
            log_probability=float(sum(told)) if told else None,
            cost=Cost(1, billed),
        )

    def _limit(self, parent: Node, how: TextHow, billed: int = 0) -> tuple[str, int]:
        """How many tokens may come now, and how the unit ends if they all do."""
        limits = {"length": self.max_tokens - parent.state.billed}
        if self.max_step is not None:
            limits["step"] = self.max_step - (0 if parent.boundary else parent.unit["billed"])
        if how.steps is not None:
            limits["partial"] = how.steps
        reason = min(limits, key=lambda name: limits[name])  # of equal ones the first
        return reason, limits[reason] - billed

    def _cut(self, before: str, text: str, new: str) -> tuple[str, str]:
        """What of ``new`` belongs to the unit, and why it ends there; "" if neither a separator nor a stop is in it.

        Servers may return the text at which they stopped, or not know ``stop`` at all.
        """
        whole, at = before + text + new, len(before) + len(text)
        stop = min((i for s in self.stop if (i := whole.find(s, max(0, at - len(s) + 1))) >= 0), default=len(whole) + 1)
        if isinstance(self.step, str):
            first = len(whole) - len(whole[len(before) :].lstrip())
            end = whole.find(self.step, first) + len(self.step)
            if first + len(self.step) <= end <= stop:
                return whole[at:end], "step"
        return (whole[at : max(at, stop)], "end") if stop <= len(whole) else (new, "")

    def _blank(self, text: str) -> bool:
        """Whether this is a separator and nothing more: blank lines belong to the step after them."""
        return isinstance(self.step, str) and text.endswith(self.step) and not text.strip()

    def _told(self, choice: Choice) -> str:
        """Why a choice stopped; "" if it cannot be told by the tokens that a server counts and does not show."""
        if not isinstance(self.step, str):
            return "end"
        said = "".join(choice.tokens)
        if not said.startswith(choice.text) or said == choice.text:
            return ""
        return "step" if said[len(choice.text) :].startswith(self.step) else "end"

    def _begins(self, check: Choice) -> str:
        """Whether the token that would have come next begins a separator: a step, or nothing, or a stop: the end."""
        if not check.text:
            return "end" if check.finish == "stop" else "step"
        step, *stops = (s.startswith(check.text) or check.text.startswith(s) for s in (str(self.step), *self.stop))
        return "end" if any(stops) and not step else "step"

    # ---- costs -----------------------------------------------------------------------------------------------------

    def cost(self, asks: Sequence[Ask]) -> Cost:
        """Completion tokens at most: the limit, and a check of the end that comes with the last of them."""
        return Cost(len(asks), sum(self._limit(ask.parent, _how(ask))[1] + 1 for ask in asks))

    def finish_cost(self, ask: Ask) -> Cost:
        left = self.max_tokens - ask.parent.state.billed
        if self.max_step and self.max_steps:
            left = min(left, (self.units_left(ask.parent) + 1) * (self.max_step + 1))
        return Cost(self.units_left(ask.parent) + 1, left)

    def units_left(self, node: Node) -> int:
        billed = sum(n.unit["billed"] for n in node.units())
        left = max(0, self.max_tokens - billed) if self._stepwise else int(node.parent is None)
        return left if self.max_steps is None else min(left, self.max_steps - node.depth)

    # ---- showing, going on -----------------------------------------------------------------------------------------

    def render(self, nodes: Sequence[Node], view: View) -> list[Any]:
        shown = [
            Written([n.unit["text"] for n in node.units(view.units)], node.parent is None or _whole(node))
            for node in nodes
        ]
        if not view.progress:
            return shown
        return [(text, len(node.unit["tokens"])) for text, node in zip(shown, nodes, strict=True)]

    def restore(self, nodes: Sequence[Node], prompt: str) -> list[tuple[Sent, Cost]]:
        """What has been sent is all that there is to a state; the server's cache may have lost it."""
        units = [[n.unit for n in node.units()] for node in nodes]
        return [(Sent("".join(u["text"] for u in some), sum(u["billed"] for u in some)), Cost()) for some in units]

    def spec(self) -> dict:
        own = ("name", "step", "stop", "temperature", "max_tokens", "max_step", "max_steps")
        asked = ("model", "chat", "template", "system", "top_p", "share", "extra")
        settings = {**{n: getattr(self, n) for n in own}, **{n: getattr(self.client, n) for n in asked}}
        return {**settings, "url": self.client.server.address}


def _how(ask: Ask) -> TextHow:
    assert isinstance(ask.how, TextHow)
    return ask.how


def _whole(node: Node) -> bool:
    """Whether the last step is complete."""
    return node.boundary and node.unit["reason"] != "length"


def _log_probabilities(choice: Choice, kept: str) -> list[float | None]:
    """One for each token of what was kept of a choice; None for each if the server did not tell."""
    if not choice.tokens:
        return [None] * (choice.billed if choice.text else 0)
    if kept == choice.text:
        return list(choice.log_probabilities)
    ends = accumulate(map(len, choice.tokens))
    count = sum(end - len(token) < len(kept) for end, token in zip(ends, choice.tokens, strict=True))
    return list(choice.log_probabilities[:count])
