"""pass@k and maj@k against the card's numbers and against trying every draw."""

from fractions import Fraction
from itertools import combinations, product
from math import factorial, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.errors import SettingError
from prunus.strategies.repeated_sampling import majority_at_k, majority_probability, pass_at_k


def test_the_cards_pass_at_k():
    assert pass_at_k(10, 3, 5) == pytest.approx(0.916667, abs=1e-6)
    assert pass_at_k(10, 6, 5) == 1.0 and pass_at_k(10, 0, 5) == 0.0 and pass_at_k(10, 3, 1) == pytest.approx(0.3)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.4), (3, 0.4220), (5, 0.4434), (9, 0.4800)])
def test_the_cards_majority(k, expected):
    assert majority_probability([0.4, 0.35, 0.25], k) == pytest.approx(expected, abs=5e-5)


def test_majority_of_25_exactly():
    """The card has 0.5619 here, which is 0.001 less than the sum over all splits of the votes in exact fractions."""
    p, total = [Fraction(40, 100), Fraction(35, 100), Fraction(25, 100)], Fraction(0)
    for a in range(26):
        for b in range(26 - a):
            split = (a, b, 25 - a - b)
            ways = Fraction(factorial(25), prod(map(factorial, split))) * prod(q**m for q, m in zip(p, split))
            if a == max(split):
                total += ways / split.count(a)
    assert majority_probability([0.4, 0.35, 0.25], 25) == pytest.approx(float(total), rel=1e-12)
    assert float(total) == pytest.approx(0.562954, abs=1e-6)


def first_wins(answers):
    most = max(answers.count(a) for a in answers)
    winners = {a for a in answers if answers.count(a) == most}
    return 1 / len(winners) if 0 in winners else 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_mean_over_all_draws(n, data):
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(combinations([i < right for i in range(n)], k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any), st.data())
def test_majority_at_k_is_the_mean_over_all_draws(counts, data):
    samples = [answer for answer, count in enumerate(counts) for _ in range(count)]
    k = data.draw(st.integers(1, len(samples)))
    draws = list(combinations(samples, k))
    assert majority_at_k(counts, k) == pytest.approx(sum(map(first_wins, draws)) / len(draws))


def test_majority_probability_is_the_sum_over_all_votes():
    probabilities = [0.3, 0.5, 0.2]
    for k in (1, 2, 4):
        votes = product(range(3), repeat=k)
        assert majority_probability(probabilities, k) == pytest.approx(
            sum(first_wins(v) * prod(probabilities[a] for a in v) for v in votes)
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda: pass_at_k(5, 6, 1),
        lambda: pass_at_k(5, 2, 6),
        lambda: pass_at_k(5, 2, 0),
        lambda: majority_at_k([1, 1], 3),
        lambda: majority_probability([0.5, 0.4], 3),
        lambda: majority_probability([1.0], 0),
    ],
)
def test_what_cannot_be_drawn_is_refused(call):
    with pytest.raises(SettingError):
        call()
