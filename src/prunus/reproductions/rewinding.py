"""Paper 26, stabilising the lottery ticket hypothesis: deep networks at ordinary rates need a few early steps.

*Accuracy.* A small ResNet with batch norms on 8x8 digits at a high rate, trained, pruned once to 95 % and put back to
step 0, or to 2 % of the steps, then trained again; beside both, the same mask shuffled in each layer. Claimed: going
back to 2 % is better than to 0, and better than shuffled there. The rows also show the dense network, and the same
pruning with as many steps that goes on from the trained weights.

*Stability.* LeNet-300-100, pruned in 10 rounds to 11 %: the angle between the whole network and the ticket after the
same training (to pruning), and between two trainings of the ticket in different data order (to order), each against the
shuffled mask, at k = 0 and 2 %. Angles, not L2, are compared, since the norms differ; L2 is in the rows.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

from prunus.reproductions.claim import Claim, Evidence, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of

DENSITY, STEPS, RATE, REWIND = 0.05, 300, 0.1, 0.02
MLP_STEPS, MLP_ROUNDS = 300, 10
RATES = {"[02].weight": 0.2, "4.weight": 0.1}
MEASURES = ("to pruning", "to order")
COLUMNS = (
    "network",
    "mask",
    "k",
    "kept",
    "accuracy",
    "pruning, angle",
    "order, angle",
    "pruning, L2",
    "order, L2",
    "steps",
)


def measure(trial: Trial) -> Evidence:
    part, seeds = part_of(trial), seeds_of(trial)
    accuracy, k, resnet_rows = _accuracy(trial, part, seeds)
    angles, mlp_rows = _stability(trial, seeds)
    findings = [
        finding(f"back to step {k}", "back to step 0", accuracy["ticket", k], accuracy["ticket", 0]),
        finding(f"back to step {k}", f"shuffled mask, step {k}", accuracy["ticket", k], accuracy["shuffled", k]),
    ]
    at = sorted({k for _, _, k in angles})
    for name in MEASURES:
        for early in at:
            ours, base = ([-a for a in angles[mask, name, early]] for mask in ("ticket", "shuffled"))
            findings.append(finding(f"minus angle {name}, k = {early}", "shuffled mask", ours, base))
    later, sooner = ([-a for a in angles["ticket", MEASURES[0], early]] for early in (at[-1], at[0]))
    findings.append(finding(f"minus angle {MEASURES[0]}, k = {at[-1]}", f"k = {at[0]}", later, sooner))
    settings = {
        "split": trial.split, "data": "digits", "seeds": len(seeds), "steps": STEPS, "rate": RATE, "density": DENSITY,
        "stability: steps": MLP_STEPS, "stability: rounds": MLP_ROUNDS,
    }  # fmt: skip
    return Evidence(findings, settings, resnet_rows + mlp_rows, COLUMNS)


def _accuracy(trial: Trial, part: str, seeds: list[int]) -> tuple[dict[tuple[str, int], list[float]], int, list[dict]]:
    """By mask and k the ResNet's scores; which k 2 % is; the rows."""
    from prunus.sparse import Recipe
    from prunus.sparse.data import digits
    from prunus.sparse.methods import IMPRewinding
    from prunus.sparse.networks import drawn, resnet
    from prunus.sparse.table import baselines
    from prunus.sparse.task import mixed_seed
    from prunus.sparse.training import divided_by_ten

    def build() -> Any:
        return resnet(8, 1)

    task, steps = digits(flat=False), 20 if trial.smoke else STEPS
    recipe, k = Recipe.sgd(steps, RATE, divided_by_ten), max(1, round(REWIND * steps))
    output = ("head.2.weight",)
    others = [arm for arm in baselines(DENSITY, output, stretch=1.0) if arm.name != "random"]  # shuffled masks are
    scores: dict[tuple[str, int], list[float]] = defaultdict(list)
    plain: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        for arm in others:
            plain[arm.name].append(task.evaluate(arm.run(build, task, recipe, seed).model, part).score)
        for early in (0, k):
            trial.say(f"ResNet, seed {seed}, back to step {early}")
            shot = IMPRewinding(1, 1 - DENSITY, "global", early, exclude=output)
            found = shot.run(build, task, recipe, seed=seed)
            assert found.ticket is not None
            scores["ticket", early].append(task.evaluate(found.model, part).score)
            shuffled = found.ticket.shuffled(mixed_seed(seed, 7))
            model, _ = shuffled.trained(drawn(build, seed), task, recipe, mixed_seed(seed, 2))
            scores["shuffled", early].append(task.evaluate(model, part).score)
    rows = [
        _row("ResNet", "dense", "", 1.0, fmean(plain["dense"]), steps=steps),
        _row("ResNet", "magnitude, no rewinding", "", DENSITY, fmean(plain["magnitude one-shot"]), steps=2 * steps),
    ]
    rows += [
        _row("ResNet", mask, early, DENSITY, fmean(values), steps=2 * steps - early)
        for (mask, early), values in scores.items()
    ]
    return scores, k, rows


