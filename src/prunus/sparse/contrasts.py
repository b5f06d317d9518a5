"""The survey's contrasting settings, measured (card 46): one gap for each pair, paired by seed.

Model, data, density and the number of gradient steps are the same on both sides; only the pair's setting differs. A gap
is reported with its sign; it is *claimed* only if it is at least twice the standard deviation of its differences.

P6 (original task or transfer) needs two tasks and is not among them, but ``measure`` takes any two arms. P7 (static or
dynamic) needs a residual network: ``gated_pair``.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prunus.errors import require
from prunus.sparse.allocation import Uniform
from prunus.sparse.importance import SNIP, Magnitude
from prunus.sparse.input_gates import InputGates
from prunus.sparse.macs import macs
from prunus.sparse.masks import Masks
from prunus.sparse.methods import Consensus, LotteryTicket, OneShot
from prunus.sparse.methods.result import Build
from prunus.sparse.networks import drawn
from prunus.sparse.scope import channels
from prunus.sparse.table import Arm, cost
from prunus.sparse.task import Task
from prunus.sparse.training import Recipe


@dataclass(frozen=True)
class Gap:
    """``one`` - ``other`` by seed, in the task's score; of both all gradient steps, and the MACs of one row on average
    over seeds (and over rows, where they depend on the input)."""

    pair: str
    one: str
    other: str
    differences: tuple[float, ...]
    steps: tuple[int, int]
    macs: tuple[float, float] = (0.0, 0.0)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences)

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.differences) if len(self.differences) > 1 else float("inf")

    @property
    def claimed(self) -> bool:
        return abs(self.mean) >= 2 * self.deviation and self.mean != 0


def standard_pairs(build: Build, density: float, rounds: int = 8) -> dict[str, tuple[Arm, Arm]]:
    """P1 to P5 and P8 for a network whose last weight is its output layer, which all arms leave whole.

    Both arms of P1 keep as many weights in their masks. P4 and P5 train two times the recipe in each arm.
    """
    masks = Masks.of(drawn(build, 0))
    output = list(masks)[-1]
    rows = channels(masks, [name for name in masks if name != output])
    shot = OneShot(density, allocation=Uniform(), finetune_rate=1.0, exclude=(output,))
    over_all = OneShot(density, finetune_rate=1.0, exclude=(output,))
    rewound = replace(over_all, retrain="rewind")
    rate = 1 - density ** (1 / rounds)
    ticket = LotteryTicket(rounds=rounds, rates=rate, scope="global", exclude=(output,))
    snip = replace(over_all, importance=SNIP(), at="init")
    even = replace(snip, allocation=Uniform())  # initial magnitudes ranked over layers would empty the wide ones
    return {
        "P1": (Arm("unstructured", shot), Arm("structured", replace(shot, scope=rows))),
        "P2": (Arm("one-shot", rewound, (rounds + 1) / 2), Arm("iterative", ticket)),
        "P3": (Arm("data-free", replace(even, importance=Magnitude())), Arm("data-driven", even)),
        "P4": (Arm("initialised", snip, 2.0), Arm("pre-trained", replace(snip, at="trained"))),
        "P5": (Arm("from scratch", replace(over_all, retrain="scratch")), Arm("fine-tuned", over_all)),
        "P8": (Arm("layer-wise", shot), Arm("global", over_all)),
    }


def gated_pair(build: Build, task: Task, share: float = 0.5) -> dict[str, tuple[Arm, Arm]]:
    """P7 for a residual network: gates that were made to agree and are gone, against gates that go on to look at each
    input. Both compute ``share`` of the blocks' MACs on average; the dynamic one's gates count, so that its blocks get
    less. It comes near to that by training, not exactly: see the gap's ``macs``."""
    model = drawn(build, 0)
    dense = macs(model, task.example)
    gates = InputGates(model, task.example)
    blocks = float(gates.macs().sum())
    target = share - (gates.rest + blocks - dense) / blocks
    require(
        target > 0, "share", share, f"above {share - target:.3f}: the gates alone cost that much of the blocks' MACs"
    )
    static = Consensus(share, exact=True)
    return {"P7": (Arm("static", static), Arm("dynamic", replace(static, target=target, lam_pol=0.0, static=False)))}


def measure(
    pairs: Mapping[str, tuple[Arm, Arm]],
    build: Build,
    task: Task,
    recipe: Recipe,
    seeds: Sequence[int] = (0, 1, 2),
    split: str = "test",
) -> list[Gap]:
    gaps = []
    for pair, arms in pairs.items():
        scores: tuple[list[float], list[float]] = ([], [])
        steps, costs = [0, 0], [0.0, 0.0]
        for seed in seeds:
            for side, arm in enumerate(arms):
                found = arm.run(build, task, recipe, seed)
                scores[side].append(task.evaluate(found.model, split).score)
                steps[side] = found.steps
                costs[side] += cost(found, task) / len(seeds)
        differences = tuple(a - b for a, b in zip(*scores, strict=True))
        gaps.append(Gap(pair, arms[0].name, arms[1].name, differences, (steps[0], steps[1]), (costs[0], costs[1])))
    return gaps
