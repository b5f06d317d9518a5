"""Paper 21, rethinking pruning: a pruned architecture trains as well from fresh weights as from the inherited ones.

MLPs 64-256-128-10 on scikit-learn's digits, Adam at 1.2e-3, E = 600 steps. Structured: the rows of each hidden layer
with the smallest L1 norms are removed, to 50, 10 and 5 %. Unstructured: magnitude over all layers, to 5 and 2 % of the
weights. Arms, paired by seed:

- fine-tuned as published: E / 4 steps at a tenth of the rate; and for all of E at the full rate;
- Scratch-E, and Scratch-B: the same compute as the dense network, at most 4 E (its rows say when it was cut short).

Each hidden layer keeps the same share, so that Scratch-E is also the narrow dense network that no pruner chose. (One
ranking of norms over both layers left a single neuron of the first, on validation: no architecture to compare.)
The claim is that Scratch-B is no worse than fine-tuning if units were removed, and that single weights at high sparsity
are another matter. Steps of fine-tuned arms include the E of dense training: the two ways cost about the same compute,
but the *short* fine-tuning has fewer steps and a small rate, which is part of the gap that the paper reports.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from prunus.interval import t_interval
from prunus.reproductions.claim import SAME, Claim, Evidence, Finding, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of
from prunus.sparse.allocation import Global, Uniform
from prunus.sparse.data import digits
from prunus.sparse.importance import Magnitude
from prunus.sparse.masks import Masks
from prunus.sparse.methods.scratch import ARMS, Arm, Shrink, compare_arms
from prunus.sparse.networks import mlp
from prunus.sparse.prune import prune
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import channels
from prunus.sparse.task import Task
from prunus.sparse.training import Recipe

WIDTHS = (256, 128)
ROWS, WEIGHTS = (0.5, 0.1, 0.05), (0.05, 0.02)
CAP = 4.0
COLUMNS = ("kept", "arm", "right", "against fine-tuning", "MACs", "steps", "steps x MACs of dense")


def network() -> nn.Module:
    return mlp(64, *WIDTHS, 10)


def without_rows(share: float, task: Task, model: nn.Module) -> tuple[nn.Module, Masks | None]:
    """The trained network with so many rows of each hidden layer, those of largest L1 norm."""
    masks = Masks.of(model, exclude=["4.*"])
    kept = prune(model, masks, share, Magnitude(), Uniform(), channels(masks))
    return remove_channels(model, kept, task.example), None


def without_weights(share: float, model: nn.Module) -> tuple[nn.Module, Masks | None]:
    masks = prune(model, Masks.of(model), share, Magnitude(), Global())
    masks.apply(model)
    return model, masks


def measure(trial: Trial) -> Evidence:
    task, recipe, seeds = digits(), Recipe(600), seeds_of(trial)
    cases: dict[str, Shrink] = {f"{share:.0%} of rows": partial(without_rows, share, task) for share in ROWS}
    cases |= {f"{share:.0%} of weights": partial(without_weights, share) for share in WEIGHTS}
    if trial.smoke:
        recipe = replace(recipe, steps=20)
        cases = {name: cases[name] for name in ("10% of rows", "2% of weights")}
    tables: dict[str, dict[str, Arm]] = {}
    arms = [arm for arm in ARMS if arm != "small_dense_uniform"]
    for name, shrink in cases.items():
        trial.say(f"{name}: {len(seeds)} seeds")
        tables[name] = compare_arms(network, shrink, task, recipe, seeds, arms, cap=CAP, split=part_of(trial))
    settings = {"data": "digits", "split": trial.split, "seeds": len(seeds), "steps": recipe.steps, "cap": CAP}
    rows = [row(name, arm, table) for name, table in tables.items() for arm in table.values()]
    return Evidence([f for name, table in tables.items() for f in compare(name, table)], settings, rows, COLUMNS)


def compare(name: str, table: dict[str, Arm]) -> list[Finding]:
    """Of removed units: Scratch-B as good as both fine-tunings. Of single weights: fine-tuning is better."""

    def against(ours: str, baseline: str, more_than: float) -> Finding:
        tail = " (cut short)" if table["scratch_B"].capped else ""
        reason = (
            f"with E steps fresh weights give {table['scratch_E'].mean:.3f}; Scratch-B has {table['scratch_B'].steps} "
            f"steps after pruning, the fine-tuning {table[baseline if ours == 'scratch_B' else ours].steps} in all"
        )
        called = [f"{arm}, {name}{tail if arm == 'scratch_B' else ''}" for arm in (ours, baseline)]
        return finding(called[0], called[1], table[ours].scores, table[baseline].scores, more_than, reason)

    if "rows" in name:
        return [against("scratch_B", other, SAME) for other in ("finetune", "finetune_full_lr")]
    return [against("finetune_full_lr", "scratch_B", 0.0)]


def row(name: str, arm: Arm, table: dict[str, Arm]) -> dict[str, Any]:
    dense = table["dense"]
    gap = t_interval([a - b for a, b in zip(arm.scores, table["finetune_full_lr"].scores, strict=True)])
    shown = "" if arm.name == "finetune_full_lr" else f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    inherited = dense.steps if arm.name.startswith("finetune") else 0
    compute = inherited + (arm.steps - inherited) * arm.macs / dense.macs
    called = arm.name + (" (cut short)" if arm.capped else "")
    cells = (name, called, arm.mean, shown, round(arm.macs), arm.steps, compute)
    return dict(zip(COLUMNS, cells, strict=True)) | {"scores": list(arm.scores)}


CLAIM = Claim(
    paper=21,
    title="Rethinking the Value of Network Pruning",
    says="An architecture that is left when units are removed trains from fresh weights, with as much compute, to what "
    "fine-tuning the inherited weights gives or better; single weights at high sparsity do not.",
    baseline="fine-tuning as published (a quarter of the steps at a tenth of the rate) and with the whole recipe",
    measured="right digits on the test split, paired by seed; the same means within 2 points",
    measure=measure,
)
