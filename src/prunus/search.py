"""The search loop, written once, and its three drivers.

The loop has no input or output of its own: it yields work (grow, render, rate) and is sent the results. ``search`` runs
one loop, ``search_many`` merges the work of many into the same batches, ``stream_search`` passes its events on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Generator as Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.budget import Budget, Cost
from prunus.errors import BudgetError, PrunusError, SearchError, require
from prunus.roles import Ask, FunctionReward, Generator, Reward, Strategy, View
from prunus.tree import Node, Status, Tree


@dataclass(frozen=True)
class Event:
    """Something that a watcher may want to know: ``round`` is over, nodes are ``settled``, the search is ``finished``.

    Settled nodes are shared by all live candidates: they will be in the answer and can be played or sent.
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

    def run(self, rows: Sequence[Ask]) -> Sequence[Any]:
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

    def run(self, rows: Sequence[Node]) -> Sequence[Any]:
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

    def run(self, rows: Sequence[tuple[Any, str]]) -> Sequence[Any]:
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


def _loop(tree: Tree, rewards: dict[str, Reward], strategy: Strategy, budget: Budget) -> Loop:
    """Grow, score, prune until the strategy wishes for nothing more that the budget allows; then choose."""
    generator = tree.generator
    assert generator is not None

    def scoring_price(depth: int) -> Cost:
        price = generator.render_price()
        for r in rewards.values():
            price += r.cost([min(depth, r.view.units or depth)])
        return price

    def price(asks: Sequence[Ask]) -> Cost:
        return sum((scoring_price(a.parent.depth + 1) for a in asks), generator.cost(asks))

    def finish(ask: Ask) -> Cost:
        depth = ask.parent.depth + 1
        later = range(depth + 1, depth + generator.units_left(ask.parent))
        return sum((scoring_price(d) for d in later), generator.finish_cost(ask))

    while asks := list(strategy.select(tree)):
        for a in asks:
            if a.parent.status is not Status.OPEN:
                raise SearchError(
                    f"strategy {type(strategy).__name__} asked to grow node {a.parent.id}, which is "
                    f"{a.parent.status.value}; only open nodes grow",
                    tree,
                )
        admitted = tree.number(budget.admit(asks, tree.spent.total, price, finish))
        if not admitted:
            if len(tree.nodes) == 1:
                need = price(asks[:1]) + finish(asks[0])
                raise BudgetError(
                    f"{budget} does not pay for one candidate, which needs nfe={need.nfe}, tokens={need.tokens}, "
                    f"flops={need.flops:.3g}; raise the budget"
                )
            break
        done = yield Grow(generator, admitted)
        assert done is not None
        new = tree.add(admitted, done.results)
        tree.spent.charge("generating", sum((n.cost for n in new), Cost(seconds=done.seconds)))
        tree.spent.peak_bytes = max(
            tree.spent.peak_bytes, generator.state_bytes([n.state for n in tree.nodes if n.state is not None])
        )
        for name, nodes in strategy.to_score(tree).items():
            nodes = [n for n in nodes if n.status is not Status.FAILED]
            if not nodes:
                continue
            reward = rewards[name]
            cost = generator.render_cost(nodes, reward.view)
            done = yield Render(generator, reward.view, nodes)
            assert done is not None
            tree.spent.charge("rendering", cost + Cost(seconds=done.seconds))
            cost = reward.cost([min(n.depth, reward.view.units or n.depth) for n in nodes])
            done = yield Rate(reward, [(content, tree.prompt) for content in done.results])
            assert done is not None
            tree.spent.charge("scoring", cost + Cost(seconds=done.seconds))
            tree.record(name, nodes, done.results)
        if all(n.status is Status.FAILED for n in new):
            reasons = "; ".join(dict.fromkeys(n.reason for n in new))
            raise SearchError(f"all {len(new)} candidates of round {tree.round} failed: {reasons}", tree)
        tree.settle(list(strategy.prune(tree)), strategy.revisits)
        yield Event("round", tree, tuple(new))
        if settled := tree.newly_settled():
            yield Event("settled", tree, tuple(settled))
    if not tree.finished:
        raise SearchError("no candidate was finished; the tree holds what was grown", tree)
    tree.result = strategy.choose(tree)
    yield Event("settled", tree, tuple(tree.result.lineage[tree.settled :]))
    tree.settled = tree.result.depth
    yield Event("finished", tree, (tree.result,))


