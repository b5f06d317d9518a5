"""Paper 46, the survey of pruning: which of its contrasting settings make a difference, and in the expected direction?

LeNet-300-100 on 8x8 digits, 5 % of the weights kept, 300 steps a training and as many in all in both arms of a pair.
P6 prunes on the digits 0 to 4 and measures on 5 to 9. P7 is a residual MLP of 4 blocks, half of their MACs, 600 steps.
Each arm has the learning rate that was best for it on validation, on other seeds. The survey gives no figures for its
pairs; what it leads one to expect are hypotheses, and P3, P6 and P7 come with none: they are in the rows only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prunus.reproductions.claim import SAME, Claim, Evidence, Finding, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of

DENSITY, STEPS, GATED_STEPS = 0.05, 300, 600
RATES = {
    "P1": (6e-3, 6e-3),
    "P2": (6e-3, 3e-3),
    "P3": (6e-3, 3e-3),
    "P4": (6e-3, 6e-3),
    "P5": (6e-3, 6e-3),
    "P6": (1.2e-3, 6e-3),
    "P6, mask alone": (1.2e-3, 3e-3),
    "P7": (3e-3, 3e-3),
    "P8": (6e-3, 3e-3),
}
"""Learning rates of both arms: the best of 1.2, 3 and 6 e-3 on validation, seeds 100 and 101 (``choose_rates``)."""


def measure(trial: Trial) -> Evidence:
    from prunus.sparse import Recipe, contrasts
    from prunus.sparse.data import digits, of_classes
    from prunus.sparse.networks import mlp, residual_mlp
    from prunus.sparse.transfer import transfer_pairs

    def build() -> Any:
        return mlp(64, 300, 100, 10)

    def blocks() -> Any:
        return residual_mlp(64, 48, 4)

    task, recipe = digits(), Recipe(20 if trial.smoke else STEPS)
    low, high = of_classes(task, range(5)), of_classes(task, range(5, 10))
    seeds, part, gaps = seeds_of(trial), part_of(trial), []
    gated = recipe if trial.smoke else replace(recipe, steps=GATED_STEPS)
    parts = (
        (contrasts.standard_pairs(build, DENSITY, task.example, 2 if trial.smoke else 8), build, task, recipe),
        (transfer_pairs(build, low, DENSITY), build, high, recipe),
        (contrasts.gated_pair(blocks, task), blocks, task, gated),
    )
    for pairs, network, data, used in parts:
        for pair, arms in pairs.items():
            trial.say(f"{pair}: {arms[0].name}, {arms[1].name}")
            gaps += contrasts.measure({pair: arms}, network, data, used, seeds, part, RATES)
    findings = [found for gap in gaps for found in directions(gap)]
    settings = {
        "split": trial.split, "data": "digits", "network": "64-300-100-10", "seeds": len(seeds), "density": DENSITY,
        "steps a training": recipe.steps, "rates": {gap.pair: gap.rates for gap in gaps},
    }  # fmt: skip
    return Evidence(findings, settings, contrasts.report(sorted(gaps, key=lambda g: g.pair)), contrasts.COLUMNS)


def directions(gap: Any) -> list[Finding]:
    """The expected direction of a pair as findings: > and < ask for a difference, <= for no loss, = for none of either
    arm; nothing where nothing is expected."""
    one, other = ((f"{gap.pair}: {name}", name, scores) for name, scores in zip((gap.one, gap.other), gap.scores))
    sides = {">": [(one, other, 0.0)], "<": [(other, one, 0.0)], "<=": [(other, one, SAME)],
             "=": [(one, other, SAME), (other, one, SAME)], "": []}[gap.setting.sign]  # fmt: skip
    return [finding(ours[0], base[1], ours[2], base[2], asked) for ours, base, asked in sides]


CLAIM = Claim(
    paper=46,
    title="A Survey on Deep Neural Network Pruning",
    says="Of contrasting settings, unstructured masks do better than structured ones, iterative pruning at least as "
    "well as one-shot, pre-trained weights better than initial ones, one threshold over all layers at least as well as "
    "one for each, and structured networks that are trained from scratch about as well as fine-tuned ones.",
    baseline="the other setting of each pair, all else alike",
    measured="test accuracy at 5 % of the weights, five paired seeds",
    measure=measure,
)
