"""The honest table: what is in it, how it counts, and what it says of differences."""

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.interval import t_interval
from prunus.sparse import Recipe
from prunus.sparse.methods import GMP, LayerLottery
from prunus.sparse.networks import mlp, residual_mlp
from prunus.sparse.table import COLUMNS, Arm, Line, baselines, difference, rows, run_arms


def build():
    return mlp(8, 16, 12, 4)


def narrow():
    return residual_mlp(8, 12, 4, 4)


def test_all_baselines_stand_beside_the_method_at_its_density_and_its_steps():
    arms = [*baselines(0.25), Arm("GMP", GMP(0.25, update_every=2))]
    lines = run_arms(arms, build, blobs(), Recipe(20, 0.01), seeds=(0, 1), scratch="GMP")
    assert list(lines) == ["dense", "random", "magnitude one-shot", "GMP", "scratch-E", "scratch-B"]
    total = 8 * 16 + 16 * 12 + 12 * 4
    for name, line in lines.items():
        kept = total if name == "dense" else round(0.25 * total)
        # random keeps a quarter of each layer, rounded layer by layer
        assert line.density * total == pytest.approx(kept, abs=1), name
        assert line.parameters == pytest.approx(kept + 16 + 12 + 4, abs=1)
        assert len(line.test) == len(line.validation) == 2 and line.seconds > 0
    # a multiply-add is a kept weight here, so that the pruned network costs a quarter: B may train four times as long
    assert {name: line.steps for name, line in lines.items()} == {
        "dense": 20,
        "random": 20,
        "magnitude one-shot": 20,
        "GMP": 20,
        "scratch-E": 20,
        "scratch-B": 80,
    }
    assert lines["GMP"].macs == round(0.25 * total) and lines["dense"].macs == total


def test_scratch_of_a_really_smaller_network_has_its_shape_and_says_when_it_was_cut_short():
    arms = [Arm("layers", LayerLottery(p=2))]
    lines = run_arms(arms, narrow, blobs(), Recipe(10, 0.01), seeds=(0, 1), scratch="layers", cap=1.5)
    one_block, rest = 2 * 12 * 12, 8 * 12 + 12 * 4
    assert lines["scratch-B"].macs == lines["layers"].macs == rest + 2 * one_block
    assert lines["layers"].density == pytest.approx((rest + 2 * one_block) / (rest + 4 * one_block))
    assert lines["scratch-B"].steps == 15 and lines["scratch-B"].capped and not lines["scratch-E"].capped
    assert rows(lines)[-1]["arm"] == "scratch-B (cut short)"


def test_random_pruning_is_drawn_anew_for_each_seed():
    random = baselines(0.25)[1]
    first, again, other = (random.run(build, blobs(), Recipe(4, 0.01), seed).masks for seed in (0, 0, 1))
    assert first == again and first != other


def test_intervals_are_students():
    # worked by hand: mean 2, deviation 1, three values, t = 4.3026527
    found = t_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - 4.3026527 / 3**0.5, 2 + 4.3026527 / 3**0.5))
    a, b = Line("a", test=[0.9, 0.7, 0.8]), Line("b", test=[0.8, 0.6, 0.7])
    found = difference(a, b)  # in pairs, so that what seeds have in common does not widen it
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(SettingError, match="two seeds or more, not 1"):
        t_interval([1.0])


def test_arms_need_names_that_differ():
    with pytest.raises(SettingError, match="names that differ"):
        run_arms([Arm("a", GMP()), Arm("a", GMP())], build, blobs(), Recipe(4))
    with pytest.raises(SettingError, match="one of a"):
        run_arms([Arm("a", GMP())], build, blobs(), Recipe(4), scratch="b")


def test_a_row_has_all_columns():
    lines = {"a": Line("a", [0.5, 0.7], [0.5, 0.5], 10, 100.0, 50.0, 0.5, 1.0), "b": Line("b", [0.4, 0.4])}
    found = rows(lines, against="b")
    assert [tuple(row) for row in found] == [COLUMNS, COLUMNS]
    assert found[0]["against"] == pytest.approx(0.2) and found[1]["against"] == 0
    assert torch.isnan(torch.tensor(rows(lines, against="none")[0]["against"]))
