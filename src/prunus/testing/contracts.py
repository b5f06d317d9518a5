"""The contract of the three roles as checks that anyone can run on their own classes."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from prunus.budget import Budget, Cost
from prunus.errors import PrunusError, SettingError, require
from prunus.roles import CHUNK, WHOLE, Ask, Failed, Generator, Grown, Reward, Strategy, View
from prunus.score import Score
from prunus.search import Event, restore, search, stream_search
from prunus.testing.compare import assert_same_tree, same
from prunus.testing.scripted import ScriptedGenerator, ScriptedReward
from prunus.tree import Node, Status, Tree

MOST_ROUNDS = 1_000
RANGES = ("probability", "logit", "unbounded")


def _holds(ok: bool, who: str, rule: str, seen: object = None) -> None:
    if not ok:
        raise AssertionError(f"{who} breaks its contract: {rule}" + ("" if seen is None else f"; seen: {seen}"))


def _within(cost: Cost, limit: Cost) -> bool:
    return cost.nfe <= limit.nfe and cost.tokens <= limit.tokens and cost.flops <= limit.flops


# ---- generators ------------------------------------------------------------------------------------------------------


def check_generator(
    generator: Generator, prompts: Sequence[str], tolerance: float = 1e-5, how: Mapping[str, Any] | None = None
) -> None:
    """Raise AssertionError unless ``generator`` keeps its contract. ``how``: fields that every ask is made with.

    Candidates of all prompts are grown to their ends, two branches at every fork. A batch grows what single calls grow
    (floats within ``tolerance``, all else exactly), in any order of rows, and the same when asked again: states are
    values. Branches are not all alike. ``cost`` is not less than what is reported, and exact in NFE; ``finish_cost``
    and ``units_left`` are upper bounds. Units outlive saving; restored states grow the same children. There is one
    content for each node. Fields of ``how`` that were not declared are refused.
    """
    who = f"generator {generator.name!r}"
    require(not isinstance(prompts, str) and len(prompts) >= 1, "prompts", prompts, "a list of at least one prompt")
    nursery = _Nursery(generator, who, dict(how or {}), tolerance)
    tree = nursery.plant(prompts[0])
    try:
        tree.ask(tree.root, **{**nursery.how, "no_such_field": 1})
    except SettingError:
        pass
    else:
        _holds(False, who, "a field of how that it did not declare is an error")
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
    _holds(differ or not siblings, who, "branches of one parent differ: a draw depends on the path")
    nursery.check_saved(prompts[0])


class _Nursery:
    """Grows a generator's candidates in several ways that must come to the same."""

    def __init__(self, generator: Generator, who: str, how: dict[str, Any], tolerance: float) -> None:
        self.generator, self.who, self.how, self.tolerance = generator, who, how, tolerance

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
            _holds(trees[0].round + 1 < MOST_ROUNDS, self.who, "candidates end", f"{MOST_ROUNDS} units and no end")
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
                    _holds(self.alike(a, b), self.who, rule, (_shown(a), _shown(b)))
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
        _holds(len(grown) == len(asks), self.who, "grow gives one result for each ask", (len(grown), len(asks)))
        odd = [type(g).__name__ for g in grown if not isinstance(g, Grown | Failed)]
        _holds(not odd, self.who, "grow gives Grown or Failed", odd)
        spent = sum((g.cost for g in grown), Cost())
        _holds(spent.nfe == promised.nfe, self.who, "cost is exact in NFE", f"{promised.nfe}, reported {spent.nfe}")
        _holds(_within(spent, promised), self.who, "cost is not less than what is reported", (promised, spent))
        return grown

    def alike(self, a: Grown | Failed | Node, b: Grown | Failed | Node) -> bool:
        return same(_shown(a), _shown(b), self.tolerance)

    def compare(self, some: Sequence[Any], others: Sequence[Any], rule: str) -> None:
        _holds(len(some) == len(others), self.who, rule, f"{len(some)} and {len(others)} nodes")
        for a, b in zip(some, others, strict=True):
            _holds(self.alike(a, b), self.who, rule, (_shown(a), _shown(b)))

    def check_render(self, nodes: Sequence[Node]) -> None:
        for view in (CHUNK, WHOLE):
            contents = list(self.generator.render(nodes, view)) if nodes else []
            rule = "render gives one content for each node"
            _holds(len(contents) == len(nodes), self.who, rule, (len(contents), len(nodes)))

    def check_finish(self, tree: Tree) -> None:
        """What the first branch took after each of its units is not more than what was foreseen."""
        line = max(tree.nodes, key=lambda n: (n.depth, -n.id)).lineage
        fresh = self.plant(tree.prompt)
        parent = fresh.root
        for i in range(len(line)):
            ask = self.asks(fresh, [parent])[0]
            promised, left = self.generator.finish_cost(ask), self.generator.units_left(parent)
            spent = sum((n.cost for n in line[i + 1 :]), Cost())
            _holds(_within(spent, promised), self.who, "finish_cost is an upper bound", (promised, spent))
            _holds(left >= len(line) - i, self.who, "units_left is an upper bound", (left, len(line) - i))
            parent = fresh.add([ask], self.grow([ask]))[0]

    def check_saved(self, prompt: str) -> None:
        """A tree of two rounds, saved and loaded: its units are equal, its open nodes grow the same children."""
        [tree] = self.grow_out([prompt], "together", rounds=2)
        with tempfile.TemporaryDirectory() as folder:
            try:
                tree.save(folder)
            except PrunusError as error:
                _holds(False, self.who, "units can be saved", error)
            loaded = Tree.load(folder, self.generator)
        for a, b in zip(tree.nodes, loaded.nodes, strict=True):
            _holds(same(a.unit, b.unit), self.who, "a unit is the same after saving and loading", (a.unit, b.unit))
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


