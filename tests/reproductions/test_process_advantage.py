"""Paper 24's miniature runs, and tells why a prover does not help."""

from prunus import Cost
from prunus.reproductions.claim import INCONCLUSIVE, Trial
from prunus.reproductions.comparison import Outcome
from prunus.reproductions.process_advantage import compare, measure


def outcomes(*judged):
    return [Outcome(f"prompt {i}", 0, 1.0, judge, Cost(flops=1)) for i, judge in enumerate(judged)]


def test_the_miniature_runs():
    evidence = measure(Trial("dev", smoke=True))
    assert [(f.ours, f.baseline) for f in evidence.findings] == [
        ("best-of-4 prover", "best-of-n"),
        ("best-of-4 prover", "beam 4x3"),
        ("prover 50", "best-of-n"),
        ("prover 50", "beam 6x3"),
    ]
    cost = {row["method"]: row["flops"] for row in evidence.rows}
    assert cost["best-of-n"] >= max(cost.values()) * 0.9  # it may end strings early; on average it has at least as much


def test_a_prover_that_adds_nothing_is_told():
    found = compare({"best-of-4 prover": outcomes(1, 0, 1), "beam": outcomes(1, 1, 0)}, "best-of-4 prover", "beam")
    assert found.verdict == INCONCLUSIVE
    assert (
        found.reason.startswith("both are right or both are wrong in 1 of 3")
        and "function of the base's" in found.reason
    )
    assert compare({"prover 50": outcomes(1, 1), "beam": outcomes(0, 0)}, "prover 50", "beam").reason == ""
