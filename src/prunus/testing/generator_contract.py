"""The contract of generators as a check that anyone can run on their own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from prunus.budget import Cost
from prunus.errors import PrunusError, SettingError, require
from prunus.roles import CHUNK, WHOLE, Ask, Failed, Generator, Grown
from prunus.search import restore
from prunus.testing.compare import same
from prunus.testing.rules import MOST_ROUNDS, holds, within
from prunus.tree import Node, Status, Tree


def check_generator(
    generator: Generator,
    prompts: Sequence[str],
    tolerance: float = 1e-5,
    how: Mapping[str, Any] | None = None,
    exact: bool = True,
) -> None:
    """Raise AssertionError unless ``generator`` keeps its contract. ``how``: fields that every ask is made with.

    ``exact`` False is for units whose length is drawn: their NFE cannot be known beforehand, only bounded.

    Candidates of all prompts are grown to their ends, two branches at every fork. A batch grows what single calls grow
    (floats within ``tolerance``, all else exactly), in any order of rows, and the same when asked again: states are
    values. Branches are not all alike. ``cost`` is not less than what is reported, and exact in NFE; ``finish_cost``
    and ``units_left`` are upper bounds. Units outlive saving; restored states grow the same children. There is one
    content for each node. Fields of ``how`` that were not declared are refused.
    """
    who = f"generator {generator.name!r}"
    require(not isinstance(prompts, str) and len(prompts) >= 1, "prompts", prompts, "a list of at least one prompt")
    nursery = _Nursery(generator, who, dict(how or {}), tolerance, exact)
    tree = nursery.plant(prompts[0])
    try:
        tree.ask(tree.root, **{**nursery.how, "no_such_field": 1})
    except SettingError:
        pass
    else:
        holds(False, who, "a field of how that it did not declare is an error")
    try:
        alone = nursery.grow_out(prompts, "alone")
        together = nursery.grow_out(prompts, "together")
        backwards = nursery.grow_out(prompts, "backwards")
    except PrunusError as error:
        raise AssertionError(f"{who} breaks its contract: it grows candidates of its own prompts: {error}") from error
    for one, all_, turned in zip(alone, together, backwards, strict=True):
        nursery.compare(one.nodes, all_.nodes, "a batch grows what single calls grow")
        nursery.compare(all_.nodes, turned.nodes, "the order of rows does not matter")
        nursery.check_finish(one)
    siblings = [n.parent.children for tree in together for n in tree.nodes if n.parent and len(n.parent.children) > 1]
    differ = any(not same(family[0].unit, n.unit) for family in siblings for n in family[1:])
    holds(differ or not siblings, who, "branches of one parent differ: a draw depends on the path")
    nursery.check_saved(prompts[0])


class _Nursery:
    """Grows a generator's candidates in several ways that must come to the same."""

    def __init__(self, generator: Generator, who: str, how: dict[str, Any], tolerance: float, exact: bool) -> None:
        self.generator, self.who, self.how, self.tolerance, self.exact = generator, who, how, tolerance, exact

    def plant(self, prompt: str) -> Tree:
        tree = Tree(prompt, 0, self.generator)
        tree.root.state = self.generator.begin(prompt)
        return tree

    def asks(self, tree: Tree, parents: Sequence[Node]) -> list[Ask]:
        return tree.number([tree.ask(p, **self.how) for p in parents for _ in range(2 if p.boundary else 1)])

    def grow_out(self, prompts: Sequence[str], mode: str, rounds: int = MOST_ROUNDS) -> list[Tree]:
        """A tree for each prompt, grown along its first branch: each ask alone, all together, or rows backwards."""
        trees = [self.plant(prompt) for prompt in prompts]
        parents = {i: tree.root for i, tree in enumerate(trees)}
        while parents and trees[0].round < rounds:
            holds(trees[0].round + 1 < MOST_ROUNDS, self.who, "candidates end", f"{MOST_ROUNDS} units and no end")
            asked = {i: self.asks(trees[i], [parent]) for i, parent in parents.items()}
            rows = [ask for asks in asked.values() for ask in asks]
            if mode == "alone":
                grown = [self.grow([row])[0] for row in rows]
            else:
                turn = slice(None, None, -1 if mode == "backwards" else 1)
                grown = self.grow(rows[turn])[turn]
            if mode == "together" and trees[0].round <= 1:
                again = self.grow(rows)
                for a, b in zip(grown, again, strict=True):
                    rule = "a state is a value: growing twice from one parent gives the same children"
                    holds(self.alike(a, b), self.who, rule, (_shown(a), _shown(b)))
            for i, asks in asked.items():
                mine, grown = grown[: len(asks)], grown[len(asks) :]
                nodes = trees[i].add(asks, mine)
                self.check_render([n for n in nodes if n.status is not Status.FAILED])
                parents[i] = nodes[0]
            for tree in trees:
                tree.settle(())
            parents = {i: node for i, node in parents.items() if node.status is Status.OPEN}
        return trees

    def grow(self, asks: Sequence[Ask]) -> list[Grown | Failed]:
        promised = self.generator.cost(asks)
        grown = list(self.generator.grow(asks))
        holds(len(grown) == len(asks), self.who, "grow gives one result for each ask", (len(grown), len(asks)))
        odd = [type(g).__name__ for g in grown if not isinstance(g, Grown | Failed)]
        holds(not odd, self.who, "grow gives Grown or Failed", odd)
        spent = sum((g.cost for g in grown), Cost())
        if self.exact:
            holds(spent.nfe == promised.nfe, self.who, "cost is exact in NFE", f"{promised.nfe}, reported {spent.nfe}")
        holds(within(spent, promised), self.who, "cost is not less than what is reported", (promised, spent))
        return grown

    def alike(self, a: Grown | Failed | Node, b: Grown | Failed | Node) -> bool:
        return same(_shown(a), _shown(b), self.tolerance)

    def compare(self, some: Sequence[Any], others: Sequence[Any], rule: str) -> None:
        holds(len(some) == len(others), self.who, rule, f"{len(some)} and {len(others)} nodes")
        for a, b in zip(some, others, strict=True):
            holds(self.alike(a, b), self.who, rule, (_shown(a), _shown(b)))

    def check_render(self, nodes: Sequence[Node]) -> None:
        for view in (CHUNK, WHOLE):
            contents = list(self.generator.render(nodes, view)) if nodes else []
            rule = "render gives one content for each node"
            holds(len(contents) == len(nodes), self.who, rule, (len(contents), len(nodes)))

    def check_finish(self, tree: Tree) -> None:
        """What the first branch took after each of its units is not more than what was foreseen."""
        line = max(tree.nodes, key=lambda n: (n.depth, -n.id)).lineage
        fresh = self.plant(tree.prompt)
        parent = fresh.root
        for i in range(len(line)):
            ask = self.asks(fresh, [parent])[0]
            promised, left = self.generator.finish_cost(ask), self.generator.units_left(parent)
            spent = sum((n.cost for n in line[i + 1 :]), Cost())
            holds(within(spent, promised), self.who, "finish_cost is an upper bound", (promised, spent))
            more = line[-1].depth - parent.depth
            holds(left >= more, self.who, "units_left is an upper bound", (left, more))
            parent = fresh.add([ask], self.grow([ask]))[0]

    def check_saved(self, prompt: str) -> None:
        """A tree of two rounds, saved and loaded: its units are equal, its open nodes grow the same children."""
        [tree] = self.grow_out([prompt], "together", rounds=2)
        with tempfile.TemporaryDirectory() as folder:
            try:
                tree.save(folder)
            except PrunusError as error:
                holds(False, self.who, "units can be saved", error)
            loaded = Tree.load(folder, self.generator)
        for a, b in zip(tree.nodes, loaded.nodes, strict=True):
            holds(same(a.unit, b.unit), self.who, "a unit is the same after saving and loading", (a.unit, b.unit))
        restore(loaded, self.generator)
        rule = "restore gives states that grow the same children"
        some, others = (self.asks(t, [n for n in t.frontier if n is not t.root]) for t in (tree, loaded))
        if some:
            self.compare(self.grow(some), self.grow(others), rule)


def _shown(x: Grown | Failed | Node) -> tuple:
    """What of a candidate must be the same however it was grown."""
    if isinstance(x, Failed):
        return ("failed", x.reason)
    if isinstance(x, Node) and x.status is Status.FAILED:
        return ("failed", x.reason)
    done = x.done if isinstance(x, Grown) else x.status is Status.DONE
    return (x.unit, done, x.boundary, x.log_probability)
