"""The contract of strategies as a check that anyone can run on their own."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from prunus.budget import Budget
from prunus.errors import PrunusError
from prunus.roles import Generator, Reward, Strategy
from prunus.search import Event, search, stream_search
from prunus.testing.compare import assert_same_tree
from prunus.testing.rules import MOST_ROUNDS, holds
from prunus.testing.scripted import ScriptedGenerator, ScriptedReward
from prunus.tree import Status, Tree


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
    holds(frozen, who, "it is a frozen dataclass; what it remembers stands in tree.notes")
    try:
        json.dumps(strategy.spec())
    except (TypeError, ValueError) as error:
        holds(False, who, "its spec can be written as JSON", error)
    generator = generator or ScriptedGenerator(early=0.2)
    rewards = list(rewards or [ScriptedReward(name=name) for name in strategy.reads or ("scripted-reward",)])
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
        holds(finished, self.who, "it chooses a finished candidate")
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
                holds(event.tree.round < MOST_ROUNDS, self.who, "it ends", f"{MOST_ROUNDS} rounds and no end")
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
            holds(spent <= limit, self.who, f"a budget of {limit} {name} is kept", spent)


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
