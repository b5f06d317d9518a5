"""Paper 25, GraNet: gradual pruning that also regrows is the better way to a sparse network.

MLPs 64-300-100-10 on scikit-learn's digits, SGD with Nesterov momentum, rate .1 by a cosine, 1000 steps, an event every
20; to 2 % of the weights, where digits tell methods apart. Dense-to-sparse: GMP, GraNet, and GraNet with equal shares
of the layers, whose output keeps a fifth. Sparse-to-sparse: static ERK masks, SET, RigL, and GMP and GraNet from half
of the weights. With random and one-shot magnitude pruning, all have as many gradient steps.

The probe is what the method is built on: a network is pruned in the middle of its training, at a quarter (the rate is
high) or at three quarters (low), and trains on for a tenth of the steps. Plasticity is the validation score then, less
the one before pruning; with regeneration half of what is left is swapped for the weights with the largest gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from prunus.reproductions.arm_rows import columns, compare, row
from prunus.reproductions.claim import Claim, Evidence, Finding, Trial
from prunus.reproductions.paired import finding, seeds_of
from prunus.sparse.allocation import ERK, OutputKept
from prunus.sparse.data import digits
from prunus.sparse.importance import Random
from prunus.sparse.methods import GMP, SET, GraNet, OneShot, RigL
from prunus.sparse.networks import mlp
from prunus.sparse.plasticity import Plasticity, plasticity
from prunus.sparse.table import Arm, Line, baselines, run_arms
from prunus.sparse.task import Task
from prunus.sparse.training import Recipe

DENSITIES = (0.02,)
STEPS, EVERY, WINDOW = 1000, 20, (0.0, 0.6)
EARLY, LATE, FURTHER, SWAPPED = 0.25, 0.75, 0.1, 0.5
network = partial(mlp, 64, 300, 100, 10)


def arms(density: float) -> list[Arm]:
    gradual: dict[str, Any] = {"density": density, "update_every": EVERY, "window": WINDOW}
    fixed: dict[str, Any] = {"density": density, "update_every": EVERY}
    static = OneShot(density, allocation=ERK(), at="init")
    return [
        *baselines(density),
        Arm("static ERK", lambda seed: replace(static, importance=Random(seed))),
        Arm("SET", SET(**fixed)),
        Arm("RigL", RigL(**fixed)),
        Arm("GMP", GMP(**gradual)),
        Arm("GMP from 50 %", GMP(initial_density=0.5, **gradual)),
        Arm("GraNet", GraNet(**gradual)),
        Arm("GraNet from 50 %", GraNet(initial_density=0.5, **gradual)),
        Arm("GraNet uniform", GraNet(allocation=OutputKept(), **gradual)),
    ]


def measure(trial: Trial) -> Evidence:
    task, recipe, seeds = digits(), Recipe.sgd(STEPS), seeds_of(trial)
    densities: tuple[float, ...] = DENSITIES
    if trial.smoke:
        recipe, densities = replace(recipe, steps=40), DENSITIES[:1]
    findings, rows = [], []
    for density in densities:
        lines: dict[str, Line] = {}
        for arm in arms(density):
            trial.say(f"{density:.0%} kept, {arm.name}: {len(seeds)} trainings")
            scratch = arm.name if arm.name == "GMP" else None
            lines |= run_arms([arm], network, task, recipe, seeds, scratch=scratch)
        against = {"GMP": lines["GMP"], "RigL": lines["RigL"]}
        for line in lines.values():
            line.name += f", {density:.0%}"
        findings += [
            compare(lines["GraNet from 50 %"], lines["RigL"], trial),
            compare(lines["RigL"], lines["static ERK"], trial),
            compare(lines["GraNet"], lines["GMP"], trial),
            compare(lines["GraNet from 50 %"], lines["GMP from 50 %"], trial),
        ]
        rows += [row(line, against, trial) for line in lines.values()]
    found, probed = probe(task, recipe, densities, seeds, trial)
    settings = {
        "data": "digits", "split": trial.split, "seeds": len(seeds), "steps": recipe.steps, "event every": EVERY,
        "plasticity": probed,
    }  # fmt: skip
    return Evidence([*findings, *found], settings, rows, columns(("GMP", "RigL")))


def probe(
    task: Task, recipe: Recipe, densities: Sequence[float], seeds: Sequence[int], trial: Trial
) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Plasticity early and late, with and without regeneration: what each gains."""
    findings, told = [], []
    further = max(1, round(FURTHER * recipe.steps))
    for density in densities:
        trial.say(f"plasticity at {density:.0%} kept: {4 * len(seeds)} trainings")
        kept: dict[tuple[float, float], list[Plasticity]] = {}
        for at in (EARLY, LATE):
            for regrown in (0.0, SWAPPED):
                kept[at, regrown] = [
                    plasticity(network, task, recipe, density, at=at, further=further, regrow_rate=regrown, seed=seed)
                    for seed in seeds
                ]
        change = {key: [p.recovered - p.before for p in some] for key, some in kept.items()}
        told += [
            {"kept": density, "pruned at": at, "regrown": regrown, "change": change[at, regrown],
             "right after pruning": [p.pruned for p in some]}
            for (at, regrown), some in kept.items()
        ]  # fmt: skip
        at_high, at_low = (f"plasticity at a {rate} rate, {density:.0%}" for rate in ("high", "low"))
        findings.append(finding(at_high, at_low, change[EARLY, 0.0], change[LATE, 0.0]))
        for name, at in ((at_high, EARLY), (at_low, LATE)):
            left, swapped = (fmean(p.pruned for p in kept[at, share]) for share in (0.0, SWAPPED))
            reason = (
                f"right after pruning {left:.3f} are right, and {swapped:.3f} once half of what is left is swapped for "
                f"weights at zero: {further} steps have to make up for that first"
            )
            findings.append(finding(f"{name}, regenerated", name, change[at, SWAPPED], change[at, 0.0], reason=reason))
    return findings, told


CLAIM = Claim(
    paper=25,
    title="Sparse Training via Boosting Pruning Plasticity with Neuroregeneration",
    says="Networks recover worse from pruning as the learning rate falls, regenerating connections helps them, and "
    "gradual pruning that does so (GraNet) is better than gradual pruning without (GMP) and than RigL.",
    baseline="GMP, RigL, static ERK masks; beside them SET, random and one-shot magnitude pruning, fresh weights",
    measured="right digits on the test split at equal gradient steps, paired by seed; plasticity on validation",
    measure=measure,
)
