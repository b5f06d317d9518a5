"""The search loop, written once: grow, score, prune.

It has no input or output of its own: it yields work (grow, render, rate) and events, and is sent the work's results.
Drivers, which do the work for one search or for many together, are in ``search.py``.
"""

from __future__ import annotations

import math
from collections.abc import Generator as Coroutine
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from prunus.budget import Budget, Cost
from prunus.errors import BudgetError, SearchError, require
from prunus.roles import CHUNK, Ask, Generator, Reward, Strategy, View
from prunus.tree import Node, Status, Tree


@dataclass(frozen=True)
class Event:
    """Something that a watcher may want to know.

    ``begun``: the budget pays for a candidate and the first call comes next. ``settled``: these nodes are shared by all
    live candidates, they will be in the answer and can be played or sent. ``round``: a round is over; these nodes were
    grown. ``finished``: the search has chosen this node.
    """

    kind: str
    tree: Tree
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Grow:
    """Work: one batched call of the generator."""

    generator: Generator
    rows: Sequence[Ask]
    purpose = "generating"

    @property
    def model(self) -> Generator:
        return self.generator

    @property
    def call(self) -> tuple:
        return (self.purpose, self.generator.family)

    def run(self, rows: Sequence[Any]) -> Sequence[Any]:
        return _checked(self.generator.grow(rows), rows, f"generator {self.generator.name!r}", "candidates")


@dataclass(frozen=True)
class Render:
    """Work: what a reward with this view is shown of each node."""

    generator: Generator
    view: View
    rows: Sequence[Node]
    purpose = "rendering"

    @property
    def model(self) -> Generator:
        return self.generator

    @property
    def call(self) -> tuple:
        return (self.purpose, self.generator.family, self.view)

    def run(self, rows: Sequence[Any]) -> Sequence[Any]:
        return _checked(self.generator.render(rows, self.view), rows, f"generator {self.generator.name!r}", "views")


@dataclass(frozen=True)
class Rate:
    """Work: one batched call of a reward; rows are (content, prompt)."""

    reward: Reward
    rows: Sequence[tuple[Any, str]]
    purpose = "scoring"

    @property
    def model(self) -> Reward:
        return self.reward

    @property
    def call(self) -> tuple:
        return (self.purpose, id(self.reward))

    def run(self, rows: Sequence[Any]) -> Sequence[Any]:
        scores = self.reward.score([r[0] for r in rows], [r[1] for r in rows])
        return _checked(scores, rows, f"reward {self.reward.name!r}", "scores")


Work = Grow | Render | Rate


@dataclass(frozen=True)
class Done:
    """What the loop is sent for its work: one result per row, and the seconds that they took."""

    results: Sequence[Any]
    seconds: float


def _checked(results: Sequence[Any], rows: Sequence[Any], who: str, what: str) -> Sequence[Any]:
    results = list(results)
    if len(results) != len(rows):
        raise SearchError(
            f"{who} returned {len(results)} {what} for {len(rows)} candidates; it must return one for each"
        )
    return results


Loop = Coroutine[Work | Event, Done | None, None]


def _call(tree: Tree, work: Work) -> Coroutine[Work, Done, Sequence[Any]]:
    """Have work done: its results; its seconds are charged. No one here keeps the results, which may hold states."""
    done = yield work
    tree.spent.charge(work.purpose, Cost(seconds=done.seconds))
    return done.results


def _plan(generator: Generator, rewards: Sequence[Reward], strategy: Strategy, asks: Sequence[Ask]) -> Cost:
    """What a round of asks takes and then finishing one of them, whichever it is (or all), at most."""
    widest = max((r.view for r in rewards), key=lambda view: view.units or math.inf)

    @cache  # the asks of a round stand at few depths, and a long text has many units to go
    def rating(first: int, last: int, parent: Node | None = None) -> Cost:
        """Rating a candidate at depths ``first`` to ``last``; without ``parent``, what is above it was rated."""
        total = Cost()
        for r in rewards:
            if r.reads_on:
                total += r.cost([last - (_units_read(parent, r.name) if parent else first - 1)])
            else:
                total += r.cost([min(d, r.view.units or d) for d in range(first, last + 1)])
        return total

    unseen = [n for n in dict.fromkeys(a.parent for a in asks) if n.parent is not None]
    round_cost = generator.cost(asks) + generator.render_price() * len(asks)
    if unseen:
        round_cost += generator.render_cost(unseen, widest)
    finishes = []
    for ask in asks:
        begins = ask.parent.boundary
        depth, more = ask.parent.depth + begins, max(0, generator.units_left(ask.parent) - begins)
        # A unit that is grown in several rounds is rendered and rated in each of them.
        rounds = strategy.rounds_per_unit
        again = max(0, rounds - 1 - (0 if begins else ask.parent.piece))
        finish = generator.finish_cost(ask) + generator.render_price() * (again + rounds * more)
        if strategy.finishes_all and not strategy.scores_units:
            finish += rating(depth + more, depth + more, ask.parent)
        else:
            round_cost += rating(depth, depth, ask.parent)
            finish += rating(depth, depth) * again
            finish += rating(depth + 1, depth + more) * rounds if more else Cost()
        finishes.append(finish)
    return round_cost + (sum(finishes, Cost()) if strategy.finishes_all else Cost.most(finishes))


