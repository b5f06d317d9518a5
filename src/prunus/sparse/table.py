"""The honest table: methods beside the baselines that they have to beat, paired by seed.

Each line has the dense network, random pruning and one-shot magnitude pruning at the method's density, the method, and
the pruned architecture trained from fresh weights (Scratch-E and Scratch-B, card 21). All gradient steps count, also
those of a search and of pre-training; ``stretch`` makes arms equal in them. Settings are chosen on validation; the test
split is read once, at the end of a run. Intervals are Student's over paired seeds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from torch import nn

from prunus.errors import require
from prunus.interval import Interval, t_interval
from prunus.sparse.allocation import Uniform
from prunus.sparse.importance import Random
from prunus.sparse.journal import Journal
from prunus.sparse.macs import macs, parameters
from prunus.sparse.masks import Masks
from prunus.sparse.methods.one_shot import OneShot
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.methods.scratch import scratch_budget
from prunus.sparse.networks import drawn
from prunus.sparse.removal import redraw
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.training import Recipe, pretrained, train

SEEDS = (0, 1, 2, 3, 4)
CAP = 4.0
"""Scratch-B takes at most so many times the dense recipe's steps; its line says when it was cut short."""


class Method(Protocol):
    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified: ...


@dataclass(frozen=True)
class Arm:
    """A method (or a function of the seed that gives one), and how much longer (or shorter) than the recipe each of its
    trainings is."""

    name: str
    method: Method | Callable[[int], Method]
    stretch: float = 1.0

    def run(self, build: Build, task: Task, recipe: Recipe, seed: int) -> Sparsified:
        method = self.method if hasattr(self.method, "run") else self.method(seed)
        return method.run(build, task, replace(recipe, steps=round(recipe.steps * self.stretch)), seed=seed)


@dataclass(frozen=True)
class Dense:
    """The baseline that prunes nothing. ``pretrain`` as for the methods: 0 if ``build`` gives trained weights."""

    pretrain: int | None = None

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model = drawn(build, seed)
        steps = pretrained(model, task, recipe, self.pretrain, seed)
        return Sparsified(model, None, steps, [Level(None, task.evaluate(model, "validation"), steps)])


@dataclass(frozen=True)
class Scratch:
    """A pruned architecture, a (smaller) network or its masks, on fresh weights of their own seed: for the recipe's
    steps, or, if ``same_compute``, for E F_dense / F_small, at most ``cap`` E."""

    pruned: nn.Module
    masks: Masks | None
    same_compute: bool = False
    cap: float | None = CAP

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        masks = self.masks
        fresh = partial(redraw, self.pruned) if masks is None else build
        model = drawn(fresh, mixed_seed(seed, 2))  # a seed of its own: the dense one would make it a lottery ticket
        steps, wanted = self.budget(build, task, recipe, seed)
        done = train(model, task, replace(recipe, steps=steps), order=mixed_seed(seed, 1), masks=masks, every=every)
        found = Sparsified(model, masks, done.steps, [Level(masks, task.evaluate(model, "validation"), done.steps)])
        found.capped = steps < wanted
        return found

    def budget(self, build: Build, task: Task, recipe: Recipe, seed: int) -> tuple[int, int]:
        """Steps taken, and steps that would have been wanted without the cap."""
        if not self.same_compute:
            return recipe.steps, recipe.steps
        dense, small = macs(drawn(build, seed), task.example), macs(self.pruned, task.example, self.masks)
        wanted = scratch_budget(recipe.steps, dense, small)
        return (wanted if self.cap is None else min(wanted, round(self.cap * recipe.steps))), wanted


@dataclass
class Line:
    """One arm's figures: scores by seed; of the seeds' mean the MACs of one row, the parameters, the share of prunable
    weights kept, and the seconds; all gradient steps."""

    name: str
    test: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    steps: int = 0
    macs: float = 0.0
    parameters: float = 0.0
    density: float = 0.0
    seconds: float = 0.0
    capped: bool = False

    @property
    def score(self) -> Interval:
        """Of one seed alone the ends are not known: NaN."""
        return t_interval(self.test) if len(self.test) > 1 else Interval(self.test[0], math.nan, math.nan)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def baselines(density: float, exclude: tuple[str, ...] = (), stretch: float = 0.5) -> list[Arm]:
    """Dense, and random and magnitude pruning once after dense training, with fine-tuning at the recipe's rates.

    They train twice, so that ``stretch`` 0.5 gives them the dense network's steps in all.
    """
    shot = OneShot(density, finetune_rate=1.0, exclude=exclude)

    def at_random(seed: int) -> Method:
        return replace(shot, importance=Random(mixed_seed(seed, 3)), allocation=Uniform())

    return [Arm("dense", Dense()), Arm("random", at_random, stretch), Arm("magnitude one-shot", shot, stretch)]