def _drive(loops: dict[int, tuple[Tree, Loop]], batch: int | None) -> Iterator[Event]:
    """Run loops together: work of the same kind for the same model goes into one batched call."""
    waiting: dict[int, Work] = {}
    queue: list[tuple[int, _Done | BaseException | None]] = [(i, None) for i in loops]
    while queue or waiting:
        while queue:
            index, message = queue.pop(0)
            tree, loop = loops[index]
            try:
                if isinstance(message, BaseException):
                    step = loop.throw(message)
                else:
                    step = loop.send(message)
                while isinstance(step, Event):
                    yield step
                    step = loop.send(None)
                waiting[index] = step
            except StopIteration:
                continue
            except PrunusError as error:
                if isinstance(error, SearchError) and error.tree is None:
                    error.tree = tree
                tree.error = str(error)
                if len(loops) == 1:
                    raise
        if not waiting:
            return
        # The first waiting loop's work decides which kind runs; all that match it join in.
        kind = next(iter(waiting.values())).call
        together = {i: w for i, w in waiting.items() if w.call == kind}
        for index in together:
            del waiting[index]
        rows = [row for work in together.values() for row in work.rows]
        run = next(iter(together.values())).run
        size = batch or len(rows)
        began = time.perf_counter()
        try:
            results = [r for at in range(0, len(rows), size) for r in run(rows[at : at + size])]
        except PrunusError as error:
            queue += [(i, error) for i in together]
            continue
        except Exception as error:
            work = next(iter(together.values()))
            who = work.reward if isinstance(work, Rate) else work.generator
            message = f"{who.name!r} raised {type(error).__name__} while {work.purpose}: {error}"
            for i in together:
                failure = SearchError(message, loops[i][0])
                failure.__cause__ = error
                queue.append((i, failure))
            continue
        seconds = time.perf_counter() - began
        for index, work in together.items():
            mine, results = results[: len(work.rows)], results[len(work.rows) :]
            queue.append((index, _Done(mine, seconds * len(work.rows) / len(rows))))


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
    prompt: str,
    generator: Generator,
    rewards: dict[str, Reward],
    strategy: Strategy,
    budget: Budget,
    seed: int,
) -> tuple[Tree, Loop]:
    tree = Tree(prompt, seed, generator)
    tree.root.state = generator.begin(prompt)
    tree.rewards = tuple(rewards)
    tree.spec = {
        "generator": generator.spec(),
        "rewards": [r.spec() for r in rewards.values()],
        "strategy": strategy.spec(),
        "budget": vars(budget),
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
    ``save_to`` is a folder in which the tree is saved after every round.
    Raises BudgetError before the first forward if the budget does not pay for one candidate, and SearchError, with the
    tree, if all candidates of a round fail or a model raises.
    """
    require(batch is None or batch >= 1, "batch", batch, "at least 1")
    rewards, limits = _named(reward), budget or Budget()
    if isinstance(prompt, Tree):
        tree = prompt
        tree.generator = generator
        restore(tree, generator)
        loop = _loop(tree, rewards, strategy, limits)
    else:
        tree, loop = _start(prompt, generator, rewards, strategy, limits, seed)
    for event in _drive({0: (tree, loop)}, batch):
        if save_to is not None and event.kind in ("round", "finished"):
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
    prompts: Sequence[str],
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

    ``seeds`` is one seed for all prompts or one for each. A search that fails leaves its tree with ``tree.error`` set,
    and the others go on. A single prompt's failure is raised, as by ``search``.
    """
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
    """Give the open nodes of a loaded tree their states again; charged as rebuilding."""
    tree.spent_whole.rebuilding = tree.spent.rebuilding
    tree.spent = type(tree.spent).from_dict(tree.spent_whole.as_dict())
    tree.nodes = [n for n in tree.nodes if n.parent is None or n.round < tree.round]
    lost: Iterable[Node] = [n for n in tree.frontier if n.state is None]
    began = time.perf_counter()
    if tree.root in lost:
        tree.root.state = generator.begin(tree.prompt)
    nodes = [n for n in lost if n is not tree.root]
    for node, (state, cost) in zip(nodes, generator.restore(nodes, tree.prompt) if nodes else (), strict=True):
        node.state = state
        tree.spent.charge("rebuilding", cost)
    tree.spent.charge("rebuilding", Cost(seconds=time.perf_counter() - began))
