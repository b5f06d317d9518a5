"""Contrasting settings, measured in pairs."""

import pytest
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Recipe
from prunus.sparse.contrasts import Gap, gated_pair, measure, standard_pairs
from prunus.sparse.networks import mlp, residual_mlp
from prunus.sparse.taxonomy import PAIRS, contrast
from prunus.sparse.training import cosine


def build():
    return mlp(8, 16, 12, 4)


def test_arms_have_equal_steps_and_equal_counts_and_differ_in_their_pair():
    task, recipe, seen = blobs(), Recipe(12, 0.01), {}
    pairs = standard_pairs(build, 0.25, rounds=3)
    for name, arms in pairs.items():
        found = [arm.method.run(build, task, Recipe(round(12 * arm.stretch), 0.01)) for arm in arms]
        seen[name] = tuple(result.steps for result in found)
        kept = [result.masks.kept for result in found]
        assert kept[0] == pytest.approx(0.25 * (128 + 192), abs=2) and abs(kept[0] - kept[1]) <= 2
    assert seen == {"P1": (24, 24), "P2": (48, 48), "P3": (12, 12), "P4": (24, 24), "P5": (24, 24), "P8": (24, 24)}
    for pair in PAIRS:
        if pair.id in pairs:
            differs = contrast(*(arm.method.taxonomy for arm in pairs[pair.id]))
            assert pair.must <= differs <= pair.must | pair.may, pair.id
    gaps = measure({"P8": pairs["P8"]}, build, task, recipe, seeds=(0, 1))
    assert [(g.pair, g.one, g.other, g.steps, len(g.differences)) for g in gaps] == [
        ("P8", "layer-wise", "global", (24, 24), 2)
    ]


def test_a_gap_is_claimed_from_two_deviations_on():
    assert Gap("P1", "a", "b", (0.10, 0.11, 0.09), (1, 1)).claimed
    assert Gap("P1", "a", "b", (-0.10, -0.11, -0.09), (1, 1)).claimed
    assert not Gap("P1", "a", "b", (0.10, -0.02, 0.03), (1, 1)).claimed
    assert not Gap("P1", "a", "b", (0.10,), (1, 1)).claimed and not Gap("P1", "a", "b", (0.0, 0.0), (1, 1)).claimed


def test_static_and_dynamic_are_measured_at_equal_average_macs():
    task, recipe = blobs(rows=600), Recipe(200, 0.02, decay=cosine)

    def network():
        return residual_mlp(8, 16, 4, 4)

    pairs = gated_pair(network, task, 0.75)
    assert pairs["P7"][1].method.target == pytest.approx(0.75 - (16 * 16 + 16) / (2 * 16 * 16))
    differs = contrast(*(arm.method.taxonomy for arm in pairs["P7"]))
    assert PAIRS[6].must <= differs <= PAIRS[6].must | PAIRS[6].may
    (gap,) = measure(pairs, network, task, recipe, seeds=(0,))
    wanted = 8 * 16 + 16 * 4 + 0.75 * 4 * 2 * 16 * 16
    assert gap.steps == (200, 200) and gap.macs == pytest.approx((wanted, wanted), rel=0.15)
    with pytest.raises(SettingError, match="the gates alone cost"):
        gated_pair(network, task, 0.5)
