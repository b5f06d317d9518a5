"""The roles of a search: what grows (Generator), what scores (Reward), what chooses (Strategy).

Each is a small base class whose defaults suit simple cases; a foreign thing is wrapped at the edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from prunus.budget import Cost
from prunus.errors import require
from prunus.score import Score

if TYPE_CHECKING:
    from prunus.tree import Node, Tree


@dataclass(frozen=True)
class View:
    """Which of a candidate's units a reward reads: the last ``units`` of them, or all (None).

    With ``progress`` each content is a pair: what is seen, and how many steps the last unit has been grown by. That is
    for rewards that judge unfinished units. With ``state`` each content is a pair of what is seen and the generator's
    state, for rewards that read on from it (self-evaluation); they must not change it.
    """

    units: int | None = None
    progress: bool = False
    state: bool = False

    def __post_init__(self) -> None:
        require(self.units is None or self.units >= 1, "units", self.units, "at least 1, or None for all")


CHUNK = View(1)
WHOLE = View(None)


@dataclass(frozen=True)
class How:
    """How to grow one unit. A generator declares its own fields in a subclass."""


@dataclass(frozen=True)
class Ask:
    """One wish of a strategy: a parent, and how to grow it. ``path`` and ``seed`` fix every draw of the child.

    A generator whose units take several steps may let ``how.steps`` say how many of them to take now. The child then
    ends inside its unit, unless that is complete, and asking for it goes on where it ended.
    """

    parent: Node
    how: How
    prompt: str
    seed: int
    path: tuple[int, ...]


@dataclass(frozen=True)
class Grown:
    """One unit that a generator added.

    ``unit`` and ``state`` are the generator's; a unit is a (nested) dict of arrays, numbers and strings and outlives
    pruning. ``done``: the candidate is finished. ``boundary``: the unit is complete. ``cost``: what it took.
    """

    unit: Any
    state: Any
    done: bool = False
    boundary: bool = True
    log_probability: float | None = None
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Failed:
    """A candidate that could not be grown, or scored, and why."""

    reason: str
    cost: Cost = field(default_factory=Cost)


class Generator:
    """Grows nodes by one unit, in a batch. Subclasses implement ``begin``, ``grow``, ``render`` and ``restore``."""

    name: str = "generator"
    how: ClassVar[type[How]] = How
    remote: ClassVar[bool] = False  # a call waits for another machine; several may be under way at a time

    @property
    def family(self) -> Hashable:
        """Generators of one family may grow and render each other's nodes in one call. By default each is its own."""
        return id(self)

    def begin(self, prompt: str) -> Any:
        """The empty candidate's state. Raises PromptError for a prompt that it does not understand."""
        raise NotImplementedError

    def grow(self, asks: Sequence[Ask]) -> Sequence[Grown | Failed]:
        """One result per ask, in order; asks may come from several prompts."""
        raise NotImplementedError

    def render(self, nodes: Sequence[Node], view: View) -> Sequence[Any]:
        """What a reward with this view is shown of each node, in order."""
        raise NotImplementedError

    def restore(self, nodes: Sequence[Node], prompt: str) -> Sequence[tuple[Any, Cost]]:
        """States of nodes that were loaded from a file, rebuilt from the units of their lineages, and the cost.

        A node with ``children`` was grown from before: what its first growth paid for is rebuilt too, not left to the
        next growth. The root may be such a node; its lineage has no units.
        """
        raise NotImplementedError

    def cost(self, asks: Sequence[Ask]) -> Cost:
        """What growing these takes (an upper bound; exact where it can be)."""
        return Cost(nfe=len(asks))

    def finish_cost(self, ask: Ask) -> Cost:
        """What finishing the child of this ask alone takes afterwards, at most."""
        return Cost()

    def units_left(self, node: Node) -> int:
        """How many more units can be begun after this node's, at most."""
        return 0

    def render_cost(self, nodes: Sequence[Node], view: View) -> Cost:
        """What ``render`` will take."""
        return Cost()

    def render_price(self) -> Cost:
        """What rendering one new unit takes, at most; reserved before a round."""
        return Cost()

    def state_bytes(self, states: Sequence[Any]) -> int:
        """Bytes that these states hold together; what they share counts once."""
        return 0

    def output(self, node: Node) -> Any:
        """The finished candidate as the user wants it."""
        return self.render([node], WHOLE)[0]

    def spec(self) -> dict:
        """What is needed to make this generator again."""
        return {"name": self.name}


