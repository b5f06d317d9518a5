"""Mixtures of widths: their values and costs, worked out by hand."""

import pytest

from prunus.errors import SettingError
from prunus.reproductions.equal_cost import Point, at_cost, standings

CHEAP = Point(2, [10, 30], [0, 1])  # 20 on average
DEAR = Point(8, [70, 50], [1, 1])  # 60 on average


@pytest.mark.parametrize(
    ("budget", "values"),
    [
        (20, [0, 1]),
        (30, [0.25, 1]),  # a quarter of the way from 20 to 60
        (40, [0.5, 1]),
        (60, [1, 1]),
        (1000, [1, 1]),  # the dearest there is
        (19, None),
    ],
)
@pytest.mark.parametrize("points", [[CHEAP, DEAR], [DEAR, CHEAP]])
def test_a_budget_is_met_by_two_widths(points, budget, values):
    assert at_cost(points, budget) == values


def test_one_width_serves_all_budgets_from_its_cost_on():
    assert at_cost([CHEAP], 20) == [0, 1] and at_cost([CHEAP], 500) == [0, 1]
    assert at_cost([CHEAP], 5) is None


def test_methods_stand_at_the_costs_of_the_baseline():
    base = [Point(1, [40, 40], [0, 0]), Point(4, [200, 200], [1, 0]), Point(0, [1, 1], [0, 0])]
    found = standings({"base": base, "ours": [CHEAP, DEAR]}, "base")
    assert [(s.method, s.budget, s.spent, s.accuracy.mean) for s in found] == [
        ("base", 1, 1, 0),  # ours costs more
        ("base", 40, 40, 0),
        ("ours", 40, 40, 0.75),
        ("base", 200, 200, 0.5),
        ("ours", 200, 60, 1.0),
    ]
    assert [s.against and s.against.mean for s in found] == [None, None, 0.75, None, 0.5]
    assert found[4].against.low == 0 and found[4].against.high == 1  # of two problems one differs by 1


def test_every_problem_has_a_cost_and_a_value():
    with pytest.raises(SettingError, match="one for each of 2"):
        Point(1, [1, 2], [0])
