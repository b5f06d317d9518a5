"""Distances and stability of training."""

import math

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe
from prunus.sparse.methods import LotteryTicket
from prunus.sparse.networks import mlp
from prunus.sparse.stability import Stability, masked_distance, stability_to_order, stability_to_pruning

A, B = {"w": torch.tensor([1.0, 2, 5, -1])}, {"w": torch.tensor([2.0, 0, 9, -1])}
M = Masks({"w": torch.tensor([True, True, False, True])})


def test_the_cards_distances_ignore_what_is_masked():
    assert masked_distance(A, B, M) == pytest.approx(2.236068, abs=1e-6)
    assert masked_distance(A, B, M, "angle") == pytest.approx(56.789089, abs=1e-6)


def test_a_state_is_at_distance_zero_and_its_opposite_at_180_degrees():
    for kind in ("l2", "angle"):
        assert masked_distance(A, A, M, kind) == 0
    assert masked_distance(A, {"w": -A["w"]}, M, "angle") == pytest.approx(180)
    tiny = {"w": A["w"] + torch.tensor([1e-6, 0, 0, 0])}
    assert 0 < masked_distance(A, tiny, M, "angle") < math.degrees(1e-6)
    with pytest.raises(SettingError, match="l2 or angle"):
        masked_distance(A, B, M, "cosine")


def test_the_same_order_is_perfectly_stable_and_full_masks_too():
    task, recipe, build = blobs(), Recipe(15, 0.01), lambda: mlp(8, 12, 4)
    ticket = LotteryTicket(rounds=3, rates=0.4).run(build, task, recipe).ticket
    network = build()
    same = stability_to_order(network, ticket, task, recipe, pairs=[(3, 3)])
    assert same.distances == {"l2": [0.0], "angle": [0.0]}
    to_order = stability_to_order(network, ticket, task, recipe, pairs=[(0, 1), (0, 2)])
    assert len(to_order.distances["l2"]) == 2 and min(to_order.distances["l2"]) > 0
    to_pruning = stability_to_pruning(network, ticket, task, recipe, orders=[0])
    assert to_pruning.mean("angle") > 0


def test_means_and_ranges():
    found = Stability({"l2": [1.0, 3.0, 2.0]})
    assert found.mean("l2") == 2 and found.range("l2") == (1, 3)