# ---- rewards ---------------------------------------------------------------------------------------------------------


def check_reward(reward: Reward, contents: Sequence[Any], prompts: Sequence[str], tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless ``reward`` keeps its contract; ``contents[i]`` is scored for ``prompts[i]``.

    There is one finite score for each content (None leaves it unscored), the same when asked again, alone, or in
    another order. That higher is better is part of the contract too, but only you can know it.
    """
    who = f"reward {reward.name!r}"
    require(len(contents) == len(prompts) >= 2, "contents", len(contents), "two or more, with a prompt for each")
    _holds(isinstance(reward.view, View), who, "its view is a View", reward.view)
    _holds(reward.range in RANGES, who, f"its range is one of {', '.join(RANGES)}", reward.range)
    rated = _rate(reward, who, contents, prompts)
    ways = {
        "the same contents get the same scores again": _rate(reward, who, contents, prompts),
        "a batch gets the scores of single calls": [
            _rate(reward, who, [c], [p])[0] for c, p in zip(contents, prompts, strict=True)
        ],
        "the order of rows does not matter": _rate(reward, who, contents[::-1], prompts[::-1])[::-1],
    }
    for rule, others in ways.items():
        for a, b in zip(rated, others, strict=True):
            close = a.keys() == b.keys() and all(abs(a[k] - b[k]) <= tolerance for k in a)
            _holds(close, who, rule, (a, b))
    more, fewer = (reward.cost([1] * n) for n in (2, 1))
    _holds(_within(fewer, more), who, "scoring more candidates does not cost less", (fewer, more))


def _rate(reward: Reward, who: str, contents: Sequence[Any], prompts: Sequence[str]) -> list[dict[str, float]]:
    """The values and parts of a call's scores, checked."""
    scores = list(reward.score(contents, prompts))
    _holds(len(scores) == len(contents), who, "there is one score for each content", (len(scores), len(contents)))
    rated: list[dict[str, float]] = []
    for score in scores:
        try:
            if score is None:
                rated.append({})
                continue
            value, parts = (score.value, score.parts) if isinstance(score, Score) else (score, {})
            rated.append({"": float(value), **{k: float(v) for k, v in parts.items()}})
        except (TypeError, ValueError):
            _holds(False, who, "a score is a number or a prunus.Score", repr(score))
        finite = all(map(math.isfinite, rated[-1].values()))
        _holds(finite, who, "scores and their parts are finite for candidates that are sound", score)
    return rated


# ---- strategies ------------------------------------------------------------------------------------------------------


def check_strategy(
    strategy: Strategy,
    generator: Generator | None = None,
    rewards: Sequence[Reward] | None = None,
    prompt: str = "a prompt",
    seeds: Sequence[int] = (0, 1, 2),
    tolerance: float = 0.0,
) -> None:
    """Raise AssertionError unless ``strategy`` keeps its contract, on scripted models or on those given.

    It is a frozen dataclass whose ``spec`` can be written as JSON. It asks for open nodes only, comes to an end, and
    chooses a finished candidate; does the same again, for any batch size and order of rows, when all scores tie, and
    after saving and loading between any two rounds; and lives within a budget. With real models scores and notes agree
    within ``tolerance``.
    """
    who = f"strategy {type(strategy).__name__}"
    frozen = is_dataclass(strategy) and type(strategy).__dataclass_params__.frozen  # type: ignore[attr-defined]
    _holds(frozen, who, "it is a frozen dataclass; what it remembers stands in tree.notes")
    try:
        json.dumps(strategy.spec())
    except (TypeError, ValueError) as error:
        _holds(False, who, "its spec can be written as JSON", error)
    generator = generator or ScriptedGenerator(early=0.2)
    rewards = list(rewards or [ScriptedReward(name=strategy.reward or "scripted-reward")])
    for seed in seeds:
        _Trial(strategy, who, generator, rewards, prompt, seed, tolerance).check()


@dataclass(frozen=True)
class _Trial:
    """Searches of one strategy with one seed that must come to the same."""

    strategy: Strategy
    who: str
    generator: Generator
    rewards: Sequence[Reward]
    prompt: str
    seed: int
    tolerance: float

    def check(self) -> None:
        whole = self.run()
        finished = whole.result is not None and whole.result.status is Status.DONE
        _holds(finished, self.who, "it chooses a finished candidate")
        self.compare(whole, self.run(), "it does the same again")
        self.compare(whole, self.run(batch=1), "results do not depend on the batch size")
        backwards = replace(
            self,
            generator=_backwards(self.generator, "grow"),
            rewards=[_backwards(r, "score") for r in self.rewards],
        )
        self.compare(whole, backwards.run(), "the order of rows does not matter")
        level = replace(self, rewards=[_level(r) for r in self.rewards])
        self.compare(level.run(), level.run(batch=1), "ties are broken the same way")
        self.check_going_on(whole)
        self.check_budget(whole)

    def compare(self, a: Tree, b: Tree, rule: str) -> None:
        assert_same_tree(a, b, f"{self.who} breaks its contract: {rule}", self.tolerance)

    def events(self, **options: Any) -> Iterator[Event]:
        return stream_search(self.prompt, self.generator, self.rewards, self.strategy, seed=self.seed, **options)

    def run(self, **options: Any) -> Tree:
        try:
            for event in self.events(**options):
                _holds(event.tree.round < MOST_ROUNDS, self.who, "it ends", f"{MOST_ROUNDS} rounds and no end")
        except PrunusError as error:
            reason = f"breaks its contract: it comes to an answer; it ended with: {error}"
            raise AssertionError(f"{self.who} {reason}") from error
        return event.tree

    def check_going_on(self, whole: Tree) -> None:
        """Stopped after each of its first rounds, saved and loaded, it comes to the same tree."""
        for stop in range(1, min(whole.round, 4) + 1):
            with tempfile.TemporaryDirectory() as folder:
                for event in self.events():
                    if event.kind == "round" and event.tree.round == stop:
                        event.tree.save(folder)
                        break
                went_on = search(Tree.load(folder), self.generator, self.rewards, self.strategy)
            self.compare(
                whole, went_on, f"a search that is saved after round {stop} and loaded goes on to the same tree"
            )

    def check_budget(self, whole: Tree) -> None:
        """With half of what it spent it finishes or is refused, and never spends more."""
        for name in (f.name for f in fields(Budget) if f.name != "seconds"):
            if not (limit := getattr(whole.spent.total, name) // 2):
                continue
            tree = whole
            try:
                for event in self.events(budget=Budget(**{name: limit})):
                    tree = event.tree
            except PrunusError as error:
                tree = error.tree or tree
            spent = getattr(tree.spent.total, name)
            _holds(spent <= limit, self.who, f"a budget of {limit} {name} is kept", spent)


def _backwards(model: Any, method: str) -> Any:
    """A copy of a model that works on its rows in the reverse order."""
    turned, inner = copy.copy(model), getattr(model, method)
    object.__setattr__(turned, method, lambda *rows: list(inner(*(r[::-1] for r in rows)))[::-1])
    return turned


def _level(reward: Reward) -> Reward:
    """A copy of a reward to which all candidates are the same."""
    level = copy.copy(reward)
    object.__setattr__(level, "score", lambda contents, prompts: [0.5] * len(contents))
    return level