def run_arms(
    arms: Sequence[Arm],
    build: Build,
    task: Task,
    recipe: Recipe,
    seeds: Sequence[int] = SEEDS,
    *,
    scratch: str | None = None,
    cap: float | None = CAP,
    journal: Callable[[str, int], Journal] | None = None,
    keep: Callable[[str, int, Sparsified], None] = lambda name, seed, found: None,
) -> dict[str, Line]:
    """A line for each arm, in order; ``scratch`` names the arm whose architecture is also trained from fresh weights,
    as lines "scratch-E" and "scratch-B" at the end. ``journal(arm's name, seed)`` is where its trainings are written,
    ``keep(arm's name, seed, what it found)`` is told of each result. Raises SettingError for arms of one name."""
    names = [arm.name for arm in arms]
    require(len(set(names)) == len(names), "arms", names, "names that differ")
    require(scratch is None or scratch in names, "scratch", scratch, f"one of {', '.join(names)}")
    lines = {name: Line(name) for name in names}

    def measure(arm: Arm, seed: int) -> Sparsified:
        own = recipe if journal is None else replace(recipe, journal=journal(arm.name, seed))
        found = _measure(arm, lines.setdefault(arm.name, Line(arm.name)), build, task, own, seed, len(seeds))
        keep(arm.name, seed, found)
        return found

    for seed in seeds:
        found = {arm.name: measure(arm, seed) for arm in arms}
        if scratch is not None:
            pruned = found[scratch]
            for name, same_compute in (("scratch-E", False), ("scratch-B", True)):
                measure(Arm(name, Scratch(pruned.model, pruned.masks, same_compute, cap)), seed)
    return lines


def _measure(arm: Arm, line: Line, build: Build, task: Task, recipe: Recipe, seed: int, seeds: int) -> Sparsified:
    began = time.perf_counter()
    found = arm.run(build, task, recipe, seed)
    line.seconds += (time.perf_counter() - began) / seeds
    line.validation.append(found.levels[-1].validation.score)
    line.test.append(task.evaluate(found.model, "test").score)
    line.steps, line.capped = found.steps, line.capped or found.capped
    line.macs += cost(found, task) / seeds
    line.parameters += parameters(found.model, found.masks) / seeds
    if found.masks is not None:
        density = found.masks.density
    else:  # units are gone for good
        density = Masks.of(found.model).total / Masks.of(drawn(build, seed)).total
    line.density += density / seeds
    return found


def cost(found: Sparsified, task: Task) -> float:
    """MACs of one row; on average, where they depend on the input."""
    return macs(found.model, task.example, found.masks) if found.average_macs is None else found.average_macs


def difference(ours: Line, other: Line) -> Interval:
    """Ours minus the other's test score, paired by seed."""
    return t_interval([a - b for a, b in zip(ours.test, other.test, strict=True)])


COLUMNS = ("arm", "score", "low", "high", "against", "density", "MACs", "parameters", "steps", "seconds")


def rows(lines: Mapping[str, Line], against: str = "magnitude one-shot") -> list[dict[str, Any]]:
    """The lines as the cells of ``COLUMNS``; ``against`` names the line whose mean is subtracted."""
    base = lines[against].score.mean if against in lines else math.nan
    return [
        dict(
            zip(
                COLUMNS,
                (
                    name + (" (cut short)" if line.capped else ""),
                    line.score.mean,
                    line.score.low,
                    line.score.high,
                    line.score.mean - base,
                    line.density,
                    round(line.macs),
                    round(line.parameters),
                    line.steps,
                    round(line.seconds, 1),
                ),
                strict=True,
            )
        )
        for name, line in lines.items()
    ]
