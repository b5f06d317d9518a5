"""The survey's contrasting settings, measured (card 46): one gap for each pair, paired by seed.

Model, data, size and the number of gradient steps are the same on both sides; only the pair's setting differs. Each arm
may have the learning rate that is best for it on validation (``choose_rates``, on seeds of its own), so that a gap is
not one of tuning. A gap is reported with its sign; it is *claimed* only if it is at least twice the standard deviation
of its differences.

P6 (original task or transfer) needs a second task: ``transfer.transfer_pairs``. P7 (static or dynamic) needs a residual
network: ``gated_pair``. ``measure`` takes any two arms.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prunus.errors import require
from prunus.sparse.allocation import Uniform
from prunus.sparse.importance import SNIP, Magnitude
from prunus.sparse.input_gates import InputGates
from prunus.sparse.macs import macs
from prunus.sparse.masks import Masks
from prunus.sparse.methods import Consensus, LotteryTicket, OneShot
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.prune import prune
from prunus.sparse.removal import redraw, remove_channels
from prunus.sparse.scope import Units, channels
from prunus.sparse.table import Arm, cost
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import PAIRS, MethodCard, Pair
from prunus.sparse.training import Recipe, train

Pairs = Mapping[str, tuple[Arm, Arm]]
"""A pair's id, with anything after a comma to tell two versions of one apart -> its two arms."""


@dataclass(frozen=True)
class Gap:
    """``one`` - ``other`` by seed, from the task's ``scores`` of both. Of each: gradient steps, all counted, the rate,
    and the MACs of one row, on average over seeds (and over rows, where they depend on the input)."""

    pair: str
    one: str
    other: str
    scores: tuple[Sequence[float], Sequence[float]]
    steps: tuple[int, int]
    rates: tuple[float, float]
    macs: tuple[float, float] = (0.0, 0.0)

    @property
    def differences(self) -> list[float]:
        return [a - b for a, b in zip(*self.scores, strict=True)]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences)

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.differences) if len(self.differences) > 1 else float("inf")

    @property
    def claimed(self) -> bool:
        return abs(self.mean) >= 2 * self.deviation and self.mean != 0

    @property
    def setting(self) -> Pair:
        """The pair of the taxonomy."""
        return next(pair for pair in PAIRS if pair.id == self.pair.split(",")[0])

    @property
    def literature(self) -> str:
        """What a claimed gap says of what the literature expects: ``as expected`` or ``against it``; ``no claim``, or
        ``nothing expected``, where there is none."""
        sign = self.setting.sign
        if not self.claimed:
            return "no claim"
        if not sign:
            return "nothing expected"
        return "as expected" if sign[0] == (">" if self.mean > 0 else "<") else "against it"


@dataclass(frozen=True)
class Redrawn:
    """The small network that ``method`` leaves, drawn anew at its own size and trained (Scratch-E, card 21). Masks on
    fresh weights of the wide network would start them too small, which costs digits 2 to 5 points."""

    method: RemoveUnits

    @property
    def taxonomy(self) -> MethodCard:
        return replace(self.method.taxonomy, retrain="scratch")

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        found = replace(self.method, tune=False).run(build, task, recipe, seed=seed)
        model = drawn(partial(redraw, found.model), mixed_seed(seed, 2))
        steps = found.steps + train(model, task, recipe, order=mixed_seed(seed, 1), every=every).steps
        return Sparsified(model, None, steps, [Level(None, task.evaluate(model, "validation"), steps)])


