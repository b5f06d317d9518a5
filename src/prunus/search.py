"""The search loop, written once, and its three drivers.

The loop has no input or output of its own: it yields work (grow, render, rate) and is sent the results. ``search`` runs
one loop, ``search_many`` merges the work of many into the same batches, ``stream_search`` passes its events on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Generator as Coroutine
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from prunus.budget import Budget, Cost
from prunus.errors import BudgetError, PrunusError, SearchError, require
from prunus.roles import CHUNK, WHOLE, Ask, FunctionReward, Generator, Reward, Strategy, View
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
    def call(self) -> tuple:
        return (self.purpose, id(self.generator))

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
    def call(self) -> tuple:
        return (self.purpose, id(self.generator), self.view)

    def run(self, rows: Sequence[Any]) -> Sequence[Any]:
        return _checked(self.generator.render(rows, self.view), rows, f"generator {self.generator.name!r}", "views")


@dataclass(frozen=True)
class Rate:
    """Work: one batched call of a reward; rows are (content, prompt)."""

    reward: Reward
    rows: Sequence[tuple[Any, str]]
    purpose = "scoring"

    @property
    def call(self) -> tuple:
        return (self.purpose, id(self.reward))

    def run(self, rows: Sequence[Any]) -> Sequence[Any]:
        scores = self.reward.score([r[0] for r in rows], [r[1] for r in rows])
        return _checked(scores, rows, f"reward {self.reward.name!r}", "scores")


Work = Grow | Render | Rate


@dataclass(frozen=True)
class _Done:
    results: Sequence[Any]
    seconds: float


def _checked(results: Sequence[Any], rows: Sequence[Any], who: str, what: str) -> Sequence[Any]:
    results = list(results)
    if len(results) != len(rows):
        raise SearchError(
            f"{who} returned {len(results)} {what} for {len(rows)} candidates; it must return one for each"
        )
    return results


Loop = Coroutine[Work | Event, _Done | None, None]


def _call(tree: Tree, work: Work) -> Coroutine[Work, _Done, Sequence[Any]]:
    """Have work done: its results; its seconds are charged. No one here keeps the results, which may hold states."""
    done = yield work
    tree.spent.charge(work.purpose, Cost(seconds=done.seconds))
    return done.results


def _plan(generator: Generator, rewards: Iterable[Reward], finishes_all: bool, asks: Sequence[Ask]) -> Cost:
    """What a round of asks takes and then finishing one of them, whichever it is (or all), at most."""
    rewards = list(rewards)
    widest = max((r.view for r in rewards), key=lambda view: view.units or math.inf)

    def rating(depth: int) -> Cost:
        return sum((r.cost([min(depth, r.view.units or depth)]) for r in rewards), Cost())

    unseen = [n for n in dict.fromkeys(a.parent for a in asks) if n.parent is not None]
    round_cost = generator.cost(asks) + generator.render_price() * len(asks)
    if unseen:
        round_cost += generator.render_cost(unseen, widest)
    finishes = []
    for ask in asks:
        depth, more = ask.parent.depth + 1, max(0, generator.units_left(ask.parent) - 1)
        finish = generator.finish_cost(ask) + generator.render_price() * more
        if finishes_all:
            finish += rating(depth + more)
        else:
            round_cost += rating(depth)
            finish += sum((rating(d) for d in range(depth + 1, depth + more + 1)), Cost())
        finishes.append(finish)
    return round_cost + (sum(finishes, Cost()) if finishes_all else Cost.most(finishes))


def _lost(nodes: Iterable[Node], view: View) -> list[Node]:
    """The nodes in these views whose renderings were paid for before the tree was saved, and are gone."""
    seen = dict.fromkeys(n for node in nodes for n in node.lineage[-(view.units or 0) :])
    return [n for n in seen if n.rendered and n.rendering is None]


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


def _loop(tree: Tree, rewards: dict[str, Reward], strategy: Strategy, budget: Budget) -> Loop:
    """Grow, score, prune until the strategy wishes for nothing more that the budget allows; then choose."""
    generator, who = tree.generator, f"strategy {type(strategy).__name__}"
    assert generator is not None
    limited, begun = budget != Budget(), False

    def plan(asks: Sequence[Ask]) -> Cost:
        return _plan(generator, rewards.values(), strategy.finishes_all, asks)

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

            if lost := _lost(nodes, reward.view):
                tree.spent.charge("rebuilding", generator.render_cost(lost, CHUNK))
                yield from _call(tree, Render(generator, CHUNK, lost))

            def cost(nodes: Sequence[Node], reward: Reward = reward) -> tuple[Cost, Cost]:
                units = [min(n.depth, reward.view.units or n.depth) for n in nodes]
                return generator.render_cost(nodes, reward.view), reward.cost(units)

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
            scores = yield from _call(tree, Rate(reward, [(content, tree.prompt) for content in views]))
            tree.spent.charge("scoring", scoring)
            tree.record(name, nodes, scores)
        if all(n.status is Status.FAILED for n in new):
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
    if rest := tree.result.lineage[tree.settled :]:
        yield Event("settled", tree, tuple(rest))
    tree.settled = tree.result.depth
    yield Event("finished", tree, (tree.result,))


def _advance(tree: Tree, loop: Loop, message: _Done | PrunusError | None) -> Coroutine[Event, None, Work | None]:
    """Run a loop to its next work, passing on its events; None when it has ended. Errors get their tree."""
    try:
        step = loop.throw(message) if isinstance(message, PrunusError) else loop.send(message)
        message = None  # let go of the states that it holds
        while isinstance(step, Event):
            yield step
            step = next(loop)
        return step
    except StopIteration:
        return None
    except PrunusError as error:
        error.tree, tree.error = tree, str(error)
        raise
    except Exception as error:
        who = tree.spec.get("strategy", {}).get("name", "")
        tree.error = f"strategy {who} raised {type(error).__name__} in round {tree.round}: {error}"
        raise SearchError(tree.error, tree) from error


def _perform(together: dict[int, Work], batch: int | None) -> list[tuple[int, _Done | PrunusError]]:
    """One batched call for the work of several loops; should it fail, one for each, so that only the culprit fails."""
    rows = [row for work in together.values() for row in work.rows]
    first = next(iter(together.values()))
    size = batch or len(rows)
    began = time.perf_counter()
    try:
        results = [r for at in range(0, len(rows), size) for r in first.run(rows[at : at + size])]
    except Exception as error:
        if len(together) > 1:
            return [one for index, work in together.items() for one in _perform({index: work}, batch)]
        if isinstance(error, PrunusError):
            failure = error
        else:
            who = f"reward {first.reward.name!r}" if isinstance(first, Rate) else f"generator {first.generator.name!r}"
            failure = SearchError(f"{who} raised {type(error).__name__} while {first.purpose}: {error}")
            failure.__cause__ = error
        return [(index, failure) for index in together]
    seconds = (time.perf_counter() - began) / len(rows)
    ends = accumulate(len(work.rows) for work in together.values())
    return [
        (index, _Done(results[end - len(work.rows) : end], seconds * len(work.rows)))
        for (index, work), end in zip(together.items(), ends, strict=True)
    ]


def _drive(loops: dict[int, tuple[Tree, Loop]], batch: int | None) -> Iterator[Event]:
    """Run loops together: work of the same kind for the same model goes into one batched call."""
    waiting: dict[int, Work] = {}
    queue: list[tuple[int, _Done | PrunusError | None]] = [(index, None) for index in loops]
    while queue or waiting:
        while queue:
            try:
                index = queue[0][0]
                if (work := (yield from _advance(*loops[index], queue.pop(0)[1]))) is not None:
                    waiting[index] = work
            except PrunusError:
                if len(loops) == 1:
                    raise
        if waiting:
            # The first waiting loop's work decides which kind runs; all that match it join in.
            kind = next(iter(waiting.values())).call
            together = {index: work for index, work in waiting.items() if work.call == kind}
            waiting = {index: work for index, work in waiting.items() if index not in together}
            queue += _perform(together, batch)


def _named(rewards: Reward | Callable | Sequence[Reward | Callable]) -> dict[str, Reward]:
    """Rewards by name; plain functions are wrapped. Raises SettingError for none or for two of one name."""
    several = list(rewards) if isinstance(rewards, Sequence) else [rewards]
    wrapped = [r if isinstance(r, Reward) else FunctionReward(r, getattr(r, "__name__", "function")) for r in several]
    named = {r.name: r for r in wrapped}
    require(
        len(named) == len(wrapped) > 0, "reward", [r.name for r in wrapped], "one or more rewards of different names"
    )
    return named


def _start(
    prompt: str | Tree,
    generator: Generator,
    rewards: dict[str, Reward],
    strategy: Strategy,
    budget: Budget,
    seed: int,
) -> tuple[Tree, Loop]:
    decider = strategy.reward
    require(decider is None or decider in rewards, "reward", decider, f"one of this search's: {', '.join(rewards)}")
    tree = prompt if isinstance(prompt, Tree) else Tree(prompt, seed)
    if tree.generator is not generator:  # states are private to the generator that made them
        for node in tree.nodes:
            node.state = None
    tree.generator, tree.error = generator, ""
    restore(tree, generator)
    tree.rewards = tree.rewards or tuple(rewards)
    require(
        set(tree.rewards) == set(rewards), "reward", list(rewards), f"what the tree was scored by: {list(tree.rewards)}"
    )
    tree.spec = tree.spec or {
        "generator": generator.spec(),
        "rewards": [r.spec() for r in rewards.values()],
        "strategy": strategy.spec(),
        "budget": asdict(budget),
    }
    return tree, _loop(tree, rewards, strategy, budget)


def stream_search(
    prompt: str | Tree,
    generator: Generator,
    reward: Reward | Callable | Sequence[Reward | Callable],
    strategy: Strategy,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    batch: int | None = None,
    save_to: str | Path | None = None,
) -> Iterator[Event]:
    """Run a search and yield its events; the last one, ``finished``, has the tree.

    ``prompt`` may be a loaded tree, which goes on from its last whole round. ``batch`` is the most rows of one call.
    ``save_to`` is a folder in which the tree is saved before the first call and after every round.
    Raises BudgetError before the first forward if the budget does not pay for one candidate, and SearchError, with the
    tree, if all candidates of a round fail or a model raises.
    """
    require(batch is None or batch >= 1, "batch", batch, "at least 1")
    rewards, limits = _named(reward), budget or Budget()
    tree, loop = _start(prompt, generator, rewards, strategy, limits, seed)
    for event in _drive({0: (tree, loop)}, batch):
        if save_to is not None and event.kind in ("begun", "round", "finished"):
            tree.save(save_to)
        yield event


def search(
    prompt: str | Tree,
    generator: Generator,
    reward: Reward | Callable | Sequence[Reward | Callable],
    strategy: Strategy,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    batch: int | None = None,
    save_to: str | Path | None = None,
) -> Tree:
    """Run one search to its end; the answer is ``tree.best()``. Arguments and errors as ``stream_search``."""
    tree = None
    for event in stream_search(
        prompt, generator, reward, strategy, budget=budget, seed=seed, batch=batch, save_to=save_to
    ):
        tree = event.tree
    assert tree is not None
    return tree


def search_many(
    prompts: Sequence[str | Tree],
    generator: Generator,
    reward: Reward | Callable | Sequence[Reward | Callable],
    strategy: Strategy,
    *,
    budget: Budget | None = None,
    seeds: Sequence[int] | int = 0,
    batch: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> list[Tree]:
    """One search for each prompt, their work merged into shared batches; each has the budget for itself.

    ``seeds`` is one seed for all prompts or one for each; a loaded tree goes on, with its own seed. A search that fails
    leaves its tree with ``tree.error`` set, and the others go on; a single prompt's failure is raised, as by
    ``search``. A prompt that the generator does not understand is refused before anything is grown.
    """
    require(not isinstance(prompts, str), "prompts", prompts, "a list of prompts; a single one goes to search")
    require(batch is None or batch >= 1, "batch", batch, "at least 1")
    several = [seeds] * len(prompts) if isinstance(seeds, int) else list(seeds)
    require(len(several) == len(prompts), "seeds", several, f"one seed for each of the {len(prompts)} prompts")
    rewards, limits = _named(reward), budget or Budget()
    loops = {
        i: _start(prompt, generator, rewards, strategy, limits, seed)
        for i, (prompt, seed) in enumerate(zip(prompts, several, strict=True))
    }
    for event in _drive(loops, batch):
        if on_event:
            on_event(event)
    return [tree for tree, _ in loops.values()]


def restore(tree: Tree, generator: Generator) -> None:
    """Undo a round that was broken off, and give the open nodes their states again, charged as rebuilding."""
    began = time.perf_counter()
    tree.rewind()
    lost = [n for n in tree.frontier if n.state is None]
    if tree.root in lost:
        lost.remove(tree.root)
        tree.root.state = generator.begin(tree.prompt)
    if lost:
        for node, (state, cost) in zip(lost, generator.restore(lost, tree.prompt), strict=True):
            node.state = state
            tree.spent.charge("rebuilding", cost)
    if unseen := _lost(tree.frontier, WHOLE):
        tree.spent.charge("rebuilding", generator.render_cost(unseen, CHUNK))
        generator.render(unseen, CHUNK)
    if len(tree.nodes) > 1:
        tree.spent.charge("rebuilding", Cost(seconds=time.perf_counter() - began))
