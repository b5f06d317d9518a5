"""The PQ index: the card's values, its invariances, and the bound."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.errors import SettingError
from prunus.sparse.pq_index import phases, pq_index, retain_bound, sap_counts

PQ = [(0.5, 1.0), (1.0, 2.0)]


def index(*values, p=0.5, q=1.0):
    return float(pq_index(torch.tensor(values, dtype=torch.float64), p=p, q=q))


@pytest.mark.parametrize(
    ("values", "p", "q", "expected", "bound"),
    [
        ((4, 3, 2, 1), 0.5, 1, 0.055586, 3.777657),
        ((4, 3, 2, 1), 1, 2, 0.087129, 3.333333),
        ((1, 0, 0, 0), 0.5, 1, 0.75, 1),
        ((1, 0, 0, 0), 1, 2, 0.5, 1),
        ((1, 1, 1, 1), 0.5, 1, 0, 4),
        ((4, 3, 2, 1, 0, 0, 0, 0), 0.5, 1, 0.527793, 3.777657),
        ((8, 0.5, 0.25, 0.25), 0.5, 1, 0.428581, 2.285674),
        ((8, 0.5, 0.25, 0.25), 1, 2, 0.439141, 1.258252),
    ],
)
def test_the_cards_values(values, p, q, expected, bound):
    assert index(*values, p=p, q=q) == pytest.approx(expected, abs=1e-6)
    found = retain_bound(len(values), torch.tensor(index(*values, p=p, q=q), dtype=torch.float64), p, q)
    assert float(found) == pytest.approx(bound, abs=2e-6)


def test_the_cards_counts_and_slack():
    count = torch.tensor(4)
    for bound, expected in ((2.285674, 1), (1.258252, 2)):
        assert int(sap_counts(count, torch.tensor(bound))) == expected
    assert float(retain_bound(4, torch.tensor(0.0), eta=0.1)) == pytest.approx(3.3058, abs=1e-4)
    assert int(sap_counts(torch.tensor(100), torch.tensor(2.0))) == 90  # clipped at beta
    assert int(sap_counts(torch.tensor(100), torch.tensor(80.0), gamma=2)) == 40
    assert int(sap_counts(torch.tensor(100), torch.tensor(100.0))) == 0
    assert int(sap_counts(torch.tensor(0), torch.tensor(0.0))) == 0


vectors = st.lists(st.floats(-8, 8).map(lambda x: round(x, 2)), min_size=2, max_size=20).filter(lambda v: any(v))


@settings(max_examples=200, deadline=None)
@given(vectors, st.sampled_from(PQ), st.floats(0.01, 100), st.data())
def test_the_six_properties(values, pq, scale, data):
    p, q = pq
    found = index(*values, p=p, q=q)
    d = len(values)
    assert -1e-12 <= found <= 1 - d ** (1 / q - 1 / p) + 1e-9
    assert index(*(v * scale for v in values), p=p, q=q) == pytest.approx(found, abs=1e-9)
    assert index(*values, *values, p=p, q=q) == pytest.approx(found, abs=1e-9)
    assert index(*values, 0.0, p=p, q=q) > found - 1e-12
    if max(map(abs, values)) - min(map(abs, values)) > 0.1:
        assert index(*(abs(v) + 1 for v in values), p=p, q=q) < found + 1e-12
    w = torch.tensor(values, dtype=torch.float64)
    slow = 1 - d ** (1 / q - 1 / p) * sum(abs(v) ** p for v in values) ** (1 / p) / sum(
        abs(v) ** q for v in values
    ) ** (1 / q)
    assert found == pytest.approx(slow, abs=1e-9)
    alone = retain_bound(d, pq_index(w, p=p, q=q), p, q)
    padded = retain_bound(d + 5, pq_index(torch.cat([w, torch.zeros(5)]), p=p, q=q), p, q)
    assert float(alone) == pytest.approx(float(padded), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(vectors, st.sampled_from(PQ), st.data())
def test_the_bound_holds(values, pq, data):
    p, q = pq
    r = data.draw(st.integers(1, len(values)))
    powers = sorted((abs(v) ** p for v in values), reverse=True)
    eta = sum(powers[r:]) / sum(powers[:r])
    bound = retain_bound(len(values), torch.tensor(index(*values, p=p, q=q)), p, q, eta)
    assert float(bound) <= r + 1e-6


def test_only_kept_entries_count_and_rows_are_read_by_themselves():
    weight = torch.tensor([[4.0, 3, 2, 1], [1, 1, 9, 9], [0, 0, 0, 0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4])
    assert pq_index(weight, mask, rows=True).tolist() == pytest.approx([0.055586, 0, 0], abs=1e-6)
    assert float(pq_index(weight[1], mask[1])) == 0
    assert float(pq_index(weight, torch.zeros_like(mask))) == 0  # nothing is left: defined as 0
    assert math.isfinite(float(pq_index(torch.tensor([1e-30, 1e30]))))


def test_p_must_be_below_q():
    with pytest.raises(SettingError, match="p < q"):
        pq_index(torch.ones(3), p=1, q=1)
    with pytest.raises(SettingError, match="eta"):
        retain_bound(4, torch.tensor(0.1), eta=-1)
    with pytest.raises(SettingError, match="beta"):
        sap_counts(torch.tensor(4), torch.tensor(2.0), beta=1)


def test_phases_fall_rise_and_collapse():
    found = phases([0.16, 0.10, 0.04, 0.05, 0.06], [0.95, 0.96, 0.96, 0.955, 0.90])
    assert found == ["regularising", "regularising", "compressing", "collapsing"]
