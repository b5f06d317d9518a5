"""The scored tree: every candidate that a search has grown, with its scores, its status and its state.

Nodes are partial candidates; a node's lineage is the candidate. Units, scores and notes outlive pruning, states do not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.budget import Cost, Spent
from prunus.errors import SearchError, SettingError
from prunus.roles import Ask, Failed, Generator, Grown
from prunus.score import Score

if TYPE_CHECKING:
    import numpy as np


class Status(str, Enum):
    """Open nodes may grow; the other four are ends. A finished candidate may still be pruned by a better one."""

    OPEN = "open"
    CLOSED = "closed"
    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"


_FORWARD = {
    Status.OPEN: {Status.CLOSED, Status.DONE, Status.PRUNED, Status.FAILED},
    Status.DONE: {Status.PRUNED, Status.FAILED},
}


@dataclass(eq=False)
class Node:
    """A partial candidate. ``path`` holds the branch index at every fork since the root.

    ``depth`` counts units, one that is only begun among them: the nodes that a unit is grown in share its depth.
    """

    id: int
    parent: Node | None = field(repr=False)
    path: tuple[int, ...]
    depth: int
    unit: Any = field(default=None, repr=False)
    state: Any = field(default=None, repr=False)
    status: Status = Status.OPEN
    boundary: bool = True
    scores: dict[str, Score] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    log_probability: float | None = None
    cost: Cost = field(default_factory=Cost)
    round: int = 0
    reason: str = ""
    rendering: Any = field(default=None, repr=False)  # the generator's: what the unit looks like, rendered once
    rendered: bool = False  # a loaded node: its rendering was made, and paid for, before the tree was saved
    children: list[Node] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.parent is not None:
            self.parent.children.append(self)

    @property
    def lineage(self) -> list[Node]:
        """The candidate's nodes from its first unit to this one; the root has none."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def units(self, last: int | None = None) -> list[Node]:
        """The nodes that end its ``last`` units (None: all of them). This node ends the last, however far it has come.

        What a unit was like when it was half done is left out; ``lineage`` has that too.
        """
        ends = [node for node in self.lineage if node.boundary or node is self]
        return ends if last is None else ends[-last:]

    @property
    def piece(self) -> int:
        """Which node of its unit this is, from 1 on: more than 1 if the unit was left and gone on with."""
        return sum(node.depth == self.depth for node in self.lineage)

    @property
    def fork(self) -> Node | None:
        """The node from whose end this one's unit was begun: its siblings have the same. None for the root."""
        node = self.parent
        while node is not None and not node.boundary:
            node = node.parent
        return node

    def move(self, status: Status) -> None:
        """Change the status; only forwards."""
        if status is not self.status:
            if status not in _FORWARD.get(self.status, ()):
                raise SettingError(f"node {self.id} is {self.status.value} and cannot become {status.value}")
            self.status = status
        if status in (Status.CLOSED, Status.PRUNED, Status.FAILED):
            self.state = None

    def fail(self, reason: str) -> None:
        """Make this a failed node; one that has been expanded or pruned keeps its status and notes the reason."""
        self.reason = reason
        if self.status in (Status.OPEN, Status.DONE):
            self.move(Status.FAILED)


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends only on the parts (numbers, strings, tuples of them)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Whole:
    """A tree as its last whole round left it: all that a round which is broken off may have changed."""

    nodes: dict[Node, tuple[Status, str, dict[str, Score]]]
    notes: dict[int, dict[str, float]]
    random: dict[str, Any]
    spent: Spent


