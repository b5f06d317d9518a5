"""MCTS*: tree search guided by a value reward (paper 61, ReST-MCTS*, arXiv 2406.03816).

An iteration selects a leaf, grows ``branch`` children, values them, rolls the best one ahead and backs up:

select      from the root to the child of the highest V + c sqrt(2 ln n_parent / n); one that was not visited has V + 1.
            With ``formula="puct"`` V + (ln((n_parent + 19652 + 1) / 19652) + 1.25) P sqrt(n_parent) / (1 + n), P being
            the siblings' normalised exp(mean log-probability of a token) (test-time search basics, item 6).
simulate    greedily up to ``roll`` steps ahead; V = (1 - alpha) V + alpha max(V, values on the way), n = 1.
back up     n += 1 and V = sum n_j V_j / sum n_j over the visited children, up to the root.

V is what the reward says, cut to [0, 1]; ``value`` and ``visits`` stand in a node's notes once it was visited. Defaults
are the paper's (branch 3, c 0.7, alpha 0.5, 3 steps ahead, gate 0.9, 50 iterations). ``parallel`` leaves are selected
together, so that a batch is grown at once: each selection counts as a visit of value 0 until all are made (our choice;
the paper selects one).

Mended or different: a finished leaf is backed up once, when it is found (published: every time that it is selected, and
nothing new is learned). A subtree with nothing to grow is not selected again. Steps that were rolled ahead stay in the
tree as children, and are not grown a second time. The gate ends the search at a finished candidate (published: at any
node, whose answer a further call must guess). Until something is finished, steps are rolled ahead to the end, so that
the search always has an answer. Of the open leaves the ``held`` best keep their states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from prunus.errors import require
from prunus.roles import Ask, Strategy
from prunus.strategies.duplicates import duplicates
from prunus.tree import Node, Status, Tree


def uct(value: float, parent_visits: float, visits: float, c: float) -> float:
    """V + c sqrt(2 ln n_parent / n); c = 1 / sqrt(2) is UCT with weight 1."""
    return value + c * math.sqrt(2 * math.log(parent_visits) / visits)


def puct(value: float, parent_visits: float, visits: float, prior: float) -> float:
    """V + (ln((n_parent + c_base + 1) / c_base) + c_init) P sqrt(n_parent) / (1 + n); c_base 19652, c_init 1.25."""
    weight = math.log((parent_visits + 19652 + 1) / 19652) + 1.25
    return value + weight * prior * math.sqrt(parent_visits) / (1 + visits)


@dataclass(frozen=True)
class MCTS(Strategy):
    """Hyper-parameters, see above. ``gate`` None: all iterations are used (the paper's sampling mode).

    The reward's values are those of paper 61 or any other in [0, 1].
    """

    revisits: ClassVar[bool] = True

    iterations: int = 50
    branch: int = 3
    c: float = 0.7
    alpha: float = 0.5
    roll: int = 3
    gate: float | None = 0.9
    parallel: int = 4
    formula: str = "uct"
    held: int = 256
    reward: str | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "branch", "parallel", "held"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.c >= 0, "c", self.c, "at least 0")
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "from 0 to 1")
        require(self.roll >= 0, "roll", self.roll, "at least 0 steps")
        require(self.gate is None or 0 <= self.gate <= 1, "gate", self.gate, "from 0 to 1, or None for no gate")
        require(self.formula in ("uct", "puct"), "formula", self.formula, "uct or puct")

    # ---- growing -----------------------------------------------------------------------------------------------------

    def select(self, tree: Tree) -> Sequence[Ask]:
        if tips := self._tips(tree):
            return [tree.ask(tip) for tip in tips]
        left = self.iterations - len(tree.having(Status.CLOSED))  # each iteration closes the node that it expands
        passed = self.gate is not None and any(self.prediction(tree, n) >= self.gate for n in tree.finished)
        if tree.finished and (left <= 0 or passed):
            return []
        leaves = self._leaves(tree, max(1, min(self.parallel, left)))
        return [tree.ask(leaf) for leaf in leaves for _ in range(self.branch - len(leaf.children))]

    def _leaves(self, tree: Tree, count: int) -> list[Node]:
        """Up to ``count`` open nodes, each by a walk from the root that avoids what the walks before it took."""
        leaves: list[Node] = []
        pending: dict[Node, int] = {}  # virtual losses
        while len(leaves) < count and tree.root in (growable := _growable(tree, leaves)):
            walk = [tree.root]
            while walk[-1].status is not Status.OPEN or walk[-1] in leaves:
                children = [child for child in walk[-1].children if child in growable]
                walk.append(min(children, key=lambda child: (-self._merit(tree, child, pending), child.path)))
            for node in walk:
                pending[node] = pending.get(node, 0) + 1
            leaves.append(walk[-1])
        return leaves

    def _merit(self, tree: Tree, node: Node, pending: Mapping[Node, int]) -> float:
        assert node.parent is not None
        above = max(1.0, _visits(tree, node.parent) + pending.get(node.parent, 0))
        visits = _visits(tree, node) + pending.get(node, 0)
        value = tree.notes.get(node.id, {}).get("value", self.prediction(tree, node))
        if visits:
            value *= _visits(tree, node) / visits
        if self.formula == "puct":
            return puct(value, above, visits, _prior(node))
        return uct(value, above, visits, self.c) if visits else value + 1.0

    # ---- scoring and backing up --------------------------------------------------------------------------------------

    def to_score(self, tree: Tree) -> Mapping[str, Sequence[Node]]:
        fresh = tree.fresh
        again = duplicates(fresh)
        return {self.reward or tree.rewards[0]: [n for n in fresh if n not in again]}

    def prediction(self, tree: Tree, node: Node) -> float:
        """What the reward says of a node, from 0 to 1."""
        return min(max(self.value(tree, node), 0.0), 1.0)

    def prune(self, tree: Tree) -> Iterable[Node]:
        new = [n for n in tree.nodes[1:] if n.round == tree.round]
        parents = [n for n in dict.fromkeys(n.parent for n in new) if n is not None]
        again = duplicates(tree.fresh)
        for node in tree.fresh:
            if node.status is Status.DONE and node not in again:
                rolled = self._is_tip(tree, node.parent)  # what the simulation found is backed up from where it began
                self._visit(tree, node, self.prediction(tree, node), up=not rolled)
        for parent in parents:
            if len(parent.children) >= self.branch and parent.status is Status.OPEN:
                parent.move(Status.CLOSED)  # it has all its children
            if self._is_tip(tree, parent):
                self._roll_on(tree, parent)
            else:
                self._simulate(tree, [n for n in parent.children if n not in again])
        return [*again, *self._beyond_held(tree, again)]

    def _simulate(self, tree: Tree, children: Sequence[Node]) -> None:
        """Begin to roll ahead from the best child, through what an earlier simulation has grown below it."""
        alive = [n for n in children if n.status in (Status.OPEN, Status.DONE)]
        best = min(alive, key=lambda n: (-self.prediction(tree, n), n.path), default=None)
        if best is None or best.status is Status.DONE or _visits(tree, best):
            return
        tree.note(best).update(roll=float(self.roll), origin=float(best.id), best=self.prediction(tree, best))
        while best.children:
            best = best.children[0]
            if not self._move(tree, best):
                return
        self._end_if_rolled(tree, best)

    def _roll_on(self, tree: Tree, tip: Node) -> None:
        """A tip was grown: its newest child is the new tip."""
        if self._move(tree, tip.children[-1]):
            self._end_if_rolled(tree, tip.children[-1])

    def _move(self, tree: Tree, child: Node) -> bool:
        """Move the mark of a tip to its child; False if that is where the simulation ends."""
        assert child.parent is not None
        note = tree.note(child.parent)
        mark = {name: note.pop(name) for name in ("roll", "origin", "best")}
        mark["roll"] -= 1
        mark["best"] = max(mark["best"], self.prediction(tree, child))
        if child.status is not Status.OPEN:
            self._end(tree, mark)
            return False
        tree.note(child).update(mark)
        return True

    def _end_if_rolled(self, tree: Tree, tip: Node) -> None:
        if tree.note(tip)["roll"] <= 0 and tree.finished:
            self._end(tree, {name: tree.note(tip).pop(name) for name in ("roll", "origin", "best")})

    def _end(self, tree: Tree, mark: Mapping[str, float]) -> None:
        origin = tree.nodes[int(mark["origin"])]
        self._visit(tree, origin, (1 - self.alpha) * self.prediction(tree, origin) + self.alpha * mark["best"])

    def _visit(self, tree: Tree, node: Node, value: float, up: bool = True) -> None:
        """Note a node's first visit, and carry it up to the root."""
        tree.note(node).update(value=value, visits=1.0)
        for ancestor in (*node.lineage[-2::-1], tree.root) if up else ():
            note, seen = tree.note(ancestor), [n for n in ancestor.children if _visits(tree, n)]
            note["visits"] = _visits(tree, ancestor) + 1
            if seen:
                total = sum(_visits(tree, n) for n in seen)
                note["value"] = sum(_visits(tree, n) * tree.note(n)["value"] for n in seen) / total

    # ---- what may still grow -----------------------------------------------------------------------------------------

    def _is_tip(self, tree: Tree, node: Node | None) -> bool:
        """Whether a simulation has come to this node and will go on."""
        return node is not None and "roll" in tree.notes.get(node.id, {})

    def _tips(self, tree: Tree) -> list[Node]:
        return [n for n in tree.frontier if self._is_tip(tree, n)]

    def _beyond_held(self, tree: Tree, again: Sequence[Node]) -> list[Node]:
        """The open nodes of the lowest value, if there are more than may be held."""
        tips = self._tips(tree)
        rest = [n for n in self.ranked(tree, tree.frontier) if n not in tips and n not in again and n is not tree.root]
        return rest[max(0, self.held - len(tips)) :]


def _visits(tree: Tree, node: Node) -> float:
    return tree.notes.get(node.id, {}).get("visits", 0.0)


def _growable(tree: Tree, taken: Sequence[Node]) -> set[Node]:
    """The open nodes that are not taken, and all above them."""
    growable: set[Node] = set()
    for node in tree.frontier:
        if node not in taken:
            growable.update((*node.lineage, tree.root))
    return growable


def _prior(node: Node) -> float:
    """The policy's share of a step among its siblings, by the mean log-probability of its tokens; equal if unknown."""
    assert node.parent is not None

    def likely(n: Node) -> float:
        tokens = len(n.unit["tokens"]) if isinstance(n.unit, dict) and "tokens" in n.unit else 1
        return math.exp((n.log_probability or 0.0) / max(1, tokens))

    return likely(node) / sum(likely(n) for n in node.parent.children if n.status is not Status.FAILED)
