"""Schedules: the cards' numbers, exact ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.sparse.schedule import Cubic, Cyclic, Iterative, OneShot

SCHEDULES = [OneShot(), OneShot(0.5), Iterative(7), Cubic(), Cubic(0.5), Cyclic(3)]


def test_cubic_has_the_cards_sparsities():
    assert [round(1 - Cubic().density(t, 0.1), 4) for t in (0.25, 0.5, 0.75)] == [0.5203, 0.7875, 0.8859]
    events = [round(1 - Cubic(0.5).density(k / 43, 0.05), 4) for k in (0, 10, 21, 43)]
    assert events == [0.5, 0.7466, 0.8897, 0.95]


def test_iterative_prunes_the_same_share_each_round():
    densities = [Iterative(15).density(r / 15, 0.8**15) for r in range(16)]
    assert densities == pytest.approx([0.8**r for r in range(16)])
    assert [round(densities[r], 3) for r in (3, 7, 15)] == [0.512, 0.21, 0.035]
    assert Iterative(15).density(0.19, 0.8**15) == pytest.approx(0.8**2)  # between events nothing happens


def test_one_shot_waits_for_its_time():
    assert [OneShot(0.5).density(t, 0.1) for t in (0, 0.49, 0.5, 1)] == [1, 1, 0.1, 0.1]


def test_cycles_begin_again():
    cyclic = Cyclic(2)
    assert cyclic.density(0.25, 0.1) == cyclic.density(0.75, 0.1) == Cubic().density(0.5, 0.1)
    assert cyclic.density(0.5, 0.1) == 1.0 and cyclic.density(0.499, 0.1) == pytest.approx(0.1, abs=1e-3)


@given(st.sampled_from(SCHEDULES), st.floats(0.01, 0.49), st.floats(-1, 2), st.floats(0, 1))
def test_the_end_is_exact_and_densities_fall_to_the_target(schedule, target, at, later):
    assert schedule.density(1, target) == target and schedule.density(1.5, target) == target
    assert target - 1e-12 <= schedule.density(at, target) <= 1
    if not isinstance(schedule, Cyclic):
        assert schedule.density(at + later, target) <= schedule.density(at, target) + 1e-12
