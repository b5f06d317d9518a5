"""Intervals and tables against values that can be worked out by hand."""

import math

import pytest

from prunus import Cost
from prunus.errors import SettingError
from prunus.reproductions.comparison import Interval, Outcome, bootstrap, equal_cost_n, run_at_equal_cost, table


def outcome(prompt, judge, reward=0.0, seed=0, flops=10):
    return Outcome(prompt, seed, reward, judge, Cost(nfe=flops, flops=flops, seconds=1.0))


def test_values_that_do_not_differ_have_no_interval():
    assert bootstrap([[0.5, 0.5], [0.5]]) == Interval(0.5, 0.5, 0.5)


def test_one_prompt_cannot_tell_its_spread():
    assert bootstrap([[0.0, 1.0]]) == Interval(0.5, 0.5, 0.5)


def test_the_interval_of_a_coin():
    """100 prompts, half 0 and half 1: the mean of a draw is binomial, 0.5 +- 1.96 * 0.05."""
    interval = bootstrap([[float(i % 2)] for i in range(100)])
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.402, abs=0.011) and interval.high == pytest.approx(0.598, abs=0.011)


def test_prompts_are_drawn_whole():
    """Ten videos of a prompt that are all alike are no more evidence than one."""
    alone = bootstrap([[float(i % 2)] for i in range(40)])
    repeated = bootstrap([[float(i % 2)] * 10 for i in range(40)])
    assert repeated == alone
    split = bootstrap([[float(i % 2)] for i in range(400)])
    assert split.high - split.low < 0.5 * (repeated.high - repeated.low)


def test_uneven_prompts_count_by_their_videos():
    assert bootstrap([[1.0, 1.0, 1.0], [0.0]]).mean == 0.75


def test_the_seed_is_fixed():
    values = [[0.1], [0.7], [0.4]]
    assert bootstrap(values) == bootstrap(values) and bootstrap(values, seed=1).mean == bootstrap(values).mean


def test_nothing_to_draw_from():
    with pytest.raises(SettingError, match="groups"):
        bootstrap([])


@pytest.mark.parametrize("dearest, n", [(40, 4), (41, 5), (39, 4), (3, 1)])
def test_equal_cost_rounds_in_the_baselines_favour(dearest, n):
    assert equal_cost_n(dearest, 10) == n


def test_equal_cost_needs_a_price():
    with pytest.raises(SettingError, match="positive"):
        equal_cost_n(40, 0)


def test_the_table():
    outcomes = {
        "best-of-n": [outcome("a", 0.2, 1.0), outcome("b", 0.4, 1.0)],
        "beam": [outcome("a", 0.5, 3.0, flops=20), outcome("b", 0.7, 3.0, flops=30)],
    }
    base, beam = table(outcomes)
    assert base.against is None and base.judge.mean == pytest.approx(0.3)
    assert beam.against == Interval(pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))
    assert (beam.flops, beam.nfe, beam.reward, beam.videos) == (25, 25, 3.0, 2)
    # reward: mean 2, deviation 1. judge: mean 0.45, deviation sqrt(0.0325). beam stands 1 and 0.15 / 0.18028 above.
    assert beam.gap == pytest.approx(1 - 0.15 / math.sqrt(0.0325))
    assert base.gap == pytest.approx(-beam.gap)


def test_differences_are_paired_and_failures_counted():
    failed = Outcome("b", 0, None, None, Cost(flops=10), "reward 'x' gave nan")
    outcomes = {"best-of-n": [outcome("a", 0.2), outcome("b", 0.9)], "beam": [outcome("a", 0.5), failed]}
    beam = table(outcomes)[1]
    assert beam.against.mean == pytest.approx(0.3) and (beam.videos, beam.failed) == (1, 1)
    assert beam.flops == 10


def test_without_a_judge_the_reward_is_compared():
    outcomes = {"best-of-n": [outcome("a", None, 1.0)], "beam": [outcome("a", None, 1.5)]}
    beam = table(outcomes)[1]
    assert beam.judge is None and beam.gap is None and beam.against.mean == 0.5


def test_candidates_that_share_a_prompt_are_cheaper_and_get_more():
    """One spends 10, of which 6 are the prompt's: 5 cost 26, not 50, and as much as 41 is spent by 9 of them."""
    tried = []

    def run(n):
        tried.append(n)
        return [outcome("a", 1.0, flops=6 + 4 * n)]

    assert run_at_equal_cost(41, 10, run) == 9 and tried == [5, 8, 9]
    assert run_at_equal_cost(10, 10, run) == 1
