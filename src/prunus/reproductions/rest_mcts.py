"""Paper 61, ReST-MCTS*, its search: a tree search led by a process reward finds more right answers at the same cost.

Arithmetic problems with 6 and 8 operations, solved by the packaged language model and valued by the packaged process
reward. MCTS* has the paper's settings, at 48 iterations and without the end gate, so that it spends them. Held against
best-of-n with the same reward and the majority of samples (self-consistency), both with at least its FLOPs, the
reward's included; the majority needs no reward, and so has more samples. The row of the gate of 0.9 shows what stopping
early saves and loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prunus.reproductions.claim import Claim, Evidence, Finding, Trial
from prunus.reproductions.comparison import Outcome, flops, run_at_equal_cost, run_method, table
from prunus.reproductions.long_videos import NOTHING
from prunus.roles import Reward, Strategy
from prunus.strategies import BestOfN, Vote
from prunus.strategies.mcts import MCTS
from prunus.worlds import arithmetic

if TYPE_CHECKING:
    from prunus.generators.text import TextGenerator

OPERATIONS, ITERATIONS, OURS = (6, 8), 48, "MCTS*"


def measure(trial: Trial) -> Evidence:
    from prunus import pocket
    from prunus.generators.text import TextGenerator
    from prunus.rewards import StepReward

    return study(trial, TextGenerator.load(pocket.path("lm")), StepReward.load(pocket.path("prm")))


def answer(text: Any) -> str | None:
    return arithmetic.answer(text) if text.whole else None


def study(trial: Trial, generator: TextGenerator, reward: Reward) -> Evidence:
    """The miniature with this generator and value reward."""
    prompts = [p for o in OPERATIONS for p in arithmetic.split(trial.split, o)[: 1 if trial.smoke else None]]
    seeds = range(trial.seed, trial.seed + 1)
    outcomes: dict[str, list[Outcome]] = {}
    strategies: dict[str, Strategy] = {}

    def judged(text: Any, prompt: str) -> float:
        return arithmetic.judge(text, prompt).value if answer(text) is not None else 0.0

    def run(name: str, strategy: Strategy, by: Reward = reward) -> list[Outcome]:
        trial.say(f"{name}: {len(prompts)} problems")
        strategies[name] = strategy
        outcomes[name] = run_method(prompts, seeds, generator, [by], strategy, by.name, judged)
        return outcomes[name]

    run("one sample", BestOfN(1))
    run("one sample, not scored", BestOfN(1), NOTHING)
    run(OURS, MCTS(ITERATIONS, gate=None))
    run(f"{OURS}, gate 0.9", MCTS(ITERATIONS))
    ours, one, free = (flops(outcomes[name]) for name in (OURS, "one sample", "one sample, not scored"))
    n = run_at_equal_cost(ours, one, lambda n: run("best-of-n", BestOfN(n)))
    votes = run_at_equal_cost(ours, free, lambda n: run("majority", Vote(BestOfN(n), answer=answer), NOTHING))
    findings = [difference(outcomes, baseline) for baseline in ("best-of-n", "majority")]
    settings = {
        "split": trial.split, "model": "lm", "operations": "6 and 8", "prompts": len(prompts), "n": n, "votes": votes,
        "iterations": ITERATIONS, "strategies": {name: strategy.spec() for name, strategy in strategies.items()},
    }  # fmt: skip
    rows = [
        {**asdict(row), "right": row.judge.mean if row.judge else None, "tokens": _tokens(outcomes[row.method])}
        for row in table(outcomes)
    ]
    return Evidence(findings, settings, rows, ("method", "right", "tokens", "flops"))


def difference(outcomes: dict[str, list[Outcome]], baseline: str) -> Finding:
    """The difference in right answers, and, where ours is not better, how often both agree."""
    rows = {row.method: row for row in table(outcomes, baseline)}
    value, base, apart = rows[OURS].judge, rows[baseline].judge, rows[OURS].against
    assert value and base and apart
    pairs = list(zip(outcomes[OURS], outcomes[baseline], strict=True))
    alike = sum(a.judge == b.judge for a, b in pairs)
    reason = "" if apart.low > 0 else f"both are right or both are wrong in {alike} of {len(pairs)} problems"
    return Finding(OURS, baseline, value, base, apart, reason=reason)


def _tokens(some: Sequence[Outcome]) -> float:
    return sum(o.cost.tokens for o in some) / len(some)


CLAIM = Claim(
    paper=61,
    title="ReST-MCTS*: LLM Self-Training via Process Reward Guided Tree Search",
    says="At the same cost a tree search led by a process reward finds more right answers than the best of many "
    "samples by the same reward and than their majority.",
    baseline="best-of-n and majority votes, each with at least its FLOPs, the reward's included",
    measured="right answers of the packaged language model on problems with 6 and 8 operations",
    measure=measure,
)