def standard_pairs(build: Build, density: float, example: Any, rounds: int = 8) -> dict[str, tuple[Arm, Arm]]:
    """P1 to P5 and P8 for a network whose last weight is its output layer, which all arms leave whole.

    The structured arms (P1 and both of P5) lose whole channels, until as many weights are left in the really smaller
    network for ``example`` (an input) as unstructured masks of ``density`` keep, the output layer included. P4 and P5
    train two times the recipe in each arm, P2 ``rounds`` + 1 times.
    """
    masks = Masks.of(drawn(build, 0))
    output = list(masks)[-1]
    rows = channels(masks, [name for name in masks if name != output])
    shot = OneShot(density, allocation=Uniform(), finetune_rate=1.0, exclude=(output,))
    share = channels_kept(build, rows, output, density, example)
    fewer = RemoveUnits(lambda _: rows, partial(remove_channels, example=example), share)
    over_all = OneShot(density, finetune_rate=1.0, exclude=(output,))
    rewound = replace(over_all, retrain="rewind")
    rate = 1 - density ** (1 / rounds)
    ticket = LotteryTicket(rounds=rounds, rates=rate, scope="global", exclude=(output,))
    snip = replace(over_all, importance=SNIP(), at="init")
    even = replace(snip, allocation=Uniform())  # initial magnitudes ranked over layers would empty the wide ones
    return {
        "P1": (Arm("unstructured", shot), Arm("structured", fewer)),
        "P2": (Arm("one-shot", rewound, (rounds + 1) / 2), Arm("iterative", ticket)),
        "P3": (Arm("data-free", replace(even, importance=Magnitude())), Arm("data-driven", even)),
        "P4": (Arm("initialised", snip, 2.0), Arm("pre-trained", replace(snip, at="trained"))),
        "P5": (Arm("from scratch", Redrawn(fewer)), Arm("fine-tuned", fewer)),
        "P8": (Arm("layer-wise", shot), Arm("global", over_all)),
    }


def channels_kept(build: Build, rows: Units, output: str, density: float, example: Any) -> float:
    """The share of channels whose removal leaves as many weights as masks of ``density`` on all but ``output`` do, or
    the nearest fewer; at least one channel a layer."""
    model = drawn(build, 0)
    masks = Masks.of(model, [output])
    most = round(density * masks.total) + Masks.of(model).total - masks.total
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        share = (low + high) / 2
        smaller = remove_channels(model, prune(model, masks, share, allocation=Uniform(), scope=rows), example)
        low, high = (share, high) if Masks.of(smaller).total <= most else (low, share)
    return low or high


def choose_rates(
    pairs: Pairs,
    build: Build,
    task: Task,
    recipe: Recipe,
    rates: Sequence[float],
    seeds: Sequence[int] = (100, 101, 102),
) -> dict[str, tuple[float, float]]:
    """For each arm of each pair the learning rate with the best mean validation score; of equals the first. Choose
    seeds that are not measured."""
    chosen = {}
    for pair, arms in pairs.items():
        best = []
        for arm in arms:
            scores = {
                rate: statistics.fmean(
                    arm.run(build, task, replace(recipe, learning_rate=rate), seed).levels[-1].validation.score
                    for seed in seeds
                )
                for rate in rates
            }
            best.append(max(rates, key=scores.__getitem__))
        chosen[pair] = (best[0], best[1])
    return chosen


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
    pairs: Pairs,
    build: Build,
    task: Task,
    recipe: Recipe,
    seeds: Sequence[int] = (0, 1, 2),
    split: str = "test",
    rates: Mapping[str, tuple[float, float]] | None = None,
) -> list[Gap]:
    """The gap of each pair; ``rates`` are the arms' learning rates by pair, where they are not the recipe's."""
    gaps = []
    for pair, arms in pairs.items():
        own = (rates or {}).get(pair, (recipe.learning_rate, recipe.learning_rate))
        scores: tuple[list[float], list[float]] = ([], [])
        steps, costs = [0, 0], [0.0, 0.0]
        for seed in seeds:
            for side, arm in enumerate(arms):
                found = arm.run(build, task, replace(recipe, learning_rate=own[side]), seed)
                scores[side].append(task.evaluate(found.model, split).score)
                steps[side] = found.steps
                costs[side] += cost(found, task) / len(seeds)
        gaps.append(Gap(pair, arms[0].name, arms[1].name, scores, (steps[0], steps[1]), own, (costs[0], costs[1])))
    return gaps


COLUMNS = (
    "pair", "one", "other", "one's score", "other's", "gap", "deviation", "claimed", "literature", "steps", "MACs",
)  # fmt: skip


def report(gaps: Iterable[Gap]) -> list[dict[str, Any]]:
    """The gaps as the cells of ``COLUMNS``, and what the literature expects: what a command shows or writes as JSON."""
    rows = []
    for gap in gaps:
        cells = (
            gap.pair, gap.one, gap.other, *map(statistics.fmean, gap.scores), gap.mean, gap.deviation, gap.claimed,
            gap.literature,
            *(one if one == other else f"{one}, {other}" for one, other in (gap.steps, map(round, gap.macs))),
        )  # fmt: skip
        about = {"seeds": len(gap.scores[0]), "rates": gap.rates, "expected": gap.setting.expected}
        rows.append({**dict(zip(COLUMNS, cells, strict=True)), **about})
    return rows
