"""Paper 53, consensus sub-network: gates that come to agree leave a static net that is as good as the dense one.

A residual MLP of 8 blocks of width 48 with batch norms on scikit-learn's digits, batches of 100, Adam at 1e-3 for 1200
steps; half of the blocks' multiply-adds are to go. The card's formulas are inferred, and so is what is tested:

- the static network is at most one point below dense, and at most one block from the target;
- polarisation matters: the same without it (lam_pol = 0), of which the majority's blocks stay;
- choosing matters: blocks at random or of the smallest weights removed half-way, 4 of 8, as many steps in all;
- and the network of the same depth from fresh weights, for as many steps: on digits usually as good (card 10).

The dense network has 8 blocks in the training of its arm; the gated one skips blocks that are off for a whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

from torch import nn

from prunus.reproductions.arm_rows import columns, compare, row
from prunus.reproductions.claim import Claim, Evidence, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of
from prunus.sparse.data import digits
from prunus.sparse.importance import Magnitude, Random
from prunus.sparse.masks import Masks
from prunus.sparse.methods import Consensus
from prunus.sparse.methods.consensus import Agreed
from prunus.sparse.methods.layer_lottery import drop_blocks
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.methods.result import Build
from prunus.sparse.networks import residual_mlp
from prunus.sparse.scope import Units, layers
from prunus.sparse.table import Arm, Dense, Line, run_arms
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.training import Recipe

BLOCKS, TARGET, STEPS = 8, 0.5, 1200
AS_GOOD, NEAR = -0.01, 1
"""At most a point below dense, and at most a block from the target."""
OURS, UNPOLARISED = "consensus", "lam_pol = 0"
BASELINES = ("scratch-E", "random blocks", UNPOLARISED)
METHODS = {OURS: Consensus(TARGET), UNPOLARISED: Consensus(TARGET, lam_pol=0)}


def network() -> nn.Module:
    return residual_mlp(64, 48, BLOCKS)


def blocks(masks: Masks) -> Units:
    return layers(masks, [f"blocks.{i}" for i in range(BLOCKS)], "mean")


def without(model: nn.Module, masks: Masks) -> nn.Module:
    kept = blocks(masks).kept(masks)["layers"].tolist()
    return drop_blocks(model, [f"blocks.{i}" for i, keep in enumerate(kept) if not keep])


@dataclass(frozen=True)
class Watched:
    """A method whose results are written down by seed."""

    method: Consensus
    seen: list[Agreed] = field(default_factory=list)

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Agreed:
        self.seen.append(self.method.run(build, task, recipe, seed=seed, every=every))
        return self.seen[-1]


def measure(trial: Trial) -> Evidence:
    task, recipe, seeds = digits(batch_size=100), Recipe(STEPS, 1e-3), seeds_of(trial)
    if trial.smoke:
        recipe = replace(recipe, steps=10)
    halved = RemoveUnits(blocks, without, density=TARGET, granularity="L")
    watched = {name: Watched(method) for name, method in METHODS.items()}
    arms = [
        Arm("dense", Dense()),
        Arm("random blocks", lambda seed: replace(halved, importance=Random(mixed_seed(seed, 3))), 0.5),
        Arm("smallest blocks", replace(halved, importance=Magnitude()), 0.5),
        *(Arm(name, method) for name, method in watched.items()),
    ]
    trial.say(f"{len(arms) + 2} arms: {len(seeds)} trainings each")
    lines = run_arms(arms, network, task, recipe, seeds, scratch=OURS)
    ours, half = lines[OURS], round(TARGET * BLOCKS)
    off = {name: [abs(kept(one) - half) for one in method.seen] for name, method in watched.items()}
    findings = [
        compare(ours, lines["dense"], trial, AS_GOOD),
        *(compare(ours, lines[name], trial, reason=depth(lines, trial)) for name in BASELINES),
        finding(
            "blocks beyond one from the target, negative",
            "0",
            [float(-max(0, n - NEAR)) for n in off[OURS]],
            [0.0] * len(seeds),
            -0.5,
            f"off by {off[OURS]} blocks",
        ),
    ]
    rows = [
        row(line, {"dense": lines["dense"], "scratch-E": lines["scratch-E"]}, trial)
        | (gates(watched[name].seen) if name in watched else {})
        for name, line in lines.items()
    ]
    settings = {
        "data": "digits", "split": trial.split, "seeds": len(seeds), "steps": recipe.steps, "blocks": BLOCKS,
        "target": TARGET, "lam_pol": METHODS[OURS].lam_pol, "lam_act": METHODS[OURS].lam_act,
        "blocks kept": {name: [kept(one) for one in method.seen] for name, method in watched.items()},
    }  # fmt: skip
    own = ("blocks", "agreement", "dynamic - static", "skipped")
    return Evidence(findings, settings, rows, (*columns(("dense", "scratch-E")), *own))


def depth(lines: Mapping[str, Line], trial: Trial) -> str:
    """What the blocks that go are worth here."""
    all_blocks, fewer = (fmean(getattr(lines[name], part_of(trial))) for name in ("dense", "scratch-E"))
    return f"as few blocks from fresh weights reach {fewer:.3f}, all of them {all_blocks:.3f}: they are not needed"


def kept(found: Agreed) -> int:
    return sum(int(keep.sum()) for keep in found.kept.values())


def gates(seen: list[Agreed]) -> dict[str, float]:
    """Means over seeds: blocks kept, how far the gates agree, validation of the gated network minus the static one's,
    and the share of blocks' forward passes that training skipped."""
    return {
        "blocks": fmean(kept(one) for one in seen),
        "agreement": fmean(one.agreement for one in seen),
        "dynamic - static": fmean(one.dynamic.score - one.levels[-1].validation.score for one in seen if one.dynamic),
        "skipped": fmean(one.skipped for one in seen),
    }


CLAIM = Claim(
    paper=53,
    title="Learning a Consensus Sub-Network with Polarization Regularization and One Pass Training",
    says="One training with input-dependent gates that are made to agree leaves a static network with half of the "
    "blocks' multiply-adds that is less than one point below dense.",
    baseline="the dense network; the same depth from fresh weights; random blocks removed half-way; no polarisation",
    measured="right digits on the test split, paired by seed, with equal gradient steps, and the blocks that are left",
    measure=measure,
)
