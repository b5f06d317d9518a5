"""Compare search methods over many prompts at equal total cost. Data in, data out; nothing is printed here.

All intervals are 95 % percentile bootstraps by prompt: prompts are drawn again with replacement, all videos of a prompt
together, with a fixed seed. Differences are paired by prompt and seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.budget import Cost
from prunus.errors import require
from prunus.interval import Interval
from prunus.roles import Generator, Reward, Strategy
from prunus.search import Event, search_many

Judge = Callable[[Any, str], float]


@dataclass(frozen=True)
class Outcome:
    """One chosen video: what the reward that chose it and the judge say of it, what its search cost in all, and which
    branches lead to it."""

    prompt: str
    seed: int
    reward: float | None
    judge: float | None
    cost: Cost
    error: str = ""
    path: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """One method's line of the table. Costs are per video; ``against`` is the difference to the baseline.

    ``gap`` is how much more the reward praises the method's videos than the judge does, each in units of its own
    deviation over all videos compared: what a method gains by pleasing the reward alone shows as a positive gap.
    """

    method: str
    videos: int
    failed: int
    judge: Interval | None
    reward: float
    nfe: float
    flops: float
    seconds: float
    against: Interval | None
    gap: float | None


def run_method(
    prompts: Sequence[str],
    seeds: Sequence[int],
    generator: Generator,
    rewards: Sequence[Reward],
    strategy: Strategy,
    decider: str,
    judge: Judge | None = None,
    *,
    group: int = 16,
    on_event: Callable[[Event], None] | None = None,
) -> list[Outcome]:
    """Search for every prompt with every seed, ``group`` at a time in shared batches. ``decider`` names the reward
    that is reported; all chosen nodes must have its score."""
    jobs = [(prompt, seed) for prompt in prompts for seed in seeds]
    outcomes = []
    for at in range(0, len(jobs), group):
        some = jobs[at : at + group]
        trees = search_many(
            [p for p, _ in some], generator, rewards, strategy, seeds=[s for _, s in some], on_event=on_event
        )
        for tree in trees:
            cost = tree.spent.total
            if tree.result is None:
                outcomes.append(Outcome(tree.prompt, tree.seed, None, None, cost, tree.error or "nothing finished"))
                continue
            verdict = judge(tree.best().output, tree.prompt) if judge else None
            reward, path = tree.best().scores[decider].value, tree.result.path
            outcomes.append(Outcome(tree.prompt, tree.seed, reward, verdict, cost, path=path))
    return outcomes


def equal_cost_n(dearest: float, one: float) -> int:
    """Candidates that best-of-n may have for what the dearest method spends, rounded up, in the baseline's favour."""
    require(one > 0, "cost of one candidate", one, "positive")
    return max(1, math.ceil(dearest / one - 1e-9))


def flops(outcomes: Sequence[Outcome]) -> int:
    return sum(o.cost.flops for o in outcomes)


def run_at_equal_cost(ours: float, one: float, run: Callable[[int], Sequence[Outcome]]) -> int:
    """Run with as many candidates as spend at least ``ours`` FLOPs, and return how many; ``one`` spends a single one.

    n candidates that share a prompt, which is read once, cost less than n times one.
    """
    n = equal_cost_n(ours, one)
    while (spent := flops(run(n))) < ours:
        n = max(n + 1, equal_cost_n(ours, spent / n))
    return n


def bootstrap(groups: Sequence[Sequence[float]], draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of all values and its 95 % interval; whole groups (the values of one prompt) are drawn again."""
    kept = [np.asarray(g, float) for g in groups if len(g)]
    require(len(kept) > 0, "groups", groups, "at least one prompt with a value")
    sums, counts = np.array([g.sum() for g in kept]), np.array([len(g) for g in kept])
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(kept), size=(draws, len(kept)))
    low, high = np.quantile(sums[picks].sum(1) / counts[picks].sum(1), [0.025, 0.975])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def by_prompt(values: Mapping[tuple[str, int], float]) -> list[list[float]]:
    """Values by (prompt, seed) as one list per prompt."""
    groups: dict[str, list[float]] = {}
    for (prompt, _), value in values.items():
        groups.setdefault(prompt, []).append(value)
    return list(groups.values())


def table(outcomes: Mapping[str, Sequence[Outcome]], baseline: str = "best-of-n") -> list[Row]:
    """A row for each method. The judge decides; where there is none, differences are of the reward.

    A failed search counts among the failures and for its cost, not for the means.
    """
    good = {m: [o for o in some if o.reward is not None] for m, some in outcomes.items()}
    judged = all(o.judge is not None for some in good.values() for o in some)
    metric = {m: {(o.prompt, o.seed): _metric(o, judged) for o in some} for m, some in good.items()}
    everything = [o for some in good.values() for o in some]
    rows = []
    for method, some in outcomes.items():
        fine, own, base = good[method], metric[method], metric.get(baseline, {})
        paired = {key: own[key] - base[key] for key in own if key in base}
        costs = [o.cost for o in some]
        rows.append(
            Row(
                method=method,
                videos=len(fine),
                failed=len(some) - len(fine),
                judge=bootstrap(by_prompt(own)) if judged and own else None,
                reward=_mean([o.reward for o in fine]),
                nfe=_mean([c.nfe for c in costs]),
                flops=_mean([c.flops for c in costs]),
                seconds=_mean([c.seconds for c in costs]),
                against=bootstrap(by_prompt(paired)) if paired and method != baseline else None,
                gap=_standing(fine, everything, "reward") - _standing(fine, everything, "judge") if judged else None,
            )
        )
    return rows


def _metric(outcome: Outcome, judged: bool) -> float:
    value = outcome.judge if judged else outcome.reward
    assert value is not None
    return value


def _mean(values: Sequence[Any]) -> float:
    return sum(values) / len(values) if values else math.nan


def _standing(some: Sequence[Outcome], everything: Sequence[Outcome], name: str) -> float:
    """Mean of a figure over some videos, in deviations from its mean over all of them; 0 where none differ."""
    values = np.array([getattr(o, name) for o in everything], float)
    spread = values.std() if len(values) else 0.0
    return float((_mean([getattr(o, name) for o in some]) - values.mean()) / spread) if spread > 1e-12 else 0.0
