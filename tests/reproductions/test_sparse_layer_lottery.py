"""The miniature of paper 10: equal steps, equal depths, equal counts of neurons."""

import pytest

from prunus.reproductions.claim import Trial
from prunus.reproductions.layer_lottery import AS_GOOD, BLOCKS, FILTERS_AT, WIDTH, arms, measure, network
from prunus.sparse.data import digits
from prunus.sparse.networks import drawn

pytest.importorskip("sklearn")
pytest.importorskip("torch_pruning")


def test_all_arms_are_there_and_take_as_many_steps():
    evidence = measure(Trial(smoke=True))
    rows = {row["arm"]: row for row in evidence.rows}
    assert {row["steps"] for row in rows.values()} == {20}
    for name in ("SNIP", "SNIP reversed", "GraSP", "GraSP reversed", "random"):
        assert rows[f"{name}, p = 3"]["MACs"] == rows["drawn with 7 blocks"]["MACs"] < rows["dense"]["MACs"]
    assert [(f.ours, f.baseline, f.more_than) for f in evidence.findings] == [
        ("SNIP, p = 3", "dense", AS_GOOD),
        ("GraSP, p = 3", "dense", AS_GOOD),
        ("SNIP, p = 3", "SNIP, neurons", 0.0),
        ("GraSP, p = 3", "GraSP, neurons", 0.0),
    ]
    orders = evidence.settings["orders of removal"]
    assert all(sorted(order) == list(range(BLOCKS)) for some in orders.values() for order in some)
    assert rows["SNIP, p = 3"]["against random"] and not rows["random, p = 3"]["against random"]


@pytest.mark.parametrize(("name", "short"), [("SNIP, neurons", 0), ("magnitude one-shot, neurons", 2)])
def test_filter_pruning_leaves_as_many_neurons_as_dropping_blocks(name, short):
    """Equal shares of ten layers come in tens: 190 inner neurons for 192."""
    task = digits()
    method = next(arm.method for arm in arms(task, (FILTERS_AT,)) if arm.name == name)
    smaller = method.smaller(drawn(network, 0), task)
    neurons = sum(block.first.out_features + block.second.out_features for block in smaller.blocks)
    assert neurons == 2 * WIDTH * (BLOCKS - FILTERS_AT) - short
