"""The verdict follows from the interval alone, by the rule that is stated."""

import importlib

import pytest

from prunus.errors import SettingError
from prunus.reproductions.claim import HOLDS, INCONCLUSIVE, NOT_HERE, PAPERS, SAME, Evidence, Finding, Trial, claim
from prunus.reproductions.comparison import Interval

ANY = Interval(0.5, 0.4, 0.6)


def finding(low, high, more_than=0.0):
    return Finding("ours", "theirs", ANY, ANY, Interval((low + high) / 2, low, high), more_than)


@pytest.mark.parametrize(
    "low, high, more_than, verdict",
    [
        (0.01, 0.03, 0.0, HOLDS),
        (0.0, 0.03, 0.0, INCONCLUSIVE),  # no difference is still possible
        (-0.01, 0.03, 0.0, INCONCLUSIVE),
        (-0.03, -0.01, 0.0, NOT_HERE),
        (0.0, 0.0, 0.0, NOT_HERE),  # exactly alike is not better
        (0.02, 0.04, 0.05, NOT_HERE),  # better, but by less than was claimed
        (0.02, 0.08, 0.05, INCONCLUSIVE),
        (0.06, 0.08, 0.05, HOLDS),
        (-0.019, 0.01, SAME, HOLDS),
        (-0.021, 0.01, SAME, INCONCLUSIVE),
        (-0.05, -0.03, SAME, NOT_HERE),
    ],
)
def test_the_verdict_rule(low, high, more_than, verdict):
    assert finding(low, high, more_than).verdict == verdict


def test_a_claim_is_as_good_as_its_worst_finding():
    good, open_, bad = finding(0.1, 0.2), finding(-0.1, 0.2), finding(-0.2, -0.1)
    assert Evidence([good], {}).verdict == HOLDS
    assert Evidence([good, open_], {}).verdict == INCONCLUSIVE
    assert Evidence([open_, bad, good], {}).verdict == NOT_HERE
    with pytest.raises(SettingError, match="findings"):
        Evidence([], {})


@pytest.mark.parametrize("number", PAPERS)
def test_every_listed_paper_has_its_claim(number):
    assert claim(f"{number:02d}") is claim(str(number)) is importlib.import_module(PAPERS[number]).CLAIM
    assert claim(str(number)).paper == number and claim(str(number)).says.endswith(".")


@pytest.mark.parametrize("number", ["99", "one", "", "-1", "\u00b2"])
def test_an_unknown_number_says_which_exist(number):
    with pytest.raises(SettingError, match="there are 01"):
        claim(number)


def test_a_trial_is_checked():
    with pytest.raises(SettingError, match="split"):
        Trial(split="train")
    with pytest.raises(SettingError, match="seed"):
        Trial(seed=-1)
