"""Paper 48, PQ index and SAP: how compressible the weights are falls, then rises as pruning goes on; SAP goes by it.

The index: MLPs 64-300-100-10 on scikit-learn's digits, pruned by a fifth a round with a reset to the first weights
(lottery ticket), 24 rounds of 200 steps of Adam at 1.2e-3, to 0.5 %. I of all kept weights (p = .5, q = 1) is read
after each training, when nothing was pruned, at 21 % (7 rounds) and at 1.4 % (19 rounds); these rounds were fixed from
the paper card before this was run. What comes after, and the score, are drawn and reported.

SAP: by layer, by neuron and globally, against lottery tickets and one-shot magnitude pruning at 2 % (digits show no
difference above 5 %) and at equal gradient steps, 9 trainings of 200. gamma = 7 prunes much faster than the paper's 1,
which in eight rounds keeps more than half; it was chosen on validation so that SAP by layer nears the density by
itself. The last round ends exactly there. Who is there in fewer rounds has fewer steps.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prunus.interval import t_interval
from prunus.report.curves import Curve, write_curves
from prunus.reproductions.arm_rows import columns, compare, row
from prunus.reproductions.claim import SAME, Claim, Evidence, Trial
from prunus.reproductions.paired import finding, seeds_of
from prunus.sparse.data import digits
from prunus.sparse.masks import Masks
from prunus.sparse.methods import SAP, LotteryTicket, Sparsified
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.pq_index import phases, pq_index
from prunus.sparse.rewind import rewind, snapshot
from prunus.sparse.table import Arm, Line, baselines, run_arms
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.training import Recipe, train

RATE, ROUNDS, LOW, HIGH, STEPS = 0.2, 24, 7, 19, 200
DENSITY, GAMMA, SAP_ROUNDS = 0.02, 7.0, 8
AS_GOOD = -0.01
network = partial(mlp, 64, 300, 100, 10)


def index_by_round(task: Task, recipe: Recipe, rounds: int, seed: int) -> list[dict[str, float]]:
    """The density, the index of all kept weights as one vector, and the validation score after each training."""
    model, found = drawn(network, seed), []
    first, masks, method = snapshot(model), Masks.of(model), LotteryTicket(rates=RATE)
    for round_ in range(rounds + 1):
        rewind(model, first, masks)
        train(model, task, recipe, order=mixed_seed(seed, 1 + round_), masks=masks)
        values = torch.cat([w.detach().flatten() for w in masks.weights(model).values()])
        index = float(pq_index(values, torch.cat([mask.flatten() for mask in masks.values()])))
        score = task.evaluate(model, "validation").score
        found.append({"density": masks.density, "index": index, "score": score})
        masks = method.prune(model, masks)
    return found


def arms() -> list[Arm]:
    """All have the steps of ``SAP_ROUNDS`` + 1 trainings in all."""
    share = 1 / (SAP_ROUNDS + 1)
    ours = SAP(rounds=SAP_ROUNDS, gamma=GAMMA, density=DENSITY)
    ticket = LotteryTicket(SAP_ROUNDS, 1 - DENSITY ** (1 / SAP_ROUNDS), "global")
    scopes = [Arm(f"SAP by {scope}", replace(ours, scope=scope), share) for scope in ("layer", "neuron")]
    return [
        *baselines(DENSITY),
        Arm("lottery ticket", ticket, share),
        *scopes,
        Arm("SAP globally", replace(ours, scope="global"), share),
    ]


def measure(trial: Trial) -> Evidence:
    task, seeds = digits(), seeds_of(trial)
    rounds, recipe = ROUNDS, Recipe(STEPS)
    if trial.smoke:
        rounds, recipe = HIGH, Recipe(3)
    trial.say(f"the index over {rounds} rounds: {len(seeds)} seeds")
    curves = [index_by_round(task, recipe, rounds, seed) for seed in seeds]
    dense, low, high = ([curve[at]["index"] for curve in curves] for at in (0, LOW, HIGH))
    whole, few, fewest = ("index, dense", f"index, round {LOW}", f"index, round {HIGH}")
    findings = [finding(whole, few, dense, low), finding(fewest, few, high, low)]
    lines: dict[str, Line] = {}
    hidden: dict[str, list[int]] = {}  # weights that are left between the hidden layers

    def keep(name: str, seed: int, found: Sparsified) -> None:
        if found.masks is not None:
            hidden.setdefault(name, []).append(found.masks.counts()["2.weight"])

    for arm in arms():
        trial.say(f"{arm.name}: {len(seeds)} runs")
        scratch = arm.name if arm.name == "SAP by layer" else None
        long = replace(recipe, steps=recipe.steps * (SAP_ROUNDS + 1))
        lines |= run_arms([arm], network, task, long, seeds, scratch=scratch, keep=keep)
    ours, ticket, shot = (lines[name] for name in ("SAP by layer", "lottery ticket", "magnitude one-shot"))
    for other, least in ((shot, AS_GOOD), (ticket, AS_GOOD), (lines["SAP globally"], SAME)):
        reason = (
            f"by seed {' '.join(f'{score:.2f}' for score in ours.test)}, with {' '.join(map(str, hidden[ours.name]))} "
            f"weights left between the hidden layers, where {other.name} keeps {min(hidden[other.name])} or more: its "
            "index lets it cut the largest layer to pieces on some seeds"
        )
        findings.append(compare(ours, other, trial, least, reason))
    rows = [row(line, {"lottery ticket": ticket, "one-shot": shot}, trial) for line in lines.values()]
    settings = {
        "data": "digits", "split": trial.split, "seeds": len(seeds), "steps": recipe.steps,
        "density": DENSITY,
        "gamma": GAMMA,
        "index by round": curves,
        "phases": [phases([at["index"] for at in curve], [at["score"] for at in curve]) for curve in curves],
    }  # fmt: skip
    picture = {"index": partial(draw, curves)}
    return Evidence(findings, settings, rows, columns(("lottery ticket", "one-shot")), picture)


def draw(curves: list[list[dict[str, float]]], path: Path) -> None:
    """The index, and what of the dense network's validation score is lost, against the round."""
    rounds: list[float] = list(range(len(curves[0])))
    index = [t_interval([curve[i]["index"] for curve in curves]) for i in range(len(rounds))]
    lost = [t_interval([curve[0]["score"] - curve[i]["score"] for curve in curves]) for i in range(len(rounds))]
    shown: list[Any] = [Curve("PQ index of the kept weights", index, rounds), Curve("score lost", lost, rounds)]
    write_curves(path, shown, "index; share of digits", "rounds, each of which prunes a fifth")


CLAIM = Claim(
    paper=48,
    title="Pruning Deep Neural Networks from a Sparsity Perspective",
    says="The PQ index of retrained weights first falls and then rises as they are pruned, and pruning by what it says "
    "(SAP, by layer) is as good as lottery tickets and one-shot pruning at equal density; globally it is no better.",
    baseline="the dense network's index; lottery tickets, one-shot magnitude pruning, SAP over all layers together",
    measured="the index of all kept weights; right digits on the test split at equal density and gradient steps, "
    "paired by seed; at most one point below is as good",
    measure=measure,
)
