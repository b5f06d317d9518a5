"""Paper 01's findings against outcomes that are written by hand."""

import pytest

from prunus import Cost
from prunus.reproductions.claim import HOLDS, NOT_HERE
from prunus.reproductions.comparison import Interval, Outcome
from prunus.reproductions.stream_t1 import compare


def outcomes(*judged):
    return [Outcome(f"prompt {i}", 0, 1.0, judge, Cost(flops=1), path=path) for i, (judge, path) in enumerate(judged)]


def test_a_finding_that_holds_needs_no_reason():
    found = compare({"ours": outcomes((0.9, (0,))), "beam": outcomes((0.5, (0,)))}, "ours", "beam")
    assert found.difference == Interval(*[pytest.approx(0.4)] * 3)
    assert (found.value.mean, found.base.mean, found.verdict, found.reason) == (0.9, 0.5, HOLDS, "")


def test_the_reason_tells_how_alike_the_choices_are():
    ours = outcomes((0.9, (3, 0)), (0.4, (1, 0)), (0.3, (2, 0)))
    beam = outcomes((0.9, (3, 1)), (0.8, (0, 0)), (0.6, (2, 0)))
    found = compare({"ours": ours, "beam": beam}, "ours", "beam")
    assert found.reason.startswith("2 of 3 videos begin with the same first chunk")
    assert "0.150 apart" in found.reason  # |0.9 - 0.9| and |0.3 - 0.6|


def test_no_difference_at_all_is_not_better():
    same = outcomes((0.5, (0,)), (0.6, (1,)))
    assert compare({"ours": same, "beam": same}, "ours", "beam").verdict == NOT_HERE
