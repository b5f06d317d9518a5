"""A scripted writer: texts whose steps are drawn from given probabilities, with no network and no tokenizer.

Its units are those of text generators, and what it writes can be enumerated, so that the accuracy of a search can be
worked out exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from prunus.budget import Cost
from prunus.errors import require
from prunus.generators.written import Written
from prunus.roles import Ask, Generator, Grown, How, View
from prunus.testing.scripted import draw
from prunus.tree import Node

Steps = Callable[[tuple[str, ...]], Mapping[str, float]]


@dataclass(frozen=True)
class ScriptedTextHow(How):
    """``steps``: at most so many tokens now (None: to the step's end); ``temperature``: None is 1, 0 is greedy."""

    steps: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.temperature is None or self.temperature >= 0, "temperature", self.temperature, "at least 0")


@dataclass(frozen=True)
class ScriptedText(Generator):
    """Texts of which ``steps(those written so far)`` tells each possible next step and its probability.

    A text ends where no step is possible, or is cut at ``most`` tokens. A token is a character; it costs one forward.
    A unit is {"tokens", "text", "reason"}, the reason one of step, end, length and partial; a unit that continues an
    unfinished one has all of the step.
    """

    steps: Steps
    most: int = 256
    name: str = "scripted-text"
    how: ClassVar[type[How]] = ScriptedTextHow

    def begin(self, prompt: str) -> tuple[str, ...]:
        return ()

    def pick(self, options: Mapping[str, float], ask: Ask) -> str:
        """The next step: one of the options, with its probability. Override it to enumerate them."""
        left = draw(ask.seed, ask.prompt, ask.path) * sum(options.values())
        for option, probability in options.items():
            left -= probability
            if left < 0:
                return option
        return list(options)[-1]

    def grow(self, asks: Sequence[Ask]) -> list[Grown]:
        return [self._grow(ask) for ask in asks]

    def _grow(self, ask: Ask) -> Grown:
        assert isinstance(ask.how, ScriptedTextHow)
        before, begun = ask.parent.state, "" if ask.parent.boundary else ask.parent.unit["text"]
        options = self.steps(before)
        if ask.how.temperature is not None:  # the probable ones more so, at 0 the most probable alone
            top, heat = max(options.values()), ask.how.temperature
            options = {o: (p / top) ** (1 / heat) if heat else float(p == top) for o, p in options.items()}
        step = self.pick(options, ask)
        room = self.most - sum(map(len, before))
        text = step[: min(room, len(begun) + (ask.how.steps or self.most))]
        state = (*before, text) if text == step else before
        if text == step:
            reason = "step" if self.steps(state) else "end"
        else:
            reason = "length" if len(text) == room else "partial"
        unit = {"tokens": np.array([ord(c) for c in text]), "text": text, "reason": reason}
        new = len(text) - len(begun)
        return Grown(unit, state, reason in ("end", "length"), reason != "partial", cost=Cost(new, new))

    def cost(self, asks: Sequence[Ask]) -> Cost:
        return sum((grown.cost for grown in self.grow(asks)), Cost())

    def finish_cost(self, ask: Ask) -> Cost:
        left = self.units_left(ask.parent)
        return Cost(left, left)

    def units_left(self, node: Node) -> int:
        return self.most - sum(len(n.unit["text"]) for n in node.units())

    def render(self, nodes: Sequence[Node], view: View) -> list[Any]:
        shown = [
            Written([n.unit["text"] for n in node.units(view.units)], node.unit["reason"] in ("step", "end"))
            for node in nodes
        ]
        if not view.progress:
            return shown
        return [(text, len(node.unit["tokens"])) for text, node in zip(shown, nodes, strict=True)]

    def restore(self, nodes: Sequence[Node], prompt: str) -> list[tuple[tuple[str, ...], Cost]]:
        texts = [tuple(n.unit["text"] for n in node.units() if n.boundary) for node in nodes]
        return [(text, Cost(len("".join(text)))) for text in texts]

    def spec(self) -> dict:
        return {"name": self.name, "most": self.most}
