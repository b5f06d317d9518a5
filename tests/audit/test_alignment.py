"""Best-of-N and the KL-constrained optimum: the worked examples of the source, and slow obvious implementations."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from prunus.audit import (
    best_of_n,
    best_of_n_kl_bound,
    cumulant_function,
    distance_to_frontier,
    frontier,
    mean_reward,
    memoryless,
    n_for_kl,
    optimum,
    rate_function,
    relative_entropy,
    renyi_cross_entropy,
    tilt,
)
from prunus.errors import SettingError

P, R = np.log([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 2.0])
COIN, HEADS = np.log([0.5, 0.5]), np.array([0.0, 1.0])


def near(value, digits):
    return pytest.approx(value, abs=0.51 * 10**-digits)


def test_the_tilt():
    log_phi = tilt(P, R, 1.0)
    assert np.exp(log_phi) == near([0.179000, 0.291944, 0.529056], 6)
    assert math.exp(cumulant_function(P, R, 1.0)) == near(2.793296, 6)
    assert mean_reward(log_phi, R) == near(1.350056, 6)
    assert relative_entropy(log_phi, P) == near(0.322834, 6)
    assert tilt(P, R, 0.0) == pytest.approx(P)


TABLE = [
    (2, [0.25, 0.39, 0.36], 1.11, 0.140638, 0.193147, 0.64791, 1.127918, 0.011609),
    (3, [0.125, 0.387, 0.488], 1.363, 0.360555, 0.431946, 1.06353, 1.386622, 0.025123),
    (4, [0.0625, 0.3471, 0.5904], 1.5279, 0.559751, 0.636294, 1.3844, 1.550165, 0.030824),
]


@pytest.mark.parametrize("n, q, reward, kl, bound, strength, best, kl_to_optimum", TABLE)
def test_best_of_n_beside_the_optimum(n, q, reward, kl, bound, strength, best, kl_to_optimum):
    log_q = best_of_n(P, R, n)
    assert np.exp(log_q) == pytest.approx(q, abs=1e-12)
    assert best_of_n_kl_bound(n) == near(bound, 6)
    distance = distance_to_frontier(log_q, P, R)
    assert distance.kl == near(kl, 6) and distance.reward == pytest.approx(reward, abs=1e-12)
    assert distance.best_reward == near(best, 6) and distance.gap == distance.best_reward - distance.reward
    assert distance.kl_to_optimum == near(kl_to_optimum, 6)
    found = optimum(P, R, distance.kl)
    assert found.strength == near(strength, 4) and found.kl == pytest.approx(distance.kl, abs=1e-14)
    assert distance.kl_to_optimum == pytest.approx(found.strength * distance.gap, abs=1e-12)  # the identity at equal KL


@pytest.mark.parametrize("n, kl, bound", [(2, 0.173980, 0.193147), (4, 0.590310, 0.636294), (8, 1.044364, 1.204442)])
def test_best_of_four_equally_likely_outcomes(n, kl, bound):
    reference = np.log(np.full(4, 0.25))
    log_q = best_of_n(reference, [3.0, 1.0, 2.0, 0.0], n)  # in any order
    ranks = np.array([3, 1, 2, 0])
    assert np.exp(log_q) == pytest.approx(((ranks + 1) ** n - ranks**n) / 4.0**n)
    assert relative_entropy(log_q, reference) == near(kl, 6) and best_of_n_kl_bound(n) == near(bound, 6)
    tied = best_of_n(reference, np.ones(4), n)
    assert tied == pytest.approx(reference) and relative_entropy(tied, reference) == pytest.approx(0, abs=1e-15)


def enumerated(p, r, n):
    """Every draw of n outcomes, one by one; ties are shared. Exact."""
    q = [Fraction(0)] * len(p)
    for drawn in itertools.product(range(len(p)), repeat=n):
        best = [i for i in drawn if r[i] == max(r[j] for j in drawn)]
        for i in best:
            q[i] += math.prod((p[j] for j in drawn), start=Fraction(1)) / len(best)
    return [float(x) for x in q]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_ties_are_drawn(n):
    p, r = [Fraction(i, 10) for i in (1, 4, 2, 3)], [2.0, 0.5, 2.0, 0.5]
    assert np.exp(best_of_n(np.log(np.array(p, float)), r, n)) == pytest.approx(enumerated(p, r, n), abs=1e-14)


def test_prompts_come_in_batches():
    log_p, reward = np.log([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]), np.array([[0.0, 1, 2], [1.0, 1, 0]])
    log_q, found, kls = best_of_n(log_p, reward, 3), optimum(log_p, reward, 0.1), [0.1, 0.3]
    for i in range(2):
        assert log_q[i] == pytest.approx(best_of_n(log_p[i], reward[i], 3))
        assert found.strength[i] == pytest.approx(optimum(log_p[i], reward[i], 0.1).strength)
        assert optimum(log_p, reward, kls).strength[i] == pytest.approx(optimum(log_p[i], reward[i], kls[i]).strength)
    kl, got = frontier(log_p, reward, [0.0, 1.0, 2.0])
    assert kl.shape == got.shape == (3, 2) and (np.diff(kl, axis=0) > 0).all() and (np.diff(got, axis=0) > 0).all()


def test_saturation():
    most = -math.log(0.2)
    found = optimum(P, R, [0.0, most - 1e-6, most, 5.0, math.inf])
    assert found.saturated.tolist() == [False, False, True, True, True]
    assert found.strength[0] == 0 and 5 < found.strength[1] < 30 and found.strength[2:].tolist() == [math.inf] * 3
    assert found.kl == pytest.approx([0, most - 1e-6, most, most, most], abs=1e-12)
    assert np.exp(found.log_probabilities[2]).tolist() == [0, 0, 1]
    two = optimum(np.log([0.5, 0.3, 0.2]), [1.0, 0.0, 1.0], 5.0)  # several best ones: the reference among them
    assert np.exp(two.log_probabilities) == pytest.approx([5 / 7, 0, 2 / 7])


def test_a_constant_reward_is_told():
    found = optimum(P, np.full(3, 7.0), 0.3)
    assert found.constant and not found.saturated and found.strength == found.kl == 0 and found.reward == 7
    assert not optimum(P, R, 0.3).constant


def test_a_tiny_kl_is_reached():
    """KL = lambda^2 Var / 2 at first; Var = .61."""
    assert optimum(P, R, 1e-12).strength == pytest.approx(math.sqrt(2e-12 / 0.61), rel=1e-4)


def test_an_affine_reward_changes_lambda_alone():
    one, other = optimum(P, R, 0.2), optimum(P, 5 * R - 100, 0.2)
    assert other.log_probabilities == pytest.approx(one.log_probabilities) and other.strength * 5 == near(
        one.strength, 9
    )
    assert best_of_n(P, np.exp(R), 4) == pytest.approx(best_of_n(P, R, 4))  # best-of-N sees ranks alone
    assert np.abs(optimum(P, np.exp(R), 0.2).log_probabilities - one.log_probabilities).max() > 0.01


def test_impossible_outcomes_do_not_matter():
    log_p, reward = np.log([0.5, 0.5, 1e-300]), np.array([0.0, 1.0, math.nan])
    log_p[2] = -math.inf
    for log_q in (tilt(log_p, reward, 2.0), best_of_n(log_p, reward, 3), optimum(log_p, reward, 0.1).log_probabilities):
        assert log_q[2] == -math.inf and mean_reward(log_q, reward) > 0.5
    assert np.exp(best_of_n(log_p, reward, 3)[:2]) == pytest.approx([1 / 8, 7 / 8])
    assert relative_entropy(np.log([0.5, 0.25, 0.25]), log_p) == math.inf


def test_a_policy_that_is_the_reference_is_at_no_distance():
    draw = np.random.default_rng(0)
    for _ in range(200):
        log_p = np.log(draw.dirichlet(np.ones(50)))
        same = log_p + draw.normal(size=50) * 1e-16
        distance = distance_to_frontier(same, log_p, draw.normal(size=50))
        assert 0 <= distance.kl < 1e-15 and distance.gap == pytest.approx(0, abs=1e-7)


def test_n_of_a_kl():
    ns = np.array([1.0, 1.5, 2, 64, 1e30])
    assert n_for_kl(best_of_n_kl_bound(ns)) == pytest.approx(ns, rel=1e-9)
    assert n_for_kl(0.0) == 1


BERNOULLI = [
    (10, 0.6219, 0.0979, 0.0353, 0.02767),
    (50, 0.6850, 0.0348, 0.0793, 0.01212),
    (100, 0.6994, 0.0204, 0.0895, 0.00871),
    (400, 0.7130, 0.0068, 0.0973, 0.00372),
    (1000, 0.7166, 0.0032, 0.0989, 0.00193),
    (2000, 0.7180, 0.0018, 0.0995, 0.00113),
]


@pytest.mark.parametrize("m, reward, gap, kl, kl_to_optimum", BERNOULLI)
def test_best_of_n_nears_the_optimum_as_sequences_grow(m, reward, gap, kl, kl_to_optimum):
    """Per symbol. With the distribution function instead of the survival function m = 1000 gives .63."""
    best = optimum(COIN, HEADS, 0.1)
    assert best.reward == near(0.719795, 6) and best.strength == near(0.943443, 6)
    log_p, total = memoryless(COIN, HEADS, m)
    log_q, log_phi = best_of_n(log_p, total, math.exp(0.1 * m)), tilt(log_p, total, best.strength)
    assert mean_reward(log_phi, total) / m == pytest.approx(best.reward, abs=1e-11)
    assert relative_entropy(log_phi, log_p) / m == pytest.approx(0.1, abs=1e-11)
    assert mean_reward(log_q, total) / m == near(reward, 4)
    assert best.reward - mean_reward(log_q, total) / m == near(gap, 4)
    assert relative_entropy(log_q, log_p) / m == near(kl, 4)
    assert relative_entropy(log_q, log_phi) / m == near(kl_to_optimum, 5)


def test_sums_of_symbols():
    log_p, total = memoryless(P, [0.5, 0.1, 0.9], 3)
    by_hand = {}
    for drawn in itertools.product(range(3), repeat=3):
        value = round(sum((0.5, 0.1, 0.9)[i] for i in drawn), 9)
        by_hand[value] = by_hand.get(value, 0) + math.exp(sum(P[i] for i in drawn))
    assert dict(zip(total.round(9), np.exp(log_p), strict=True)) == pytest.approx(by_hand)
    whole = itertools.product(range(3), repeat=3)  # sequences and sums have the same best-of-N
    log_s, reward = zip(*[(sum(P[i] for i in d), round(sum((0.5, 0.1, 0.9)[i] for i in d), 9)) for d in whole])
    assert mean_reward(best_of_n(log_s, reward, 4), reward) == pytest.approx(
        mean_reward(best_of_n(log_p, total, 4), total)
    )
    assert memoryless([0.0], [3.0], 4)[1].tolist() == [12.0]
    with pytest.raises(SettingError, match="multiples of one step"):
        memoryless(P, [0.0, 1.0, math.pi], 50)


def test_large_deviations():
    best = optimum(COIN, HEADS, 0.1)
    a, lam = float(best.reward), float(best.strength)
    rates = rate_function(COIN, HEADS, [0.8, a, 1.0, 0.0, 1.1, -0.1], lam)
    assert rates[0] == near(0.0170755, 7) and rates[0] == pytest.approx(
        0.8 * math.log(0.8 / a) + 0.2 * math.log(0.2 / (1 - a))
    )
    assert rates[1] == pytest.approx(0, abs=1e-14) and rates[2:4] == pytest.approx([-math.log(a), -math.log(1 - a)])
    assert np.isinf(rates[4:]).all()
    assert rate_function(COIN, [3.0, 3.0], [3.0, 4.0]).tolist() == [0, math.inf]
    for m, value in ((100, 0.03132), (1000, 0.01953), (10000, 0.01743)):
        log_p, total = memoryless(COIN, HEADS, m)
        log_phi = tilt(log_p, total, lam)
        assert -np.logaddexp.reduce(log_phi[total >= 0.8 * m - 1e-6]) / m == near(value, 5)
    h = 1e-4
    up, down = cumulant_function(COIN, HEADS, [h, -h], lam)
    assert (up - down) / (2 * h) == pytest.approx(a, abs=1e-7)
    assert (up + down) / h**2 == near(0.201690, 5)  # a (1 - a)


def test_the_rate_is_the_legendre_transform():
    t = np.linspace(-30, 30, 200_001)
    slow = [(t * u - cumulant_function(P, R, t, 0.5)).max() for u in (0.3, 1.0, 1.7)]
    assert rate_function(P, R, [0.3, 1.0, 1.7], 0.5) == pytest.approx(slow, abs=1e-6)


def test_renyi_cross_entropies():
    q = np.log([0.2, 0.3, 0.5])
    values = {0.5: 1.272230, 1: 1.237874, 2: 1.166522, 1e-9: 1.304540, 0: 1.304540}
    for t, value in values.items():
        assert renyi_cross_entropy(P, q, t) == near(value, 6)
    assert cumulant_function(P, q, 2.0) == pytest.approx(-2 * renyi_cross_entropy(P, q, 2))
    log_phi = tilt(P, q, 1.0)  # the mismatched tilt, p q^lambda
    assert np.exp(log_phi) == near([0.344828, 0.310345, 0.344828], 6)
    assert relative_entropy(log_phi, P) == near(0.070233, 6) and mean_reward(log_phi, q) == near(-1.167642, 6)
    h = 1e-4
    up, here, down = cumulant_function(P, q, [1 + h, 1, 1 - h])
    assert (up - down) / (2 * h) == near(-1.167642, 6) and (up - 2 * here + down) / h**2 == near(0.145351, 5)


def distributions(size):
    weights = some.lists(some.floats(0.01, 1), min_size=size, max_size=size)
    return weights.map(lambda w: np.log(np.array(w) / sum(w)))


@settings(max_examples=150, deadline=None)
@given(distributions(5), distributions(5), some.lists(some.integers(-3, 3), min_size=5, max_size=5), some.floats(0, 6))
def test_the_identity_and_the_frontier_hold_for_any_policy(log_p, log_q, reward, strength):
    reward = np.array(reward, float)
    log_phi = tilt(log_p, reward, strength)
    gained = mean_reward(log_phi, reward) - mean_reward(log_q, reward)
    right = relative_entropy(log_q, log_p) - relative_entropy(log_phi, log_p) + strength * gained
    assert relative_entropy(log_q, log_phi) == pytest.approx(right, abs=1e-10)
    top = np.where(log_q >= np.sort(log_q)[2], log_q, -np.inf)  # cut off below the likeliest three
    for policy in (log_q, best_of_n(log_p, reward, 1 + strength), top - np.logaddexp.reduce(top)):
        assert distance_to_frontier(policy, log_p, reward).gap >= -1e-9
    assert relative_entropy(best_of_n(log_p, reward, 1 + strength), log_p) <= best_of_n_kl_bound(1 + strength) + 1e-12


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_a_penalised_policy_gradient_lands_on_the_tilt(beta):
    """Ascent on E r - beta KL over the logits of a table of probabilities."""
    logits = P.copy()
    for _ in range(4000):
        log_q = logits - np.logaddexp.reduce(logits)
        advantage = R - beta * (log_q - P)
        logits = logits + 0.5 * np.exp(log_q) * (advantage - np.exp(log_q) @ advantage)
    assert log_q == pytest.approx(tilt(P, R, 1 / beta), abs=1e-6)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: tilt([0.5, 0.5], HEADS, 1.0), "sum to 1"),
        (lambda: tilt(COIN, [0.0, math.inf], 1.0), "reward"),
        (lambda: tilt(COIN, HEADS, math.nan), "strength"),
        (lambda: optimum(COIN, HEADS, -0.1), "kl = -0.1"),
        (lambda: best_of_n(COIN, HEADS, 0.5), "n = 0.5"),
        (lambda: best_of_n(COIN, HEADS, math.inf), "n = inf"),
        (lambda: best_of_n_kl_bound(0), "n = "),
        (lambda: n_for_kl(-1), "kl = "),
        (lambda: memoryless(COIN, HEADS, 0), "m = 0"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(SettingError, match=says):
        call()
