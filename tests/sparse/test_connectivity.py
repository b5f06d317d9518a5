"""Linear mode connectivity: the card's curves, a slow path, and what the ends must share."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import blobs

from prunus.errors import ModelError, SettingError
from prunus.sparse import Evaluation, Masks, Recipe, prune, train
from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.connectivity import largest_deviation, lmc
from prunus.sparse.networks import drawn, mlp, residual_mlp


def narrow():
    return residual_mlp(8, 6, 1, 4)


@pytest.mark.parametrize(
    ("curve", "value", "at"),
    [
        ((0.10, 0.12, 0.30, 0.12, 0.14), -0.18, 2),  # a barrier
        ((0.2, 0.1, 0.05, 0.1, 0.2), 0.15, 2),  # a dip
        ((0.1, 0.3, 0.1, 0.0, 0.1), -0.2, 1),  # the larger of the two
        ((0.1, 0.1, 0.1), 0.0, 0),
        ((0.0, 0.5, 1.0), 0.5, 0),  # ends deviate too: both are .5 off, and the first of equals counts
    ],
)
def test_the_cards_curves(curve, value, at):
    assert largest_deviation(curve) == (pytest.approx(value), at)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=11))
def test_no_point_deviates_more_and_a_curve_turned_round_deviates_as_much(curve):
    value, at = largest_deviation(curve)
    middle = (curve[0] + curve[-1]) / 2
    assert all(abs(middle - e) <= abs(value) for e in curve) and value == middle - curve[at]
    assert abs(largest_deviation(curve[::-1])[0]) == pytest.approx(abs(value))


@pytest.fixture(scope="module")
def trained():
    """Two trainings of one pruned network with batch norms, in different order; a task; the masks."""
    task, dense = blobs(), drawn(narrow, 0)
    train(dense, task, Recipe(20, 0.01))
    masks = prune(dense, Masks.of(dense), 0.4)
    ends = [copy.deepcopy(dense), copy.deepcopy(dense)]
    for order, network in enumerate(ends):
        train(network, task, Recipe(30, 0.03), order=order, masks=masks)
    return *ends, task, masks


@pytest.mark.parametrize("metric", ["error", "nll"])
def test_the_curve_is_that_of_a_slow_path(trained, metric):
    a, b, task, masks = trained
    expected, inputs, targets = [], *task.train
    for t in (0, 0.25, 0.5, 0.75, 1):
        network = drawn(narrow, 5)
        with torch.no_grad():
            for p, x, y in zip(network.parameters(), a.parameters(), b.parameters()):
                p.copy_((1 - t) * x + t * y)
        recompute_statistics(network, task, 20)
        outputs = network.eval()(inputs)
        wrong, nll = (
            (outputs.argmax(-1) != targets).double().mean(),
            torch.nn.functional.cross_entropy(outputs, targets),
        )
        expected.append(float((wrong if metric == "error" else nll).detach()))
    found = lmc(a, b, task, points=5, metric=metric, masks=masks)
    assert found.curve == pytest.approx(expected, abs=1e-5)
    assert (found.value, found.at) == largest_deviation(found.curve)


def test_a_network_is_connected_with_itself_and_is_left_as_it_is(trained):
    a, _, task, masks = trained
    before = copy.deepcopy(a.state_dict())
    found = lmc(a, a, task, masks=masks)
    assert found.value == 0 and len(found.curve) == 11 and len(set(found.curve)) == 1
    assert all(torch.equal(value, before[name]) for name, value in a.state_dict().items())


def test_without_new_statistics_the_same_path_has_another_curve(trained, monkeypatch):
    a, b, task, masks = trained
    anew = lmc(a, b, task, metric="nll", masks=masks).curve
    monkeypatch.setattr("prunus.sparse.connectivity.recompute_statistics", lambda *_: None)
    stale = lmc(a, b, task, metric="nll", masks=masks).curve
    assert max(abs(x - y) for x, y in zip(anew, stale)) > 1e-3


def test_ends_share_masks_and_architecture(trained):
    a, b, task, masks = trained
    lmc(a, b, task, points=3)  # the zeros agree
    other = copy.deepcopy(b)
    masks.shuffled(3).apply(other)
    for known in (None, masks.shuffled(3)):
        with pytest.raises(ModelError, match="share their masks"):
            lmc(a, other, task, masks=known)
    with pytest.raises(ModelError, match="one architecture"):
        lmc(mlp(8, 6, 4), mlp(8, 7, 4), task)
    with pytest.raises(SettingError, match="points"):
        lmc(a, b, task, points=2)
    with pytest.raises(SettingError, match="error or nll"):
        lmc(a, b, task, metric="accuracy")


def test_scores_that_are_no_accuracies_have_no_error(trained, monkeypatch):
    a, b, task, masks = trained
    monkeypatch.setattr(type(task), "evaluate", lambda *_: Evaluation(2.0, -7.4))  # minus a perplexity
    assert lmc(a, b, task, metric="nll", masks=masks).curve == (2.0,) * 11
    with pytest.raises(SettingError, match="metric = nll"):
        lmc(a, b, task, masks=masks)
