"""Choosing tau against the numbers of paper card 41 and simulations of its model."""

import numpy as np
import pytest

from prunus.strategies.choosing_tau import (
    best_kept,
    choose_tau,
    choose_tau_by_best,
    correlation,
    expected_cost,
    rejection_bound,
    tau_for,
)


def test_the_cards_costs():
    assert expected_cost(16, 4, 128, 32) == (896, 2048)
    ratios = [full / early for early, full in (expected_cost(16, 4, 256, tau) for tau in (32, 64, 128))]
    assert ratios == pytest.approx([2.909, 2.286, 1.6], abs=5e-4)
    assert expected_cost(16, 4, 128, 32, scoring=10) == (896 + 16 * 10 + 4 * 10, 2048 + 160)


def test_the_cards_tau_and_bound():
    assert tau_for(0.9, 128) == 104
    assert rejection_bound(16, 2, 0.5) == pytest.approx(0.274735, abs=1e-6)
    assert rejection_bound(64, 3, 0.5) == pytest.approx(0.007775, abs=1e-6)


def simulated(length, tau, groups, size=16, seed=0):
    """Steps whose tokens contribute independent normal scores: the card's model."""
    tokens = np.random.default_rng(seed).normal(size=(groups, size, length))
    partials, finals = tokens[..., :tau].sum(-1), tokens.sum(-1)
    return [list(zip(p.tolist(), f.tolist(), strict=True)) for p, f in zip(partials, finals, strict=True)]


@pytest.mark.parametrize(("tau", "theory"), [(8, 0.25), (32, 0.5), (64, 0.7071)])
def test_the_correlation_of_independent_tokens_is_the_square_root_of_tau_over_length(tau, theory):
    assert correlation(simulated(128, tau, 1250)) == pytest.approx(theory, abs=0.02)  # 20 000 candidates


@pytest.mark.parametrize(("tau", "lost"), [(4, 0.594), (8, 0.515), (16, 0.402), (32, 0.224)])
def test_the_best_is_often_lost_although_quality_falls_mildly(tau, lost):
    assert 1 - best_kept(simulated(64, tau, 4000), 1 / 4) == pytest.approx(lost, abs=0.025)  # three deviations


def test_the_correlation_is_within_groups():
    within = [[(0.0, 1.0), (1.0, 0.0)], [(10.0, 11.0), (11.0, 10.0)]]
    assert correlation(within) == pytest.approx(-1)  # all together it would be 0.96
    assert correlation([[(0.5, 0.0), (0.5, 1.0)]]) == 0.0


def test_ties_count_by_their_chance():
    useless = [(0.5, 0.9), (0.5, 0.1), (0.5, 0.2), (0.5, 0.3)]
    assert best_kept([useless], 1 / 4) == pytest.approx(1 / 4)
    assert best_kept([useless], 1 / 2) == pytest.approx(1 / 2)
    assert best_kept([[(0.9, 0.1), (0.5, 0.9), (0.5, 0.9), (0.5, 0.2)]], 1 / 2) == pytest.approx(2 / 3)
    assert best_kept([[(0.9, 0.9), (0.1, 0.5)]], 1 / 2) == 1


def test_tau_is_the_smallest_that_is_good_enough():
    pairs = {tau: simulated(64, tau, 400) for tau in (32, 8, 48, 16)}
    assert choose_tau(pairs, 0.6) == 32  # 0.707; at 16 it is 0.5
    assert choose_tau(pairs, 0.95) is None
    assert choose_tau_by_best(pairs, 1 / 4, delta=0.3) == 32  # lost: 0.224
    assert choose_tau_by_best(pairs, 1 / 4, delta=0.01) is None
