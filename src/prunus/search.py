"""The drivers of the search loop.

``search`` runs one loop, ``search_many`` merges the work of many into the same batches, ``stream_search`` passes a
loop's events on. Their parts, ``start``, ``advance`` and ``perform``, are for drivers elsewhere, such as the server's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Generator as Coroutine
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path

from prunus.budget import Budget, Cost
from prunus.errors import PrunusError, SearchError, require
from prunus.loop import Done, Event, Loop, Rate, Work, lost_renderings, run_loop
from prunus.roles import CHUNK, WHOLE, FunctionReward, Generator, Reward, Strategy
from prunus.tree import Tree

__all__ = ["Event", "restore", "search", "search_many", "stream_search"]


def advance(tree: Tree, loop: Loop, message: Done | PrunusError | None) -> Coroutine[Event, None, Work | None]:
    """Run a loop to its next work, passing on its events; None when it has ended. Errors get their tree.

    ``message`` is what its last work came to; None begins it.
    """
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


def perform(together: dict[int, Work], batch: int | None) -> list[tuple[int, Done | PrunusError]]:
    """One batched call for the work of several loops; should it fail, one for each, so that only the culprit fails."""
    rows = [row for work in together.values() for row in work.rows]
    first = next(iter(together.values()))
    size = batch or len(rows)
    began = time.perf_counter()
    try:
        results = [r for at in range(0, len(rows), size) for r in first.run(rows[at : at + size])]
    except Exception as error:
        if len(together) > 1:
            return [one for index, work in together.items() for one in perform({index: work}, batch)]
        if isinstance(error, PrunusError):
            failure = error
        else:
            who = f"{'reward' if isinstance(first, Rate) else 'generator'} {first.model.name!r}"
            failure = SearchError(f"{who} raised {type(error).__name__} while {first.purpose}: {error}")
            failure.__cause__ = error
        return [(index, failure) for index in together]
    seconds = (time.perf_counter() - began) / len(rows)
    ends = accumulate(len(work.rows) for work in together.values())
    return [
        (index, Done(results[end - len(work.rows) : end], seconds * len(work.rows)))
        for (index, work), end in zip(together.items(), ends, strict=True)
    ]


def _drive(loops: dict[int, tuple[Tree, Loop]], batch: int | None) -> Iterator[Event]:
    """Run loops together: work of the same kind for the same model goes into one batched call."""
    waiting: dict[int, Work] = {}
    queue: list[tuple[int, Done | PrunusError | None]] = [(index, None) for index in loops]
    while queue or waiting:
        while queue:
            try:
                index = queue[0][0]
                if (work := (yield from advance(*loops[index], queue.pop(0)[1]))) is not None:
                    waiting[index] = work
            except PrunusError:
                if len(loops) == 1:
                    raise
        if waiting:
            # The first waiting loop's work decides which kind runs; all that match it join in.
            kind = next(iter(waiting.values())).call
            together = {index: work for index, work in waiting.items() if work.call == kind}
            waiting = {index: work for index, work in waiting.items() if index not in together}
            queue += perform(together, batch)


def named(rewards: Reward | Callable | Sequence[Reward | Callable]) -> dict[str, Reward]:
    """Rewards by name; plain functions are wrapped. Raises SettingError for none or for two of one name."""
    several = list(rewards) if isinstance(rewards, Sequence) else [rewards]
    wrapped = [r if isinstance(r, Reward) else FunctionReward(r, getattr(r, "__name__", "function")) for r in several]
    named = {r.name: r for r in wrapped}
    require(
        len(named) == len(wrapped) > 0, "reward", [r.name for r in wrapped], "one or more rewards of different names"
    )
    return named


def start(
    prompt: str | Tree,
    generator: Generator,
    rewards: dict[str, Reward],
    strategy: Strategy,
    budget: Budget,
    seed: int,
) -> tuple[Tree, Loop]:
    """The tree and the loop of a search, nothing of which has run. Raises SettingError, PromptError."""
    for name in strategy.reads:
        require(name in rewards, "reward", name, f"one of this search's: {', '.join(rewards)}")
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
    return tree, run_loop(tree, rewards, strategy, budget)


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
    tree, if all candidates of a round fail and none is finished, or a model raises.
    """
    require(batch is None or batch >= 1, "batch", batch, "at least 1")
    rewards, limits = named(reward), budget or Budget()
    tree, loop = start(prompt, generator, rewards, strategy, limits, seed)
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
    rewards, limits = named(reward), budget or Budget()
    loops = {
        i: start(prompt, generator, rewards, strategy, limits, seed)
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
    if tree.root in lost and not tree.root.children:
        lost.remove(tree.root)
        tree.root.state = generator.begin(tree.prompt)
    if lost:
        for node, (state, cost) in zip(lost, generator.restore(lost, tree.prompt), strict=True):
            node.state = state
            tree.spent.charge("rebuilding", cost)
    if unseen := lost_renderings(tree.frontier, WHOLE):
        tree.spent.charge("rebuilding", generator.render_cost(unseen, CHUNK))
        generator.render(unseen, CHUNK)
    if len(tree.nodes) > 1:
        tree.spent.charge("rebuilding", Cost(seconds=time.perf_counter() - began))
