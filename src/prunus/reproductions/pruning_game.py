"""Paper 36, pruning as a game: an equilibrium of the neurons' utilities says which of them are worth keeping.

An MLP 64-128-64-10 on scikit-learn's digits, Adam at 1e-3. Three questions:

- Does the game select? All arms keep the same 19 of 192 hidden neurons (13 and 6) and take the same gradient steps: the
  game, with the sign of its benefit mended; the same without benefit (alpha = 0); the paper's form; random neurons and
  those of smallest rows removed half-way; the dense network; the small one from fresh weights.
- Is it an equilibrium? Then what is left does not change when the game goes on for 2 and 4 times the steps at the same
  rate of the players.
- What do the paper's four configurations leave, and does their benefit matter? The same with alpha = 0 and with the
  sign turned.

The players' rate is such that rate x steps is the paper's, 9.38; the dense weights' rate is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import torch
from torch import nn

from prunus.interval import t_interval
from prunus.reproductions.arm_rows import compare, row
from prunus.reproductions.claim import SAME, Claim, Evidence, Finding, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of
from prunus.sparse.allocation import Uniform
from prunus.sparse.data import digits
from prunus.sparse.importance import Random
from prunus.sparse.masks import Masks
from prunus.sparse.methods import Game
from prunus.sparse.methods.game import PUBLISHED, Played
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.networks import mlp
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import Units, channels
from prunus.sparse.table import Arm, Dense, run_arms
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.training import Recipe

DENSITY, STEPS, SHORT = 0.1, 1000, 400
TIMES = (1, 2, 4)
GAME = Game(density=DENSITY, allocation=Uniform())
OURS, RANDOM, ROWS = "game", "random neurons", "largest rows (L2)"
COLUMNS = ("arm", "right", f"against {RANDOM}", "neurons", "kept", "MACs", "steps", "seconds")
REASONS: dict[str, str] = {}
FORMS = {"game": Game(), "paper, L1+L2": Game.published("L1+L2")}


def network() -> nn.Module:
    return mlp(64, 128, 64, 10)


def hidden(masks: Masks) -> Units:
    return channels(masks, ["0.weight", "2.weight"], "norm")


def arms(task: Task) -> list[Arm]:
    def remove(model: nn.Module, masks: Masks) -> nn.Module:
        return remove_channels(model, masks, task.example)

    rows = RemoveUnits(hidden, remove, density=DENSITY)

    def by_lot(seed: int) -> RemoveUnits:
        return replace(rows, importance=Random(mixed_seed(seed, 3)))

    published = replace(FORMS["paper, L1+L2"], density=DENSITY, allocation=Uniform())
    return [
        Arm("dense", Dense()),
        Arm(RANDOM, by_lot, 0.5),
        Arm(ROWS, rows, 0.5),
        Arm(OURS, GAME),
        Arm("alpha = 0", replace(GAME, alpha=0)),
        Arm("paper, L1+L2, stopped", published),
    ]


def measure(trial: Trial) -> Evidence:
    task, seeds = digits(), seeds_of(trial)
    recipe, short = Recipe(STEPS, 1e-3), Recipe(SHORT, 1e-3)
    if trial.smoke:
        recipe, short = replace(recipe, steps=30), replace(short, steps=10)
    trial.say(f"eight arms at {DENSITY:.0%} of the neurons: {len(seeds)} trainings each")
    lines = run_arms(arms(task), network, task, recipe, seeds, scratch=OURS)
    rows = [row(line, {RANDOM: lines[RANDOM]}, trial) for line in lines.values()]
    ours = lines[OURS]
    findings = [
        compare(ours, lines[name], trial, reason=REASONS.get(name, ""))
        for name in ("alpha = 0", RANDOM, ROWS, "scratch-E")
    ]

    def played(name: str, game: Game, times: int = 1) -> list[Played]:
        trial.say(f"{name}, {times} x {short.steps} steps: {len(seeds)} trainings")
        long = replace(short, steps=short.steps * times)
        found = [replace(game, travel=game.travel * times).run(network, task, long, seed=seed) for seed in seeds]
        scores = [task.evaluate(one.model, part_of(trial)).score for one in found]
        rows.append(
            {
                "arm": f"{name}, {times} x {short.steps} steps",
                "right": t_interval(scores).mean,
                "neurons": t_interval([one.neurons for one in found]).mean,
                "steps": found[0].steps,
                "scores": scores,
            }
        )
        return found

    for name, game in FORMS.items():
        findings.append(still(name, [[one.neurons for one in played(name, game, times)] for times in TIMES]))
    return Evidence(
        findings,
        {
            "data": "digits", "split": trial.split, "seeds": len(seeds), "steps": recipe.steps, "neurons kept": DENSITY,
            "alpha": GAME.alpha, "gamma": GAME.gamma, "mean difference of s": signs(played),
        },
        rows,
        COLUMNS,
    )  # fmt: skip


def still(name: str, kept: list[list[float]]) -> Finding:
    """Whether as many neurons are left after the longest game as after the shortest."""
    first, last = kept[0], kept[-1]
    shares = ", ".join(f"{t_interval(k).mean:.2f} at {times} x" for times, k in zip(TIMES, kept, strict=True))
    reason = f"the share of neurons that is left falls with time: {shares}"
    return finding(f"{name}: neurons left at {TIMES[-1]} x the steps", "at 1 x", last, first, SAME, reason)


def signs(played: Callable[..., list[Played]]) -> dict[str, dict[str, float]]:
    """The paper's configurations: how far s ends from that without benefit, with the paper's sign and the other."""
    differences: dict[str, dict[str, float]] = {}
    for name in PUBLISHED:
        paper = Game.published(name)
        forms = {"paper": paper, "alpha = 0": replace(paper, alpha=0), "descent": replace(paper, benefit="descent")}
        found = {form: played(f"{name}, {form}", game) for form, game in forms.items()}
        base = [torch.cat(list(one.s.values())) for one in found["alpha = 0"]]
        differences[name] = {
            form: fmean(
                float((torch.cat(list(one.s.values())) - b).abs().mean())
                for one, b in zip(found[form], base, strict=True)
            )
            for form in ("paper", "descent")
        }
    return differences


CLAIM = Claim(
    paper=36,
    title="Pruning as a Game",
    says="The equilibrium of a game in which neurons choose their participation selects the useful ones: what it "
    "leaves is better than as many others, and is the same however long the game goes on.",
    baseline="the same costs without benefit (alpha = 0); random neurons and those of largest rows at an equal count, "
    "and the same widths from fresh weights, all with equal training; the game itself at 1 x the steps",
    measured="right digits on the test split, paired by seed, and the share of neurons that is left",
    measure=measure,
)
