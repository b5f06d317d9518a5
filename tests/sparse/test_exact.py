"""Exactly k, whatever ties; against sorting by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.errors import SettingError
from prunus.sparse.exact import keep_largest, largest, largest_in_rows

few_values = st.lists(st.integers(-3, 3), min_size=1, max_size=30)  # many ties


def by_sorting(scores, keep, allowed):
    """The rule in one line: larger first, then earlier first."""
    places = sorted((i for i in range(len(scores)) if allowed[i]), key=lambda i: (-scores[i], i))
    return [i in places[:keep] for i in range(len(scores))]


@settings(max_examples=300, deadline=None)
@given(few_values, st.data())
def test_it_keeps_what_sorting_keeps(values, data):
    allowed = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    keep = data.draw(st.integers(0, sum(allowed)))
    mask = largest(torch.tensor(values, dtype=torch.float32), keep, torch.tensor(allowed))
    assert mask.tolist() == by_sorting(values, keep, allowed)


@pytest.mark.parametrize("keep", range(7))
def test_of_equal_scores_the_earliest_are_kept(keep):
    mask = largest(torch.full((2, 3), 0.5), keep)
    assert mask.shape == (2, 3) and mask.flatten().tolist() == [i < keep for i in range(6)]


def test_infinite_scores_and_half_precision_are_ranked():
    assert largest(torch.tensor([1.0, float("inf"), -float("inf")]), 2).tolist() == [True, True, False]
    assert largest(torch.tensor([0.5, 2.0, 1.0], dtype=torch.bfloat16), 1).tolist() == [False, True, False]


def test_float64_differences_count():
    assert largest(torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64), 1).tolist() == [False, True]


@pytest.mark.parametrize("keep", [-1, 4])
def test_more_than_there_are_is_an_error(keep):
    with pytest.raises(SettingError, match="from 0 to 3"):
        largest(torch.zeros(3), keep)


def test_a_score_that_is_no_number_names_its_layer():
    with pytest.raises(SettingError, match=r"fc1.*NaN"):
        keep_largest({"fc1": torch.tensor([1.0, float("nan")])}, {"fc1": 1})
    pruned_only = torch.tensor([True, False])
    assert largest(torch.tensor([1.0, float("nan")]), 1, pruned_only).tolist() == [True, False]


@settings(max_examples=200, deadline=None)
@given(st.lists(few_values, min_size=1, max_size=4), st.integers(0, 3), st.data())
def test_over_several_layers_the_count_is_exact_and_the_floor_holds(layers, floor, data):
    scores = {f"layer{i}": torch.tensor(values, dtype=torch.float32) for i, values in enumerate(layers)}
    least = sum(min(floor, len(values)) for values in layers)
    keep = data.draw(st.integers(least, sum(map(len, layers))))
    masks = keep_largest(scores, keep, floor=floor)
    assert sum(int(m.sum()) for m in masks.values()) == keep
    assert all(int(masks[name].sum()) >= min(floor, s.numel()) for name, s in scores.items())
    sure = [by_sorting(values, min(floor, len(values)), [True] * len(values)) for values in layers]
    together, first = ([v for part in parts for v in part] for parts in (layers, sure))
    rest = by_sorting(together, keep - least, [not s for s in first])
    assert [v for m in masks.values() for v in m.tolist()] == [a or b for a, b in zip(first, rest)]


def test_a_global_ranking_over_equal_scores_keeps_the_earlier_layers():
    masks = keep_largest({"a": torch.ones(4), "b": torch.ones(4)}, 5)
    assert masks["a"].tolist() == [True] * 4 and masks["b"].tolist() == [True] + [False] * 3
    floored = keep_largest({"a": torch.ones(4), "b": torch.ones(4)}, 5, floor=2)
    assert int(floored["a"].sum()) == 3 and floored["b"].tolist() == [True, True, False, False]


def test_a_floor_that_cannot_be_met_is_an_error():
    with pytest.raises(SettingError, match="floor of 2"):
        keep_largest({"a": torch.ones(4), "b": torch.ones(4)}, 3, floor=2)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.data())
def test_rows_are_ranked_by_themselves(rows, columns, data):
    values = [[data.draw(st.integers(-2, 2)) for _ in range(columns)] for _ in range(rows)]
    allowed = [[data.draw(st.booleans()) for _ in range(columns)] for _ in range(rows)]
    keep = [data.draw(st.integers(0, sum(row))) for row in allowed]
    mask = largest_in_rows(torch.tensor(values).float(), torch.tensor(keep), torch.tensor(allowed))
    assert mask.tolist() == [by_sorting(v, k, a) for v, k, a in zip(values, keep, allowed)]
