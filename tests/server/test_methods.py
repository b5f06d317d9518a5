"""Names of strategies: what they make, how much they take, and what of them is offered."""

import pytest

from prunus.errors import SettingError
from prunus.server.methods import METHODS, offered, parse, vote
from prunus.strategies import REBASE, Beam, BestOfN, Vote


@pytest.mark.parametrize("name", METHODS)
def test_each_method_can_be_made_with_and_without_numbers(name):
    """With numbers as its name has them; the reward is the one that it reads."""
    numbers = "x".join(["3"] * len(METHODS[name].settings))
    for choice in (parse(name), parse(f"{name}-{numbers}")):
        strategy = choice.strategy("mine")
        inner = strategy.inner if isinstance(strategy, Vote) else strategy
        assert inner.reward == "mine" and all(n >= 1 for n in choice.candidates)


def test_numbers_are_those_of_the_name():
    assert parse("beam-4x2").strategy("r") == Beam(keep=4, branch=2, reward="r")
    assert parse("best-of-8").strategy("r") == BestOfN(n=8, reward="r")
    assert parse("rebase-16").strategy("r") == REBASE(n=16, reward="r")
    assert parse("majority-5").strategy("r").inner == BestOfN(n=5, reward="r")
    assert parse("beam-4x2").candidates == (8, 8) and parse("best-of-8").candidates == (8, 8)
    assert parse("lookahead-4x2").candidates == (8, 16)
    assert parse("beam-4").name == "beam-4x2" and parse("majority").name == "majority-8"


@pytest.mark.parametrize(
    "name", ["", "beam-", "beam-4x", "beam-0x1", "beam-1x2x3", "beam4x4", "best-of-99999", "x", "beam\n"]
)
def test_names_that_mean_nothing(name):
    with pytest.raises(SettingError):
        parse(name)


def test_what_is_listed_with_numbers_is_offered_with_these_alone():
    listed = ("beam-4x4", "best-of")
    assert offered("beam-4x4", {}, listed).numbers == {"keep": 4, "branch": 4}
    assert offered("best-of-7", {}, listed).numbers == offered("best-of", {"n": 7}, listed).numbers == {"n": 7}
    for name, numbers in (
        ("beam", {}),
        ("beam-2x2", {}),
        ("beam-4x4", {"keep": 2}),
        ("majority", {}),
        ("best-of", {"keep": 1}),
    ):
        with pytest.raises(SettingError):
            offered(name, numbers, listed)


def test_votes_are_for_answers_however_they_are_written():
    assert vote("2+3=5\nanswer 5") == vote("so it is 5.0") == vote("answer 10/2") == "5"
    assert vote("answer x + 1") == vote("answer x  +  1") != vote("answer x+2")
    assert vote("nothing here") is None
