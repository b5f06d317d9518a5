"""Regrowing: the card's event, counts, and the weight that must come back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.errors import SettingError
from prunus.sparse import Masks
from prunus.sparse.regrow import annealed, random_growth, regrow

W = {"w": torch.tensor([0.9, -0.1, 0.5, 0.0, 0.0, 0.05])}
M = Masks({"w": torch.tensor([1, 1, 1, 0, 0, 1]).bool()})
G = {"w": torch.tensor([0.2, 0.9, 0.1, 0.6, 0.3, 0.8])}


def test_the_cards_event_drops_two_that_grow_again():
    grown = regrow(W, M, G, 0.5)
    assert grown.masks == M and not grown.grown["w"].any()  # they keep their values


def test_or_they_restart_at_zero_or_may_not_grow():
    zero = regrow(W, M, G, 0.5, dropped="zero")
    assert zero.masks == M and zero.grown["w"].nonzero().flatten().tolist() == [1, 5]
    bar = regrow(W, M, G, 0.5, dropped="bar")
    assert bar.masks["w"].nonzero().flatten().tolist() == [0, 2, 3, 4]
    assert bar.grown["w"].nonzero().flatten().tolist() == [3, 4]


def test_the_inactive_weight_with_the_largest_gradient_grows():
    grown = regrow(W, M, {"w": torch.tensor([0.2, 0.1, 0.1, 0.3, -5.0, 0.1])}, 0.25)
    assert grown.masks["w"].tolist() == [True, True, True, False, True, False]
    assert grown.grown["w"].nonzero().flatten().tolist() == [4]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 25), st.floats(0, 1), st.sampled_from(["keep", "zero", "bar"]))
def test_counts_are_conserved_and_the_rule_is_kept(data, n, fraction, dropped):
    values = st.lists(st.integers(-3, 3), min_size=n, max_size=n)
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    weights, growth = (torch.tensor(data.draw(values)).float() for _ in range(2))
    found = regrow({"w": weights * mask}, Masks({"w": mask}), {"w": growth}, fraction, dropped)
    new, active = found.masks["w"], int(mask.sum())
    assert int(new.sum()) == active
    k = math.ceil(fraction * active - 1e-9)
    if dropped == "bar":
        k = min(k, n - active)
        assert int((mask & ~new).sum()) == k == int(found.grown["w"].sum())
    order = sorted((i for i in range(n) if mask[i]), key=lambda i: (-abs(float(weights[i])), i))
    stay = set(order[: active - k])
    places = [i for i in range(n) if i not in stay and not (dropped == "bar" and mask[i])]
    fresh = sorted(places, key=lambda i: (-abs(float(growth[i])), i))[:k]
    assert set(new.nonzero().flatten().tolist()) == stay | set(fresh)


def test_annealing_has_the_cards_values():
    assert annealed(0, 0.5, 0.005) == 0.5
    assert annealed(0.5, 0.5, 0.005) == pytest.approx(0.2525) and annealed(1, 0.5, 0.005) == pytest.approx(0.005)
    assert [round(annealed(t, 0.3), 4) for t in (0, 0.25, 0.5, 0.75)] == [0.3, 0.2561, 0.15, 0.0439]


def test_random_growth_depends_on_the_seed_alone():
    assert torch.equal(random_growth(M, 3)["w"], random_growth(M, 3)["w"])
    assert not torch.equal(random_growth(M, 3)["w"], random_growth(M, 4)["w"])


def test_settings_are_checked():
    with pytest.raises(SettingError, match="fraction"):
        regrow(W, M, G, 1.5)
    with pytest.raises(SettingError, match="dropped"):
        regrow(W, M, G, 0.5, dropped="perhaps")
