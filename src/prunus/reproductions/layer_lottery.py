"""Paper 10, layer lottery: whole blocks are removed from an untrained residual network, and it trains as well as all.

Residual MLPs of 10 blocks of width 48 on scikit-learn's digits, Adam at 1e-3 for 600 steps; p = 3, 6 and 9 blocks are
removed at initialisation, the lowest by SNIP or GraSP. Beside them:

- blocks removed at random, and in the reversed order: what a criterion is worth;
- filter pruning at initialisation by the same criteria at an equal count: first p = 3 blocks go and the neurons that
  are left are counted, then a whole network's inner neurons are pruned to that count (more than 4 blocks' worth of
  neurons cannot be had from inner ones alone; they have fewer MACs then than the shorter network);
- networks that were drawn with 10 - p blocks in the first place, from seeds of their own;
- random neurons at the nearest count that equal layers allow, one-shot magnitude pruning of as many after dense
  training, and the dense network.

All arms have as many gradient steps in all. A shallower network often simply trains better on so little data: look at
the networks of the same depth before crediting a criterion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

from torch import nn

from prunus.reproductions.arm_rows import columns, compare, row
from prunus.reproductions.claim import Claim, Evidence, Trial
from prunus.reproductions.paired import part_of, seeds_of
from prunus.sparse.allocation import Global, Uniform
from prunus.sparse.data import digits
from prunus.sparse.importance import SNIP, GraSP, Importance, Random
from prunus.sparse.masks import Masks
from prunus.sparse.methods import LayerLottery, Sparsified
from prunus.sparse.methods.layer_lottery import removable_blocks, score_blocks
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.networks import Build, drawn, residual_mlp
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import Units, channels
from prunus.sparse.table import Arm, Dense, Line, run_arms
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.training import Recipe

BLOCKS, WIDTH, REMOVED, FILTERS_AT = 10, 48, (3, 6, 9), 3
AS_GOOD = -0.01
"""A ticket wins if it is at most one point below the dense network (the paper's usual slack)."""
CRITERIA: dict[str, Importance] = {"SNIP": SNIP(), "GraSP": GraSP()}
COLUMNS = columns(("dense", "random"))


@dataclass(frozen=True)
class Shallow:
    """A network that is drawn with fewer blocks, from seeds of its own."""

    build: Build

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        return Dense().run(self.build, task, recipe, seed=mixed_seed(seed, 4), every=every)


def by_lot(method: Any) -> Callable[[int], Any]:
    return lambda seed: replace(method, importance=Random(mixed_seed(seed, 3)))


def inner_neurons(masks: Masks) -> Units:
    return channels(masks, ["blocks.*.first.weight"])


def arms(task: Task, removed: tuple[int, ...]) -> list[Arm]:
    def taken_out(model: nn.Module, masks: Masks) -> nn.Module:
        return remove_channels(model, masks, task.example)

    # A block has two layers of neurons, of which the inner ones alone can go.
    left = 1 - 2 * FILTERS_AT / BLOCKS
    neurons = RemoveUnits(inner_neurons, taken_out, density=left, allocation=Global(), at="init")
    found = [Arm("dense", Dense())]
    for p in removed:
        for name, criterion in CRITERIA.items():
            ours = LayerLottery(p, criterion)
            found += [Arm(f"{name}, p = {p}", ours), Arm(f"{name} reversed, p = {p}", replace(ours, reverse=True))]
        found.append(Arm(f"random, p = {p}", by_lot(LayerLottery(p))))
        found.append(Arm(f"drawn with {BLOCKS - p} blocks", Shallow(partial(network, BLOCKS - p))))
    found += [Arm(f"{name}, neurons", replace(neurons, importance=one)) for name, one in CRITERIA.items()]
    found.append(Arm("random, neurons", by_lot(replace(neurons, allocation=Uniform()))))
    found.append(Arm("magnitude one-shot, neurons", replace(neurons, at="trained", allocation=Uniform()), 0.5))
    return found


def network(blocks: int = BLOCKS) -> nn.Module:
    return residual_mlp(64, WIDTH, blocks)


def measure(trial: Trial) -> Evidence:
    task, recipe = digits(), Recipe(600, 1e-3)
    removed: tuple[int, ...] = REMOVED
    seeds = seeds_of(trial)
    if trial.smoke:
        removed, recipe = REMOVED[:1], replace(recipe, steps=20)
    lines: dict[str, Line] = {}
    for arm in arms(task, removed):
        trial.say(f"{arm.name}: {len(seeds)} trainings")
        lines |= run_arms([arm], network, task, recipe, seeds)
    findings = [
        compare(lines[f"{name}, p = {p}"], lines["dense"], trial, AS_GOOD, depth_alone(lines, p, trial))
        for name in CRITERIA
        for p in removed
        if p <= 6
    ]
    for name in CRITERIA:
        ours, neurons = lines[f"{name}, p = {FILTERS_AT}"], lines[f"{name}, neurons"]
        findings.append(compare(ours, neurons, trial, reason=depth_alone(lines, FILTERS_AT, trial)))
    rows = [
        row(line, {"dense": lines["dense"], "random": lines.get(f"random, {line.name.rpartition(', ')[2]}")}, trial)
        for line in lines.values()
    ]
    settings = {
        "data": "digits", "split": trial.split, "seeds": len(seeds), "steps": recipe.steps,
        "orders of removal": {name: orders(task, criterion, seeds) for name, criterion in CRITERIA.items()},
    }  # fmt: skip
    return Evidence(findings, settings, rows, COLUMNS)


def depth_alone(lines: dict[str, Line], p: int, trial: Trial) -> str:
    """What the depth gives without any criterion."""
    part = part_of(trial)
    random, drawn_so = (fmean(getattr(lines[n], part)) for n in (f"random, p = {p}", f"drawn with {BLOCKS - p} blocks"))
    return f"blocks at random give {random:.3f}, networks that were drawn with {BLOCKS - p} blocks {drawn_so:.3f}"


def orders(task: Task, criterion: Importance, seeds: list[int]) -> list[list[int]]:
    """The places of the blocks, lowest score first, of each seed: is it more than "the last ones first"?"""
    found = []
    for seed in seeds:
        model = drawn(network, seed)
        scores = score_blocks(model, removable_blocks(model, task.example), criterion, task)
        found.append(sorted(range(len(scores)), key=scores.tolist().__getitem__))
    return found


CLAIM = Claim(
    paper=10,
    title="When Layers Play the Lottery, all Tickets Win at Initialization",
    says="Whole residual blocks can be removed from an untrained network by SNIP or GraSP, and the shorter network "
    "trains as well as the dense one, and better than one that lost as many filters.",
    baseline="the dense network, and filter pruning at initialisation by the same criterion at an equal count; beside "
    "them random and reversed orders and networks that were drawn shallower",
    measured="right digits on the test split, paired by seed; at most one point below dense is a win",
    measure=measure,
)
