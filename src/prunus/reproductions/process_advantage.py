"""Paper 24, process advantage verifiers: a beam that also rewards progress under a prover finds more right answers.

The paper's string task, where every policy's success is known exactly. The base policy has strength 5. Verifiers are
learned in the paper: here they know what so many Monte Carlo rollouts of each beginning tell. Two provers are tried:

- the best of 4 samples of the base, the paper's choice in search, which needs no verifier of its own: 20 rollouts, 4
  strings kept, 3 children each, against a beam of the same size with the same verifier;
- a policy of strength 50 (chosen on the dev split): 20 rollouts of it and 20 of the base, against a beam with 40
  rollouts of the base that keeps 6 strings: a node that is scored only once leaves the cost for that.

A token costs as much as a score. Best-of-n has at least the cost of the dearest search; finished strings are right or
wrong, which every verifier knows. The rows also show provers of other strengths, a beam by the prover's success alone,
and verifiers that are exact.

On the dev split the beam by the prover's success alone, with 40 rollouts, did best of all (0.71 right against 0.52 with
the process advantage): what helps here is that few rollouts tell a strong prover's chances apart, not the difference
between them. With exact verifiers progress adds nothing, as the base's own chance then ranks the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from prunus.reproductions.claim import Claim, Evidence, Finding, Trial
from prunus.reproductions.comparison import Outcome, equal_cost_n, run_method, table
from prunus.roles import Strategy

BASE, PROVER, OTHERS, ROLLOUTS = 5.0, 50.0, (1.5, 10.0, 1000.0), 20


def measure(trial: Trial) -> Evidence:
    from prunus.strategies import Beam, BestOfN
    from prunus.strategies.process_advantage import ProcessAdvantage
    from prunus.worlds.strings import StringPolicy, StringValue, judge, split

    prompts, seeds = split(trial.split, 100), range(trial.seed, trial.seed + 4)
    if trial.smoke:
        prompts, seeds = prompts[:2], seeds[:1]
    strategies: dict[str, Strategy] = {}
    outcomes: dict[str, list[Outcome]] = {}

    def run(name: str, strategy: Strategy, rewards: Sequence[StringValue]) -> None:
        trial.say(f"{name}: {len(prompts) * len(seeds)} strings")
        strategies[name] = strategy
        outcomes[name] = run_method(prompts, seeds, StringPolicy(BASE), rewards, strategy, "base", judge, group=100)

    run("plain", BestOfN(n=1, reward="base"), [StringValue(BASE, name="base")])
    for known, rollouts in (("", ROLLOUTS), (", exact", None)):
        base, twice = StringValue(BASE, rollouts, "base"), rollouts and 2 * rollouts
        run(f"beam 4x3{known}", Beam(4, 3, reward="base"), [base])
        run(f"beam 6x3{known}", Beam(6, 3, reward="base"), [StringValue(BASE, twice, "base")])
        run(f"best-of-4 prover{known}", ProcessAdvantage(reward="base"), [base])
        for gamma in (PROVER, *(OTHERS if rollouts else ())):
            pav, prover = ProcessAdvantage(reward="base", prover="prover"), StringValue(gamma, rollouts, "prover")
            run(f"prover {gamma:g}{known}", pav, [base, prover])
    run(f"prover {PROVER:g} alone", Beam(6, 3, reward="base"), [StringValue(PROVER, 2 * ROLLOUTS, "base")])
    cost = {name: sum(o.cost.flops for o in some) for name, some in outcomes.items()}
    n = equal_cost_n(max(cost.values()), cost["plain"])
    run("best-of-n", BestOfN(n=n, reward="base"), [StringValue(BASE, name="base")])

    against = {"best-of-4 prover": "beam 4x3", f"prover {PROVER:g}": "beam 6x3"}
    findings = [compare(outcomes, ours, b) for ours, beam in against.items() for b in ("best-of-n", beam)]
    settings = {
        "split": trial.split, "prompts": len(prompts), "seeds": len(seeds), "n": n,
        "strategies": {name: strategy.spec() for name, strategy in strategies.items()},
    }  # fmt: skip
    return Evidence(findings, settings, [asdict(row) for row in table(outcomes)])


def compare(outcomes: dict[str, list[Outcome]], ours: str, baseline: str) -> Finding:
    """The difference in the share of right strings; and, where the search is no better, how often both agree."""
    rows = {row.method: row for row in table(outcomes, baseline)}
    value, base, difference = rows[ours].judge, rows[baseline].judge, rows[ours].against
    assert value and base and difference
    pairs = list(zip(outcomes[ours], outcomes[baseline], strict=True))
    alike = sum(a.judge == b.judge for a, b in pairs)
    reason = "" if difference.low > 0 else f"both are right or both are wrong in {alike} of {len(pairs)} strings"
    if reason and "best-of-4" in ours:
        reason += "; this prover's success is a function of the base's, and tells nothing that the base's does not"
    return Finding(ours, baseline, value, base, difference, reason=reason)


CLAIM = Claim(
    paper=24,
    title="Rewarding Progress: Scaling Automated Process Verifiers for LLM Reasoning",
    says="A beam that ranks steps by the base policy's success plus the progress under a prover finds more right "
    "answers than best-of-n and than a beam that ranks them by the base policy's success alone.",
    baseline="best-of-n and a beam by the base policy's success",
    measured="share of right strings in the string task; equal cost, tokens and scores",
    measure=measure,
)
