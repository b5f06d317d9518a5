"""A policy that knows each fact with a chance, and otherwise says something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunus.budget import Cost
from prunus.errors import require
from prunus.generators.written import Written
from prunus.roles import WHOLE, Ask, Generator, Grown, View
from prunus.tree import Node, seed_of
from prunus.worlds.lookups.table import PEOPLE, Table, answer, fact, parse

WORDS = 6
"""Words of a step; each counts as a token and a FLOP."""


@dataclass(frozen=True)
class LookupPolicy(Generator):
    """Writes a fact a step about whom it came to. It is right with chance ``knows``; else it says, with chance
    ``belief``, what it wrongly believes of that person, which is always the same, or anyone."""

    table: Table
    knows: float = 0.5
    belief: float = 0.0
    name: str = "lookup-policy"

    def __post_init__(self) -> None:
        require(0 <= self.knows <= 1, "knows", self.knows, "from 0 to 1")
        require(0 <= self.belief <= 1, "belief", self.belief, "from 0 to 1")

    def begin(self, prompt: str) -> tuple[str, int]:
        """The person that was come to, and the levels that are left."""
        levels, person = parse(prompt)
        return person, levels

    def grow(self, asks: Sequence[Ask]) -> list[Grown]:
        return [self._grow(ask) for ask in asks]

    def _grow(self, ask: Ask) -> Grown:
        (person, left), drawn = ask.parent.state, (ask.seed, ask.prompt, ask.path)
        said = self.table.above[person]
        if draw(*drawn, "knows") >= self.knows:
            wrong = [p for p in PEOPLE if p not in (person, said)]
            believes = draw(*drawn, "believes") < self.belief
            said = wrong[int((draw("belief", person) if believes else draw(*drawn, "guess")) * len(wrong))]
        return Grown({"text": fact(person, said) + "\n"}, (said, left - 1), left == 1, cost=Cost(1, WORDS, WORDS))

    def cost(self, asks: Sequence[Ask]) -> Cost:
        return Cost(1, WORDS, WORDS) * len(asks)

    def finish_cost(self, ask: Ask) -> Cost:
        return Cost(1, WORDS, WORDS) * (ask.parent.state[1] - 1)

    def units_left(self, node: Node) -> int:
        return node.state[1] if node.state else 0

    def render(self, nodes: Sequence[Node], view: View) -> list[Any]:
        return [Written([n.unit["text"] for n in node.units(view.units)]) for node in nodes]

    def restore(self, nodes: Sequence[Node], prompt: str) -> list[tuple[tuple[str, int], Cost]]:
        levels, _ = parse(prompt)
        texts = self.render(nodes, WHOLE)
        return [((answer(text) or "", levels - len(text.steps)), Cost()) for text in texts]

    def spec(self) -> dict:
        return {"name": self.name, "table": self.table.seed, "knows": self.knows, "belief": self.belief}


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return seed_of(*parts) / 2**63