class Tree:
    """All nodes of one search; ``tree.nodes[0]`` is the root (the prompt alone)."""

    def __init__(self, prompt: str, seed: int = 0, generator: Generator | None = None) -> None:
        self.prompt, self.seed, self.generator = prompt, seed, generator
        self.nodes: list[Node] = [Node(0, None, (), 0)]
        self.notes: dict[int, dict[str, float]] = {}
        self.rewards: tuple[str, ...] = ()
        self.spent = Spent()
        self.spec: dict[str, Any] = {}
        self.round = 0  # the round that is being grown; earlier ones are whole
        self.settled = 0  # units that all live candidates share
        self.result: Node | None = None
        self.error: str = ""
        self._random: dict[str, np.random.Generator] = {}
        self._whole: Whole | None = None  # what the round that is being grown began with

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def root(self) -> Node:
        return self.nodes[0]

    def having(self, *statuses: Status) -> list[Node]:
        return [n for n in self.nodes if n.status in statuses]

    @property
    def frontier(self) -> list[Node]:
        """The nodes that may grow."""
        return self.having(Status.OPEN)

    @property
    def finished(self) -> list[Node]:
        """The complete candidates that were not pruned."""
        return self.having(Status.DONE)

    @property
    def fresh(self) -> list[Node]:
        """The nodes of this round that did not fail."""
        return [n for n in self.nodes[1:] if n.round == self.round and n.status is not Status.FAILED]

    def children(self, node: Node) -> list[Node]:
        return list(node.children)

    def note(self, node: Node) -> dict[str, float]:
        """What the strategy remembers of a node: named floats, saved with the tree."""
        return self.notes.setdefault(node.id, {})

    def rng(self, purpose: str) -> np.random.Generator:
        """The strategy's random stream of this name; its state is saved with the tree."""
        if purpose not in self._random:
            import numpy as np

            self._random[purpose] = np.random.default_rng(seed_of(self.seed, purpose))
        return self._random[purpose]

    def best(self) -> Answer:
        """The chosen candidate. Raises SettingError while the search has none."""
        if self.result is None:
            raise SettingError("this tree has no result yet; finish its search first")
        return Answer(self.result, self.generator)

    # ---- growing -----------------------------------------------------------------------------------------------

    def ask(self, parent: Node, **how: Any) -> Ask:
        """A wish to grow ``parent``; fields of ``how`` are the generator's own. Unknown ones raise SettingError."""
        declared = self.generator.how if self.generator else None
        if declared is None:
            raise SettingError("this tree has no generator to ask; use Tree.load(folder, generator)")
        known = {f.name for f in fields(declared)}
        if unknown := set(how) - known:
            raise SettingError(
                f"the generator {getattr(self.generator, 'name', '')!r} does not know how to grow by "
                f"{', '.join(sorted(unknown))}; it knows: {', '.join(sorted(known)) or 'nothing'}"
            )
        return Ask(parent, declared(**how), self.prompt, self.seed, ())

    def number(self, asks: Sequence[Ask]) -> list[Ask]:
        """Give every ask its path: branches of a parent are counted in order; continuing a partial node is none."""
        counts: dict[int, int] = {}
        out = []
        for a in asks:
            path = a.parent.path
            if a.parent.boundary:
                index = counts.setdefault(a.parent.id, len(a.parent.children))
                counts[a.parent.id] = index + 1
                path = (*path, index)
            out.append(Ask(a.parent, a.how, a.prompt, a.seed, path))
        return out

    def add(self, asks: Sequence[Ask], grown: Sequence[Grown | Failed]) -> list[Node]:
        """Append what a round of asks has grown."""
        new = []
        for ask, g in zip(asks, grown, strict=True):
            depth = ask.parent.depth + ask.parent.boundary  # going on inside a unit begins none
            node = Node(len(self.nodes), ask.parent, ask.path, depth, how=asdict(ask.how), cost=g.cost)
            node.round = self.round
            if isinstance(g, Failed):
                node.fail(g.reason)
            else:
                node.unit, node.state, node.boundary = g.unit, g.state, g.boundary
                node.log_probability = g.log_probability
                if g.done:
                    node.move(Status.DONE)
            self.nodes.append(node)
            new.append(node)
        return new

    def record(self, name: str, nodes: Sequence[Node], scores: Sequence[Score | float | Failed | None]) -> None:
        """Write a reward's scores; one that is not finite (or a part of it) fails its node, None leaves it unscored."""
        for node, score in zip(nodes, scores, strict=True):
            if score is None:
                continue
            if isinstance(score, Failed):
                node.fail(f"reward {name!r}: {score.reason}")
                continue
            try:
                value, parts = (score.value, score.parts) if isinstance(score, Score) else (score, {})
                score = Score(float(value), {k: float(v) for k, v in parts.items()})
            except (TypeError, ValueError):
                raise SearchError(f"reward {name!r} gave {score!r}; a score is a number or a prunus.Score") from None
            if score.finite:
                node.scores[name] = score
            else:
                bad = {k: v for k, v in score.parts.items() if not math.isfinite(v)}
                node.fail(f"reward {name!r} gave {score.value}" + "".join(f", {k} = {v}" for k, v in bad.items()))

    def settle(self, pruned: Iterable[Node], revisits: bool = False) -> None:
        """End the round: prune, close the parents that were expanded; free their states and those of finished nodes."""
        for node in pruned:
            node.move(Status.PRUNED)
        for node in self.fresh:
            if node.status is Status.DONE:
                node.state = None
        if not revisits:
            for node in {n.parent for n in self.nodes[1:] if n.round == self.round and n.parent}:
                if node.status is Status.OPEN:
                    node.move(Status.CLOSED)
        self.round += 1
        self._whole = None

    def newly_settled(self) -> list[Node]:
        """Whole units that all live candidates have come to share since the last call, in order."""
        live = [
            [u for u in n.units() if u.boundary] for n in self.having(Status.OPEN, Status.DONE) if n.parent is not None
        ]
        if not live or any(n is self.root for n in self.frontier):
            return []
        shared = 0
        while all(len(path) > shared and path[shared] is live[0][shared] for path in live):
            shared += 1
        new, self.settled = live[0][self.settled : shared], max(self.settled, shared)
        return new

    def backup(self, values: Mapping[Node, float], how: str = "mean", name: str = "value") -> None:
        """Carry values to all ancestors' notes: ``name`` is their sum, mean or max, ``visits`` counts them."""
        if how not in ("sum", "mean", "max"):
            raise SettingError(f"how = {how!r} is not allowed; how must be sum, mean or max")
        for node, value in values.items():
            for ancestor in (*node.lineage, self.root):
                note = self.note(ancestor)
                visits = note.get("visits", 0.0)
                old = note.get(name, -math.inf if how == "max" else 0.0)
                note["visits"] = visits + 1
                if how == "max":
                    note[name] = max(old, value)
                else:
                    note[name] = old + (value if how == "sum" else (value - old) / (visits + 1))

    @classmethod
    def from_units(cls, prompt: str, units: Sequence[Any], generator: Generator | None = None) -> Tree:
        """A tree with one given candidate, so that labelling and auditing read the same structure as search."""
        tree = cls(prompt, generator=generator)
        for unit in units:
            parent = tree.nodes[-1]
            tree.nodes.append(Node(len(tree.nodes), parent, (*parent.path, 0), parent.depth + 1, unit=unit))
            parent.move(Status.CLOSED)
        if units:
            tree.nodes[-1].move(Status.DONE)
            tree.result = tree.nodes[-1]
        tree.round = 1
        return tree

    # ---- breaking off ------------------------------------------------------------------------------------------

    def whole(self) -> Whole:
        """The tree at its last whole round: what is saved, and what a search that was broken off goes on from."""
        return self._whole or Whole(
            {n: (n.status, n.reason, dict(n.scores)) for n in self.nodes},
            {id: dict(note) for id, note in self.notes.items()},
            {name: rng.bit_generator.state for name, rng in self._random.items()},
            replace(self.spent),
        )

    def begin_round(self) -> None:
        """Remember the tree as it is, until ``settle`` ends the round."""
        self._whole = self.whole()

    def rewind(self) -> None:
        """Undo what a round that was begun and not settled has changed; states that it freed stay freed."""
        whole, self._whole = self._whole, None
        if whole is None:
            return
        self.nodes, self.notes, self.spent = list(whole.nodes), whole.notes, whole.spent
        for node, (status, reason, scores) in whole.nodes.items():
            node.status, node.reason, node.scores = status, reason, scores
            node.children = [child for child in node.children if child in whole.nodes]
        self._random = {}
        for name, state in whole.random.items():
            self.rng(name).bit_generator.state = state

    # ---- saving ------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``tree.json`` and its arrays; whole rounds only, so that a search can go on from them.

        Raises FileError if the folder cannot be written or a unit holds what a file cannot.
        """
        from prunus import storage

        storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, generator: Generator | None = None) -> Tree:
        """Read a saved tree. With its generator it can go on and show its output. Raises FileError."""
        from prunus import storage

        return storage.load(Path(folder), generator)


@dataclass(frozen=True)
class Answer:
    """A chosen candidate."""

    node: Node
    generator: Generator | None

    @property
    def output(self) -> Any:
        """Frames, text or image, as the generator gives it."""
        if self.generator is None:
            raise SettingError("this tree was loaded without its generator; use Tree.load(folder, generator)")
        return self.generator.output(self.node)

    @property
    def scores(self) -> dict[str, Score]:
        return self.node.scores
