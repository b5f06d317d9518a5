"""Seeds for choosing and for reporting, and findings paired by seed."""

import pytest

from prunus.reproductions.claim import HOLDS, INCONCLUSIVE, NOT_HERE, SAME, Trial
from prunus.reproductions.paired import finding, part_of, seeds_of


def test_seeds_and_data_of_choosing_are_not_those_of_the_report():
    report, dev = Trial("report"), Trial("dev")
    assert seeds_of(report) == [0, 1, 2, 3, 4] and part_of(report) == "test"
    assert seeds_of(dev) == [100, 101, 102, 103, 104] and part_of(dev) == "validation"
    assert seeds_of(Trial("dev", seed=7, smoke=True)) == [107, 108]


def test_differences_are_paired_by_seed():
    noisy = [0.1, 0.5, 0.9]
    found = finding("a", "b", [x + 0.02 for x in noisy], noisy, reason="why")
    assert (found.difference.low, found.difference.high) == (pytest.approx(0.02), pytest.approx(0.02))
    assert found.verdict == HOLDS and found.reason == "" and found.value.low < 0 < found.value.high
    assert finding("a", "b", noisy, [x + 0.01 for x in noisy], SAME).verdict == HOLDS
    worse = finding("a", "b", noisy, [x + 0.03 for x in noisy], SAME, "why")
    assert worse.verdict == NOT_HERE and worse.reason == "why"
    assert finding("a", "b", [0.1, 0.3], [0.2, 0.1]).verdict == INCONCLUSIVE