def _stability(trial: Trial, seeds: list[int]) -> tuple[dict[tuple[str, str, int], list[float]], list[dict]]:
    """By mask, measure and k the angles in degrees; the rows."""
    from prunus.sparse import Recipe
    from prunus.sparse.data import digits
    from prunus.sparse.methods import IMPRewinding
    from prunus.sparse.networks import drawn, mlp
    from prunus.sparse.stability import stability_to_order, stability_to_pruning
    from prunus.sparse.task import mixed_seed

    def build() -> Any:
        return mlp(64, 300, 100, 10)

    task, steps, rounds = digits(), MLP_STEPS, MLP_ROUNDS
    if trial.smoke:
        steps, rounds = 30, 2
    recipe, k = Recipe(steps), max(1, round(REWIND * steps))
    seen: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    kept = 1.0
    for seed in seeds:
        for early in (0, k):
            trial.say(f"LeNet, seed {seed}, back to step {early}")
            found = IMPRewinding(rounds, RATES, rewind_to=early).run(build, task, recipe, seed=seed)
            assert found.ticket is not None
            kept = found.ticket.masks.density
            tickets = {"ticket": found.ticket, "shuffled": found.ticket.shuffled(mixed_seed(seed, 7))}
            orders = [mixed_seed(seed, 1000 + i) for i in range(2)]
            for mask, ticket in tickets.items():
                network = drawn(build, seed)
                pruning = stability_to_pruning(network, ticket, task, recipe, orders[:1])
                order = stability_to_order(network, ticket, task, recipe, [(orders[0], orders[1])])
                for name, found_distances in zip(MEASURES, (pruning, order), strict=True):
                    seen[mask, name, early].append(found_distances.mean("angle"))
                    seen[mask, f"{name}, L2", early].append(found_distances.mean("l2"))
    rows = []
    for early in (0, k):
        for mask in ("ticket", "shuffled"):
            means = [fmean(seen[mask, f"{name}{kind}", early]) for kind in ("", ", L2") for name in MEASURES]
            rows.append(_row("LeNet", mask, early, kept, "", *means, steps=steps + rounds * (steps - early)))
    return {key: values for key, values in seen.items() if key[1] in MEASURES}, rows


def _row(
    network: str, mask: str, k: int | str, kept: float, accuracy: float | str, *measures: float, steps: int
) -> dict[str, Any]:
    """The cells of ``COLUMNS``; what is not measured of a network is left empty. ``steps`` are all of them."""
    return dict(zip(COLUMNS, (network, mask, k, kept, accuracy, *(measures or ("",) * 4), steps), strict=True))


CLAIM = Claim(
    paper=26,
    title="Stabilizing the Lottery Ticket Hypothesis",
    says="Tickets of deep networks at ordinary rates train better from a few early steps than from step 0; IMP's "
    "networks are more stable to pruning and to data order than those of shuffled masks, and more to pruning at k > 0.",
    baseline="going back to step 0, and masks shuffled in each layer",
    measured="test accuracy of a ResNet at 5 %; angles between trained LeNets at 11 %",
    measure=measure,
)
