"""The miniature of paper 52: its findings from given runs, the oracle, and that it runs."""

import pytest

from prunus.generators.written import Written
from prunus.reproductions import self_evaluation
from prunus.reproductions.claim import NOT_HERE, Trial, claim
from prunus.reproductions.self_evaluation import LED, MOST, OURS, Oracle, gain_kept, told_apart, why


def solved(*right, samples=2):
    return [{"right": r, "samples": samples, "tokens": 10, "flops": 100} for r in right]


def test_the_gain_that_is_kept_is_paired_by_problem():
    runs = {"one sample": solved(0, 0, 1, 1), f"best of {MOST}": solved(1, 1, 1, 1), OURS: solved(1, 0, 1, 1)}
    found = gain_kept(runs)
    # Asked: 0.7, 0.7, 1, 1; ours 1, 0, 1, 1: apart by 0.3, -0.7, 0, 0.
    assert found.base.mean == pytest.approx(0.85) and found.difference.mean == pytest.approx(-0.1)
    assert found.reason == "it keeps 50% of the gain; it draws 2.00 samples on average"
    nothing = gain_kept({**runs, f"best of {MOST}": runs["one sample"]})
    assert "16 samples gain nothing" in nothing.reason
    worse = gain_kept({**runs, OURS: solved(0, 0, 0, 0)})
    assert worse.verdict == NOT_HERE


def test_samples_are_told_apart_within_problems():
    # One problem with three of four pairs in order, one with a tie; one whose samples are all right says nothing.
    assert told_apart([[(0.9, 1), (0.4, 1), (0.5, 0), (0.1, 0)], [(0.2, 1), (0.2, 0)], [(0.7, 1)]]) == 0.625
    assert told_apart([]) == 0.5


def test_wrong_samples_that_scatter_about_the_right_ones_are_the_highest_of_many():
    # Right ones at 0.5; wrong ones 0.3 above and below: no pair is better ordered than by lots.
    reason = why([[(0.5, 1.0), (0.5, 1.0), (0.8, 0.0), (0.2, 0.0)], [(0.9, 1.0)]])
    assert reason == (
        "of a right and a wrong sample of one problem it prefers the right one in 50%; right samples lie 0.000 off the "
        "right ones' mean s; wrong samples lie 0.300 off the right ones' mean s"
    )


def test_the_oracle_knows_the_chance_of_a_fresh_sample():
    right, wrong = Written(["1+1=2\n", "answer 2"]), Written(["1+1=3\n", "answer 3"])
    assert Oracle({"1+1=?": 0.25}).score([right, wrong], ["1+1=?"] * 2) == [1.0, 0.75]


def test_the_miniature_runs():
    evidence = self_evaluation.measure(Trial("dev", smoke=True))
    rows = {row["method"]: row for row in evidence.rows}
    assert rows["one sample"]["samples"] == 1 and rows[f"best of {MOST}"]["samples"] == 4
    assert 1 <= rows[OURS]["samples"] <= 4
    assert rows[f"{OURS}, oracle"]["right"] >= rows["one sample"]["right"]
    best = f"best of {MOST}"
    assert [f.ours for f in evidence.findings] == [best, OURS, OURS, f"{best}{LED}", f"{OURS}{LED}"]
    assert "of one problem" in evidence.findings[0].reason
    assert claim("52").measure is self_evaluation.measure
