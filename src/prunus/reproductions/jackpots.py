"""Paper 42, lottery jackpots: frozen pre-trained weights hold sparse networks that are nearly as good as the dense one.

64-300-100-10 on 8x8 digits, trained for 1000 steps and then frozen; 5 % of the weights kept, as in the paper, and 2 %,
the classifier dense (at 10 % all searches end where the dense network does). Masks are searched for 400 steps, or for
100, from the magnitude mask or from random ones with the same counts, with the short restriction and without. Beside
them the magnitude mask as it is, and with as many steps of ordinary fine-tuning, which changes the weights: the point
of a jackpot is that several masks can share one set of weights. At 5 % also random pruning, and the architecture from
fresh weights.

That a magnitude start makes the search three times as short is asked as: 100 steps from it are as good as 300 from
random masks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunus.reproductions.claim import SAME, Claim, Evidence, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of

if TYPE_CHECKING:
    from prunus.sparse.methods import Sparsified
    from prunus.sparse.table import Arm

DENSITIES = (0.05, 0.02)
DENSE, LONG, SHORT = 1000, 400, 100
TIMES = 3
CLASSIFIER = ("4.*",)
NONE, TUNED, OURS, FREE = "magnitude mask", "magnitude one-shot", "jackpot", "jackpot, no restriction"
QUICK, RANDOM_QUICK, RANDOM_TIMES = "jackpot, short search", "random start, short search", "random start, 3 x short"
REASONS = {
    FREE: "both make most of their swaps in the first quarter of the search, of which the restriction lets most pass",
    TUNED: "fine-tuning moves the kept weights as well",
}


def measure(trial: Trial) -> Evidence:
    from prunus.sparse import Recipe
    from prunus.sparse.data import digits
    from prunus.sparse.networks import mlp
    from prunus.sparse.table import COLUMNS, rows, run_arms

    def build() -> Any:
        return mlp(64, 300, 100, 10)

    task, part, seeds = digits(), part_of(trial), seeds_of(trial)
    dense, long, short = (20, 8, 4) if trial.smoke else (DENSE, LONG, SHORT)
    findings, table = [], []
    for density in DENSITIES:
        first = density == DENSITIES[0]

        def keep(name: str, seed: int, found: Sparsified, density: float = density) -> None:
            trial.say(f"seed {seed}, {density:.0%} kept: {name}")

        some = arms(density, dense, long, short, first)
        recipe = Recipe(dense + long)
        lines = run_arms(some, build, task, recipe, seeds, scratch=OURS if first else None, keep=keep)
        if part == "validation":
            for line in lines.values():
                line.test = line.validation  # while settings are chosen nothing is made of the test scores
        for ours, baseline, more_than in (
            (OURS, NONE, 0.0),
            *([(OURS, "dense", SAME)] if first else []),  # of 2 % the paper says nothing
            (OURS, TUNED, SAME),
            (OURS, FREE, 0.0),
            (QUICK, RANDOM_QUICK, 0.0),
            (QUICK, RANDOM_TIMES, SAME),
        ):
            scores = lines[ours].test, lines[baseline].test
            findings.append(
                finding(f"{ours}, {density:.0%} kept", baseline, *scores, more_than, REASONS.get(baseline, ""))
            )
        table += [{"kept": f"{density:.0%}", **row} for row in rows(lines)]
    settings = {
        "split": trial.split, "data": "digits", "network": "64-300-100-10", "seeds": len(seeds), "dense steps": dense,
        "search steps": long, "short search": short,
    }  # fmt: skip
    return Evidence(findings, settings, table, ("kept", *COLUMNS))


def arms(density: float, dense: int, long: int, short: int, random_too: bool) -> list[Arm]:
    """All from the same dense weights; those that search or fine-tune for long have equal gradient steps."""
    from prunus.sparse.allocation import Uniform
    from prunus.sparse.importance import Random
    from prunus.sparse.methods import Jackpots, OneShot
    from prunus.sparse.table import Arm, Dense
    from prunus.sparse.task import mixed_seed

    shot = OneShot(density, pretrain=dense, finetune_steps=long, finetune_rate=1.0, exclude=CLASSIFIER)
    ours = Jackpots(density, pretrain=dense, search_steps=long, exclude=CLASSIFIER)
    quick = replace(ours, search_steps=short)

    def at_random(seed: int) -> OneShot:
        return replace(shot, importance=Random(mixed_seed(seed, 3)), allocation=Uniform())

    return [
        Arm("dense", Dense()),
        *([Arm("random", at_random)] if random_too else []),
        Arm(NONE, replace(shot, retrain="none")),
        Arm(TUNED, shot),
        Arm(OURS, ours),
        Arm(FREE, replace(ours, restrict=None)),
        Arm("random start", replace(ours, init="random")),
        Arm(QUICK, quick),
        Arm(RANDOM_QUICK, replace(quick, init="random")),
        Arm(RANDOM_TIMES, replace(quick, init="random", search_steps=TIMES * short)),
    ]


CLAIM = Claim(
    paper=42,
    title="Lottery Jackpots Exist in Pre-trained Models",
    says="Masks that are searched on frozen pre-trained weights give sparse networks nearly as good as the dense one; "
    "the magnitude mask as a start makes the search three times as short, and restricting the swaps helps.",
    baseline="the magnitude mask as it is and fine-tuned, random starts, the search without restriction, dense",
    measured="test accuracy on digits with 5 and 2 % of the weights, after 400 and 100 steps of search",
    measure=measure,
)
