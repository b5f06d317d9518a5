"""Paper 39, a three-regime model of pruning: whether to train the dense network hotter depends on the density wanted.

A small ResNet with batch norms on 8x8 digits, SGD at .1. Its dense training is cut at four places (few steps = hot; the
schedule divides by ten at half and at three quarters, so that the early cuts are also at the high rate), pruned once by
magnitude to four densities, and retrained twice with the same masks, for five dense seeds. Asked:

- is linear mode connectivity higher at 40 % than at 3 %? (A barrier is negative.)
- there, is it higher for the hottest cut than for the coldest: the move out of regime I?
- is the best cut at 3 % at least as hot as that at 40 %? Half a place of four is allowed, for ties.
- does heat pay more at 3 % than at 40 %: error of the coldest minus error of the hottest network?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from prunus.interval import t_interval
from prunus.reproductions.claim import Claim, Evidence, Finding, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of

DENSITIES, CUTS, RETRAIN = (0.03, 0.05, 0.1, 0.4), (40, 160, 320, 640), 80
A_TIE = -0.5
COLUMNS = ("density", "dense steps", "error", "LMC", "CKA", "regime", "advice", "seeds in regime I")


def measure(trial: Trial) -> Evidence:
    from prunus.sparse import Recipe
    from prunus.sparse.data import digits
    from prunus.sparse.networks import resnet
    from prunus.sparse.regimes import sweep, temperatures
    from prunus.sparse.training import divided_by_ten

    task, seeds = digits(flat=False), seeds_of(trial)
    if part_of(trial) == "test":
        task = replace(task, validation=task.test)  # nothing is chosen here: each place of the plane is looked at
    cuts, densities, again = ((2, 6), (0.03, 0.4), 4) if trial.smoke else (CUTS, DENSITIES, RETRAIN)
    rows: list[Any] = []
    for seed in seeds:
        trial.say(f"seed {seed}: {len(cuts) * len(densities) * 2} retrainings")
        rows += sweep(
            lambda: resnet(8, 1),
            task,
            Recipe.sgd(cuts[-1], 0.1, divided_by_ten),
            temperatures("steps", cuts),
            densities,
            seed=seed,
            retrain=Recipe.sgd(again, 0.1, divided_by_ten),
        )
    settings = {
        "split": trial.split, "data": "digits", "network": "ResNet, width 8, 3 blocks", "seeds": len(seeds),
        "retrainings": 2, "retraining steps": again, "rate": 0.1,
    }  # fmt: skip
    return Evidence(findings_of(rows), settings, table(rows), COLUMNS, {"errors": lambda path: draw(path, rows)})


def findings_of(rows: Sequence[Any]) -> list[Finding]:
    """The three questions; ``rows`` are those of ``regimes.sweep`` for several seeds."""
    low, high = min(row.density for row in rows), max(row.density for row in rows)
    seeds = sorted({row.seed for row in rows})

    def by_seed(density: float, figure: Callable[[list[Any]], float]) -> list[float]:
        """A figure of each seed's rows of a density, which are given hottest first."""
        chosen = [[row for row in rows if (row.seed, row.density) == (seed, density)] for seed in seeds]
        return [figure(sorted(some, key=lambda row: -row.temperature.heat)) for some in chosen]

    def ends(density: float, end: int) -> list[float]:
        return by_seed(density, lambda some: some[end].lmc)

    def compare(name: str, one: float, other: float, figure: Callable[[list[Any]], float], asked: float = 0.0):
        values = by_seed(one, figure), by_seed(other, figure)
        return finding(f"{name} at {one:.0%}", f"at {other:.0%}", *values, asked)

    def heat_of_best(some: list[Any]) -> float:
        """Places from the coldest; of equal errors the mean."""
        least = min(row.error for row in some)
        return fmean(len(some) - 1 - i for i, row in enumerate(some) if row.error == least)

    return [
        compare("LMC", high, low, lambda some: fmean(row.lmc for row in some)),
        finding(f"LMC at {low:.0%}, hottest cut", "coldest cut", ends(low, 0), ends(low, -1)),
        compare("heat of the best cut, in places from the coldest,", low, high, heat_of_best, A_TIE),
        compare("what heat saves, error of the coldest less the hottest,", low, high,
                lambda some: some[-1].error - some[0].error),
    ]  # fmt: skip


def table(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Means over the seeds for each place of the plane, their regime, and what would be advised there."""
    from prunus.sparse.regimes import EPS_LMC, advise, regime

    lines = []
    for density, temperature in dict.fromkeys((row.density, row.temperature) for row in sorted(rows, key=_place)):
        some = [row for row in rows if (row.density, row.temperature) == (density, temperature)]
        error, lmc, cka = (fmean(getattr(row, name) for row in some) for name in ("error", "lmc", "cka"))
        barriers = sum(row.lmc < -EPS_LMC for row in some)
        advice = advise(rows, density, at=temperature)
        cells = (density, int(temperature.value), error, lmc, cka, regime(lmc, cka), advice, barriers)
        lines.append(dict(zip(COLUMNS, cells, strict=True)))
    return lines


def _place(row: Any) -> tuple[float, float]:
    return row.density, row.temperature.value


def draw(path: Path, rows: Sequence[Any]) -> None:
    """Error over the length of the dense training, a curve for each density."""
    from prunus.report.curves import Curve, write_curves

    cuts = sorted({row.temperature.value for row in rows})
    curves = []
    for density in sorted({row.density for row in rows}):
        at = [[row.error for row in rows if _place(row) == (density, cut)] for cut in cuts]
        curves.append(Curve(f"{density:.0%} kept", [t_interval(errors) for errors in at], cuts))
    write_curves(path, curves, "error after retraining", "steps of the dense training: cold to the right")


CLAIM = Claim(
    paper=39,
    title="A Three-regime Model of Network Pruning",
    says="At low density a dense network trained hotter prunes better, at high density one trained colder, and linear "
    "mode connectivity between retrained networks tells which: it is poor at low density.",
    baseline="the other end of the densities; the coldest against the hottest dense training",
    measured="connectivity on training data, and error after retraining, over four densities and four cuts",
    measure=measure,
)