def lost_renderings(nodes: Iterable[Node], view: View) -> list[Node]:
    """The nodes in these views whose renderings were paid for before the tree was saved, and are gone."""
    units = {node: view.units or node.depth for node in nodes}
    seen = dict.fromkeys(n for node in units for n in node.lineage if n.depth > node.depth - units[node])
    return [n for n in seen if n.rendered and n.rendering is None]


def _units_read(node: Node, reward: str) -> int:
    """How many whole units of this candidate a reward has read: those of the last node that it scored."""
    scored = next((n for n in reversed(node.lineage) if reward in n.scores), None)
    return 0 if scored is None else scored.depth - (not scored.boundary)


def _units_to_read(node: Node, reward: Reward) -> int:
    if reward.reads_on:
        return node.depth - _units_read(node, reward.name)
    return min(node.depth, reward.view.units or node.depth)


def _check(asks: Sequence[Ask], who: str) -> None:
    """Raise SearchError if a strategy wishes for what cannot grow."""
    continued: set[Node] = set()
    for parent in (a.parent for a in asks):
        if parent.status is not Status.OPEN:
            raise SearchError(
                f"{who} asked to grow node {parent.id}, which is {parent.status.value}; only open nodes grow"
            )
        if not parent.boundary:
            if parent.children or parent in continued:
                raise SearchError(
                    f"{who} asked twice for node {parent.id}, which ends inside a unit; such a node is continued once"
                )
            continued.add(parent)


def run_loop(tree: Tree, rewards: dict[str, Reward], strategy: Strategy, budget: Budget) -> Loop:
    """Grow, score, prune until the strategy wishes for nothing more that the budget allows; then choose."""
    generator, who = tree.generator, f"strategy {type(strategy).__name__}"
    assert generator is not None
    limited, begun = budget != Budget(), False

    def plan(asks: Sequence[Ask]) -> Cost:
        return _plan(generator, list(rewards.values()), strategy, asks)

    while True:
        tree.begin_round()
        wishes = list(strategy.select(tree))
        _check(wishes, who)
        asks = tree.number(budget.admit(wishes, tree.spent.total, plan))
        if not asks:
            break
        if not begun:
            begun = True
            yield Event("begun", tree)
        planned = tree.spent.total + (plan(asks) if limited else Cost())
        new = tree.add(asks, (yield from _call(tree, Grow(generator, asks))))
        tree.spent.charge("generating", sum((n.cost for n in new), Cost()))
        held = generator.state_bytes([n.state for n in tree.nodes if n.state is not None])
        tree.spent.peak_bytes = max(tree.spent.peak_bytes, held)
        for name, chosen in strategy.to_score(tree).items():
            require(name in rewards, "reward", name, f"one of this search's: {', '.join(rewards)} (asked for by {who})")
            reward, nodes = rewards[name], [n for n in dict.fromkeys(chosen) if n.status is not Status.FAILED]

            if lost := lost_renderings(nodes, reward.view):
                tree.spent.charge("rebuilding", generator.render_cost(lost, CHUNK))
                yield from _call(tree, Render(generator, CHUNK, lost))

            def cost(nodes: Sequence[Node], reward: Reward = reward) -> tuple[Cost, Cost]:
                return generator.render_cost(nodes, reward.view), reward.cost(
                    [_units_to_read(n, reward) for n in nodes]
                )

            if limited and (again := [n for n in nodes if n.round < tree.round]):
                extra = sum(cost(again), planned)
                if budget.allows(extra):
                    planned = extra
                else:
                    nodes = [n for n in nodes if n.round == tree.round]
            if not nodes:
                continue
            rendering, scoring = cost(nodes)
            views = yield from _call(tree, Render(generator, reward.view, nodes))
            tree.spent.charge("rendering", rendering)
            if reward.view.state:
                views = [(content, node.state) for content, node in zip(views, nodes, strict=True)]
            read = [_units_read(node, name) for node in nodes]
            scores = yield from _call(tree, Rate(reward, [(content, tree.prompt) for content in views]))
            took = reward.took(views, [tree.prompt] * len(views), read)
            tree.spent.charge("scoring", scoring if took is None else took)
            tree.record(name, nodes, scores)
        # With finished candidates a search ends with what it has. One that may ask again for what failed would not end.
        if all(n.status is Status.FAILED for n in new) and (strategy.revisits or not tree.finished):
            reasons = "; ".join(dict.fromkeys(n.reason for n in new))
            raise SearchError(f"all {len(new)} candidates of round {tree.round} failed: {reasons}")
        tree.settle(list(strategy.prune(tree)), strategy.revisits)
        if settled := tree.newly_settled():
            yield Event("settled", tree, tuple(settled))
        yield Event("round", tree, tuple(new))
    tree.rewind()  # a select that leads to no round leaves no trace
    if wishes and not tree.finished:
        need, spent = plan(wishes[:1]), tree.spent.total
        raise BudgetError(
            f"the budget {budget} does not pay for one candidate, which needs nfe={need.nfe}, tokens={need.tokens}, "
            f"flops={need.flops:g}"
            + (f", after nfe={spent.nfe} that are spent" if spent.nfe else "")
            + (f" in {spent.seconds:.3g} seconds" if budget.seconds else "")
            + "; raise the budget"
        )
    if not tree.finished:
        raise SearchError(f"{who} ended the search before a candidate was finished")
    tree.result = strategy.choose(tree)
    if rest := tree.result.units()[tree.settled :]:
        yield Event("settled", tree, tuple(rest))
    tree.settled = tree.result.depth
    yield Event("finished", tree, (tree.result,))
