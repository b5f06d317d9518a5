"""Allocations: the cards' numbers, exact counts, and the equation that ERK solves."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.errors import SettingError
from prunus.sparse.allocation import (
    ERK,
    Given,
    Global,
    OutputKept,
    Remaining,
    Uniform,
    erk_densities,
    whole_counts,
)

LENET = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
CONV = {"conv1": (16, 3, 3, 3), "conv2": (32, 16, 3, 3), "fc": (10, 32)}


def dense(shapes):
    scores = {name: torch.ones(shape) for name, shape in shapes.items()}
    return scores, {name: s.bool() for name, s in scores.items()}


@pytest.mark.parametrize(
    ("shapes", "density", "expected", "total"),
    [
        (LENET, 0.1, (0.079568, 0.230189, 1.0), 26_620),
        (LENET, 0.05, (0.038484, 0.111334, 0.918507), 13_310),
        (CONV, 0.2, (0.550867, 0.111551, 1.0), 1_072),
    ],
)
def test_erk_has_the_cards_densities(shapes, density, expected, total):
    assert tuple(erk_densities(shapes, density).values()) == pytest.approx(expected, abs=5e-7)
    counts = ERK().counts(*dense(shapes), density)
    assert sum(counts.values()) == total
    for name, shape in shapes.items():
        assert abs(counts[name] - erk_densities(shapes, density)[name] * math.prod(shape)) < 1


shapes = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.lists(st.integers(1, 9), min_size=2, max_size=4), min_size=1, max_size=5
)


@settings(max_examples=200, deadline=None)
@given(shapes, st.floats(0.01, 1))
def test_erk_solves_its_equation(shapes, density):
    found = erk_densities(shapes, density)
    sizes = {n: math.prod(s) for n, s in shapes.items()}
    assert math.isclose(sum(found[n] * sizes[n] for n in shapes), density * sum(sizes.values()), rel_tol=1e-9)
    assert all(0 < d <= 1 + 1e-12 for d in found.values())
    eps = {n: found[n] * sizes[n] / sum(s) for n, s in shapes.items()}  # the same for all that are not dense
    open_eps = [eps[n] for n in shapes if found[n] < 1]
    assert all(math.isclose(e, open_eps[0], rel_tol=1e-9) for e in open_eps)
    assert all(eps[n] <= open_eps[0] + 1e-9 for n in shapes if open_eps and found[n] == 1)


@settings(max_examples=200, deadline=None)
@given(shapes, st.floats(0.05, 1), st.sampled_from([Uniform(), ERK(), Uniform(floor=2), OutputKept(1e-9)]))
def test_counts_are_exact_and_no_layer_is_emptied(shapes, density, allocation):
    sizes = {n: math.prod(s) for n, s in shapes.items()}
    total = round(density * sum(sizes.values()))
    if total < len(shapes):
        return
    counts = allocation.counts(*dense(shapes), density)
    assert sum(counts.values()) == total and all(1 <= counts[n] <= sizes[n] for n in shapes)


def test_uniform_keeps_a_first_layer_dense_and_the_others_make_up():
    counts = Uniform(dense=("conv1",)).counts(*dense(CONV), 0.2)
    assert counts["conv1"] == 432 and sum(counts.values()) == 1072
    assert counts["conv2"] / 4608 == pytest.approx(counts["fc"] / 320, abs=0.002)
    with pytest.raises(SettingError, match="conv1"):
        Uniform(dense=("conv1",)).counts(*dense(CONV), 0.05)


def test_remainders_go_to_the_largest_then_the_first():
    sizes = {"a": 10, "b": 10, "c": 10}
    assert whole_counts(sizes, {"a": 0.14, "b": 0.16, "c": 0.14}, 4) == {"a": 1, "b": 2, "c": 1}
    assert whole_counts(sizes, dict.fromkeys(sizes, 1 / 3), 10) == {"a": 4, "b": 3, "c": 3}


def test_global_is_one_count():
    assert Global().counts(*dense(LENET), 0.1) == 26_620


def test_given_densities_by_pattern():
    counts = Given({"fc1": 0.5, "fc[23]": 0.1}).counts(*dense(LENET), 1.0)
    assert counts == {"fc1": 117_600, "fc2": 3_000, "fc3": 100}
    assert Given({"fc1": 0.5}).counts(*dense(LENET), 1.0)["fc2"] == 30_000
    with pytest.raises(SettingError, match="fc9"):
        Given({"fc9": 0.5}).counts(*dense(LENET), 1.0)
    with pytest.raises(SettingError, match="above 0"):
        Given({"fc1": 0})


def test_rates_of_what_remains_give_the_cards_kept_fractions():
    scores, kept = dense(LENET)
    rates, seen = Remaining({"fc[12]": 0.2, "fc3": 0.1}), {}
    for round_ in range(1, 23):
        counts = rates.counts(scores, kept, 1.0)
        kept = {n: (torch.arange(s.numel()) < counts[n]).view(s.shape) for n, s in scores.items()}
        seen[round_] = 100 * sum(counts.values()) / 266_200
    assert [round(seen[r], 2) for r in (1, 3, 7, 15, 22)] == [80.04, 51.28, 21.07, 3.58, 0.77]
    with pytest.raises(SettingError, match="rates"):
        Remaining(1.0)


@pytest.mark.parametrize("density", [0, -0.1, 1.1, float("nan")])
def test_a_density_outside_its_range_is_an_error(density):
    for allocation in (Uniform(), ERK(), Global()):
        with pytest.raises(SettingError, match="density"):
            allocation.counts(*dense(LENET), density)


def test_the_output_keeps_a_fifth_once_the_rest_is_sparser():
    scores, kept = dense(LENET)
    whole = sum(math.prod(shape) for shape in LENET.values())
    assert OutputKept().counts(scores, kept, 0.5) == Uniform().counts(scores, kept, 0.5)
    counts = OutputKept().counts(scores, kept, 0.05)
    assert counts["fc3"] == 200 and sum(counts.values()) == round(0.05 * whole)  # .2 of 1000
    share = (round(0.05 * whole) - 200) / (whole - 1000)
    assert abs(counts["fc1"] - share * 300 * 784) < 1 and abs(counts["fc2"] - share * 30_000) < 1
    with pytest.raises(SettingError, match="density"):
        OutputKept().counts(scores, kept, 201 / whole)
    with pytest.raises(SettingError, match="least"):
        OutputKept(0.0)
