"""Contrasting settings, measured in pairs."""

import statistics

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe
from prunus.sparse.contrasts import (
    COLUMNS,
    Gap,
    choose_rates,
    gated_pair,
    measure,
    report,
    standard_pairs,
)
from prunus.sparse.methods import OneShot
from prunus.sparse.networks import mlp, residual_mlp
from prunus.sparse.table import Arm
from prunus.sparse.taxonomy import PAIRS, contrast
from prunus.sparse.training import cosine

OUTPUT = 12 * 4


def build():
    return mlp(8, 16, 12, 4)


def gap(*differences, pair="P1"):
    return Gap(pair, "a", "b", ([0.5 + d for d in differences], [0.5] * len(differences)), (1, 1), (0.01, 0.01))


def test_arms_have_equal_steps_and_sizes_and_differ_in_their_pair():
    task, seen = blobs(), {}
    pairs = standard_pairs(build, 0.25, task.example, rounds=3)
    for name, arms in pairs.items():
        found = [arm.run(build, task, Recipe(12, 0.01), seed=0) for arm in arms]
        seen[name] = tuple(result.steps for result in found)
        for arm, result in zip(arms, found):
            if arm.name == "structured" or name == "P5":
                assert result.masks is None  # really smaller
                smaller = Masks.of(result.model)
                assert (
                    0.25 * (128 + 192) + OUTPUT >= smaller.total > 0.25 * (128 + 192)
                )  # a channel is 20 to 25 weights
            else:
                assert result.masks.kept == pytest.approx(0.25 * (128 + 192), abs=2)
    assert seen == {"P1": (24, 24), "P2": (48, 48), "P3": (12, 12), "P4": (24, 24), "P5": (24, 24), "P8": (24, 24)}
    for pair in PAIRS:
        if pair.id in pairs:
            differs = contrast(*(arm.method.taxonomy for arm in pairs[pair.id]))
            assert pair.must <= differs <= pair.must | pair.may, pair.id
    gaps = measure({"P8": pairs["P8"]}, build, task, Recipe(12, 0.01), seeds=(0, 1))
    assert [(g.pair, g.one, g.other, g.steps, len(g.differences)) for g in gaps] == [
        ("P8", "layer-wise", "global", (24, 24), 2)
    ]


def test_structured_arms_have_the_most_channels_that_fit():
    for density in (0.1, 0.25, 0.6):
        share = standard_pairs(build, density, torch.zeros(1, 8))["P1"][1].method.density
        widths = [max(1, round(share * n)) for n in (16, 12)]
        sizes = {  # by share, as one would count them
            s: 8 * a + a * b + b * 4
            for s in (i / 1000 for i in range(1, 1001))
            for a, b in [(max(1, round(s * 16)), max(1, round(s * 12)))]
        }
        allowed = round(density * 320) + OUTPUT
        best = max(size for size in sizes.values() if size <= allowed)
        assert 8 * widths[0] + widths[0] * widths[1] + widths[1] * 4 >= best - 8  # totals round a little otherwise


def test_a_gap_is_claimed_from_two_deviations_on():
    assert gap(0.10, 0.11, 0.09).claimed and gap(-0.10, -0.11, -0.09).claimed
    assert not gap(0.10, -0.02, 0.03).claimed and not gap(0.10).claimed and not gap(0.0, 0.0).claimed


@pytest.mark.parametrize(
    ("pair", "sign", "says"),
    [
        ("P1", 1, "as expected"),  # unstructured > structured
        ("P1", -1, "against it"),
        ("P2", -1, "as expected"),  # one-shot <= iterative
        ("P4", 1, "against it"),
        ("P5", 1, "against it"),  # about the same
        ("P6, mask alone", 1, "nothing expected"),
        ("P8", 0, "no claim"),
    ],
)
def test_what_a_claimed_gap_says_of_the_literature(pair, sign, says):
    assert gap(*(sign * d for d in (0.10, 0.11, 0.09)), pair=pair).literature == says


def test_rates_are_chosen_for_each_arm_by_its_validation_score():
    task, rates, seeds = blobs(), (1e-5, 0.02), (100, 101)
    pairs = {"P8": standard_pairs(build, 0.25, task.example)["P8"]}
    chosen = choose_rates(pairs, build, task, Recipe(20), rates, seeds)
    for arm, rate in zip(pairs["P8"], chosen["P8"]):
        scores = [
            statistics.fmean(
                task.evaluate(arm.run(build, task, Recipe(20, r), s).model, "validation").score for s in seeds
            )
            for r in rates
        ]
        assert rate == rates[scores.index(max(scores))] == 0.02
    own = measure(pairs, build, task, Recipe(20), (0, 1), rates={"P8": (1e-5, 0.02)})[0]
    assert own.rates == (1e-5, 0.02) and own.mean < -0.1  # an arm that hardly learns


def test_the_report_has_a_row_of_plain_values_for_each_gap():
    import json

    task = blobs()
    arms = (Arm("a", OneShot(0.25)), Arm("b", OneShot(0.5)))
    gaps = measure({"P7": arms, "P6, other": arms}, build, task, Recipe(4), seeds=(0, 1), split="validation")
    rows = json.loads(json.dumps(report(gaps)))
    assert [row["pair"] for row in rows] == ["P7", "P6, other"] and set(COLUMNS) <= set(rows[0])
    assert rows[0]["gap"] == pytest.approx(rows[0]["one's score"] - rows[0]["other's"])
    assert rows[0]["deviation"] == pytest.approx(gaps[0].deviation) and rows[0]["seeds"] == 2 and rows[0]["steps"] == 8


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