class Reward:
    """Scores candidates, in a batch. ``range`` is what its values are: probability, logit or unbounded.

    ``reads_on``: it keeps what it has read of a candidate, so that of a child's units only the new ones cost anything.
    """

    name: str = "reward"
    view: View = WHOLE
    range: str = "unbounded"
    reads_on: bool = False
    remote: ClassVar[bool] = False  # as a generator's

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> Sequence[Score | float]:
        """One score per content, in order; higher is better. None: it has none. Failed: the candidate fails."""
        raise NotImplementedError

    def cost(self, units: Sequence[int]) -> Cost:
        """What scoring candidates whose views hold this many units takes; at most, if ``took`` tells it exactly.

        For a reward that reads on, so many units that it has not read, behind those that it has.
        """
        return Cost()

    def took(self, contents: Sequence[Any], prompts: Sequence[str], read: Sequence[int]) -> Cost | None:
        """What scoring these took, for rewards that know only then; None: as ``cost`` said.

        ``read[i]``: so many units at the head of ``contents[i]`` it had scored in an ancestor. Only that may count as
        known, not what other searches had it read, so that a search costs the same wherever it runs.
        """
        return None

    def spec(self) -> dict:
        """What is needed to make this reward again."""
        return {"name": self.name}


@dataclass(frozen=True)
class FunctionReward(Reward):
    """A plain function ``f(content, prompt) -> float`` as a reward."""

    function: Callable[[Any, str], Score | float]
    name: str = "function"
    view: View = WHOLE

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> Sequence[Score | float]:
        return [self.function(c, p) for c, p in zip(contents, prompts, strict=True)]


class Strategy:
    """Chooses which nodes grow next, which are scored, which are pruned, and the answer.

    A strategy is a frozen dataclass of its hyper-parameters; what it must remember stands in ``tree.notes``.
    ``revisits`` says that it may grow a node again in a later round; such nodes stay open and keep their state.
    ``finishes_all`` says that it finishes every candidate that it begins; a budget then begins as many as it pays for,
    and scores finished ones only unless ``scores_units``. Elsewhere the cost of finishing one is kept in reserve.
    ``rounds_per_unit`` is the most rounds in which it grows one unit, each of which scores it; more than 1 for
    strategies that stop inside units.
    """

    revisits: ClassVar[bool] = False
    finishes_all: ClassVar[bool] = False
    scores_units: ClassVar[bool] = False
    rounds_per_unit: int = 1
    reward: str | None = None  # the reward that ``value`` reads; None: the only one

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the rewards that it reads, each of which the search must have."""
        return () if self.reward is None else (self.reward,)

    def select(self, tree: Tree) -> Sequence[Ask]:
        """The wishes of the next round, most wanted first; none ends the search.

        What it notes or draws counts only if the round is grown.
        """
        raise NotImplementedError

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        """Which nodes each reward scores now; those of earlier rounds only where the budget pays for it."""
        return dict.fromkeys(tree.rewards, tree.fresh)

    def prune(self, tree: Tree) -> Iterable[Node]:
        """The nodes to give up."""
        return ()

    def value(self, tree: Tree, node: Node) -> float:
        """The number by which candidates are ranked; a node that was not scored comes last."""
        name = self.reward or tree.rewards[0]
        return node.scores[name].value if name in node.scores else -math.inf

    def ranked(self, tree: Tree, nodes: Iterable[Node]) -> list[Node]:
        """Best first; of equal values the earlier path (branch indices since the root) first."""
        return sorted(nodes, key=lambda n: (-self.value(tree, n), n.path, n.depth))

    def choose(self, tree: Tree) -> Node:
        """The answer: the best finished node."""
        return self.ranked(tree, tree.finished)[0]

    def spec(self) -> dict:
        """What is needed to make this strategy again."""
        return {"name": type(self).__name__, **{k: getattr(self, k) for k in getattr(self, "__dataclass_fields__", {})}}
