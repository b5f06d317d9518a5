"""The miniature of paper 48: the index is the formula, rounds prune a fifth, densities and steps are equal."""

import pytest
import torch

from prunus.reproductions.claim import Trial
from prunus.reproductions.sap import DENSITY, SAP_ROUNDS, index_by_round, measure, network
from prunus.sparse import Masks
from prunus.sparse.data import digits
from prunus.sparse.networks import drawn
from prunus.sparse.training import Recipe

pytest.importorskip("sklearn")


def test_the_index_is_that_of_all_kept_weights_together():
    still = Recipe(1, learning_rate=1e-30)  # so that the weights are those that were drawn
    found = index_by_round(digits(), still, 2, seed=3)
    weights = [w.detach().abs().double() for n, w in drawn(network, 3).named_parameters() if "weight" in n]
    for point in found:
        left = torch.cat([w.flatten().sort(descending=True).values[: self_kept(w, point)] for w in weights])
        index = 1 - float(left.sqrt().mean() ** 2 / left.mean())
        assert point["index"] == pytest.approx(index, abs=1e-4)
    assert [p["density"] for p in found] == pytest.approx([1, 0.8, 0.64], abs=1e-4)


def self_kept(weight, point):
    """By layer, each keeps the same share."""
    return round(point["density"] * weight.numel())


def test_all_arms_have_equal_densities_and_steps(tmp_path):
    evidence = measure(Trial(smoke=True))
    total = Masks.of(drawn(network, 0)).total
    assert len(evidence.rows) == 9 and len(evidence.findings) == 5
    whole = 3 * (SAP_ROUNDS + 1)
    for row in evidence.rows:
        name = row["arm"]
        if "dense" not in name:
            assert abs(row["kept"] * total - round(DENSITY * total)) <= SAP_ROUNDS  # the ticket rounds each time
        if "SAP" in name or "ticket" in name or "dense" in name:
            assert row["steps"] <= whole
    assert len(evidence.settings["phases"]) == 2
    evidence.pictures["index"](tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
