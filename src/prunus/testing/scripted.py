"""Scripted models: pure Python and exact, so that a strategy can be tried on them in no time.

A candidate is a row of numbers that depend on (seed, prompt, path, position) alone; its score is drawn from them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from prunus.budget import Cost
from prunus.errors import require
from prunus.roles import WHOLE, Ask, Failed, Generator, Grown, How, Reward, View
from prunus.score import Score
from prunus.tree import Node, seed_of


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return seed_of(*parts) / 2**63


@dataclass(frozen=True)
class ScriptedHow(How):
    """``steps``: how many pieces of a unit to grow now, at most; None: all that are left of it."""

    steps: int | None = None

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1")


@dataclass(frozen=True, eq=False)
class ScriptedState:
    """The pieces so far, a tuple for each node; siblings share their parent's tuples."""

    blocks: tuple[tuple[float, ...], ...] = ()
    units: int = 0  # complete ones
    inside: int = 0  # pieces of the unit that is not complete


@dataclass(frozen=True)
class ScriptedGenerator(Generator):
    """Candidates of up to ``units`` units of ``pieces`` numbers in [0, 1), each drawn from (seed, path, position).

    After any unit a candidate is done with chance ``early`` and may fail with chance ``failing``. A piece costs one
    forward, one token and ten FLOPs for each piece in its context and itself; growing from a complete unit for the
    first time costs one more forward (its commit). Rendering a unit costs seven FLOPs. ``states`` are those alive.
    """

    units: int = 4
    pieces: int = 1
    early: float = 0.0
    failing: float = 0.0
    name: str = "scripted-generator"
    how: ClassVar[type[How]] = ScriptedHow
    states: weakref.WeakSet[ScriptedState] = field(default_factory=weakref.WeakSet, compare=False, repr=False)
    committed: weakref.WeakSet[ScriptedState] = field(default_factory=weakref.WeakSet, compare=False, repr=False)

    def __post_init__(self) -> None:
        require(self.units >= 1, "units", self.units, "at least 1")
        require(self.pieces >= 1, "pieces", self.pieces, "at least 1")

    def begin(self, prompt: str) -> ScriptedState:
        state = ScriptedState()
        self.states.add(state)
        self.committed.add(state)  # nothing to commit
        return state

    def forward(self, rows: Sequence[tuple[object, ...]]) -> list[float]:
        """The network: a number for each row. Override it to count what is really run."""
        return [draw(*row) for row in rows]

    def grow(self, asks: Sequence[Ask]) -> list[Grown | Failed]:
        payers: dict[ScriptedState, Ask] = {}  # who pays for a parent's commit does not depend on the order of the rows
        for ask in sorted(asks, key=lambda a: a.path):
            if self._commits(ask.parent.state):
                payers.setdefault(ask.parent.state, ask)
        self.forward([("commit", a.prompt, a.path) for a in payers.values()])
        self.committed.update(payers)
        return [self._grow(ask, payers.get(ask.parent.state) is ask) for ask in asks]

    def _grow(self, ask: Ask, pays: bool) -> Grown | Failed:
        before, count = ask.parent.state, self._count(ask)
        drawn = (ask.seed, ask.prompt, ask.path)
        at = range(before.inside, before.inside + count)
        values = tuple(self.forward([(*drawn, "piece", before.units, piece) for piece in at]))
        cost = self._pieces_cost(sum(map(len, before.blocks)), count) + self._commit_cost(pays)
        boundary = before.inside + count == self.pieces
        units = before.units + boundary
        if boundary and draw(*drawn, "fail", units) < self.failing:
            return Failed("scripted to fail", cost)
        state = ScriptedState((*before.blocks, values), units, 0 if boundary else before.inside + count)
        self.states.add(state)
        done = boundary and (units == self.units or draw(*drawn, "early", units) < self.early)
        return Grown({"values": list(values)}, state, done, boundary, math.log1p(-values[0]), cost)

    def _count(self, ask: Ask) -> int:
        assert isinstance(ask.how, ScriptedHow)
        left = self.pieces - ask.parent.state.inside
        return min(left, ask.how.steps or left)

    def _commits(self, state: ScriptedState) -> bool:
        return state.inside == 0 and state not in self.committed

    def _commit_cost(self, times: int) -> Cost:
        return Cost(nfe=times)

    def _pieces_cost(self, context: int, count: int) -> Cost:
        return Cost(count, count, sum(10 * (context + 1 + i) for i in range(count)))

    def cost(self, asks: Sequence[Ask]) -> Cost:
        grown = (self._pieces_cost(sum(map(len, a.parent.state.blocks)), self._count(a)) for a in asks)
        return sum(grown, self._commit_cost(sum(map(self._commits, {a.parent.state for a in asks}))))

    def finish_cost(self, ask: Ask) -> Cost:
        before, count = ask.parent.state, self._count(ask)
        context = sum(map(len, before.blocks)) + count
        left = self._pieces_left(ask.parent) - count
        commits = self.units - before.units - 1  # a complete unit is committed when it is grown from
        return self._pieces_cost(context, left) + self._commit_cost(max(0, commits))

    def _pieces_left(self, node: Node) -> int:
        return self.units * self.pieces - sum(len(n.unit["values"]) for n in node.lineage)

    def units_left(self, node: Node) -> int:
        return self.units - node.depth

    def render(self, nodes: Sequence[Node], view: View) -> list[Any]:
        for node in self._unseen(nodes, view):
            node.rendering = tuple(node.unit["values"])
        contents = [[v for n in self._viewed(node, view) for v in n.rendering] for node in nodes]
        if not view.progress:
            return contents
        steps = [sum(len(n.unit["values"]) for n in self._viewed(node, View(1))) for node in nodes]
        return list(zip(contents, steps, strict=True))

    def _viewed(self, node: Node, view: View) -> list[Node]:
        return [n for n in node.lineage if view.units is None or n.depth > node.depth - view.units]

    def _unseen(self, nodes: Sequence[Node], view: View) -> list[Node]:
        return [n for n in dict.fromkeys(n for x in nodes for n in self._viewed(x, view)) if n.rendering is None]

    def render_cost(self, nodes: Sequence[Node], view: View) -> Cost:
        return self.render_price() * len(self._unseen(nodes, view))

    def render_price(self) -> Cost:
        return Cost(flops=7)

    def restore(self, nodes: Sequence[Node], prompt: str) -> list[tuple[ScriptedState, Cost]]:
        shared = {n: tuple(n.unit["values"]) for node in nodes for n in node.lineage}
        return [self._restore(node, tuple(shared[n] for n in node.lineage)) for node in nodes]

    def _restore(self, node: Node, blocks: tuple[tuple[float, ...], ...]) -> tuple[ScriptedState, Cost]:
        units, inside = divmod(sum(map(len, blocks)), self.pieces)
        state = ScriptedState(blocks, units, inside)
        self.states.add(state)
        if node.children:
            self.committed.add(state)
        return state, Cost(nfe=len(blocks))

    def state_bytes(self, states: Sequence[ScriptedState]) -> int:
        return sum(8 * len(block) for block in {id(b): b for s in states for b in s.blocks}.values())

    def spec(self) -> dict:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.compare}


@dataclass(frozen=True)
class ScriptedReward(Reward):
    """A number in [0, 1) that depends on content and prompt alone.

    ``levels``: it takes so many different values only, so that candidates tie (0: it does not round). With chance
    ``failing`` it is not a number. Each candidate costs one forward, and three FLOPs for each of its units.
    """

    levels: int = 0
    failing: float = 0.0
    name: str = "scripted-reward"
    view: View = WHOLE
    range: str = "probability"

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        return [self._score(content, prompt) for content, prompt in zip(contents, prompts, strict=True)]

    def _score(self, content: Any, prompt: str) -> Score:
        if draw(self.name, content, prompt, "fail") < self.failing:
            return Score(math.nan)
        value = draw(self.name, content, prompt)
        return Score(math.floor(value * self.levels) / self.levels if self.levels else value, {"length": len(content)})

    def cost(self, units: Sequence[int]) -> Cost:
        return Cost(nfe=len(units), flops=3 * sum(units))

    def spec(self) -> dict:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "view"} | {"view": self.view.units}
