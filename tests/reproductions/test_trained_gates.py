"""The miniatures of papers 36 and 53: which arms stand beside each other, and that all of it runs."""

import pytest

from prunus.interval import t_interval
from prunus.reproductions import consensus, pruning_game
from prunus.reproductions.claim import Trial
from prunus.sparse.data import digits
from prunus.sparse.masks import Masks
from prunus.sparse.networks import drawn

pytest.importorskip("torch_pruning")


@pytest.fixture(scope="module")
def game():
    return pruning_game.measure(Trial("dev", smoke=True))


@pytest.fixture(scope="module")
def agreed():
    return consensus.measure(Trial("dev", smoke=True))


def test_all_arms_of_the_game_keep_as_many_neurons_and_take_as_many_steps(game):
    lines = {row["arm"]: row for row in game.rows[:8]}
    pruned = [lines[name] for name in lines if name != "dense"]
    assert len(lines) == 8 and {row["MACs"] for row in pruned} == {64 * 13 + 13 * 6 + 6 * 10}
    assert {row["steps"] for name, row in lines.items() if "scratch-B" not in name} == {30}
    assert [f.baseline for f in game.findings[:4]] == ["alpha = 0", "random neurons", "largest rows (L2)", "scratch-E"]


def test_the_game_goes_on_at_the_same_rate(game):
    rows = {row["arm"]: row for row in game.rows[8:]}
    assert [rows[f"game, {n} x 10 steps"]["steps"] for n in (1, 2, 4)] == [10, 20, 40]
    assert len(rows) == 6 + 4 * 3 and set(game.settings["mean difference of s"]) == set(pruning_game.PUBLISHED)
    # 1 - gamma x travel, and the paper's costs: a tenth of the participation is left after 1 x, nothing after 2 x.
    assert game.findings[5].base.mean == 1 and game.findings[5].value.mean < 0.02


def test_less_left_later_is_no_equilibrium():
    found = pruning_game.still("game", [[0.5, 0.6], [0.4, 0.5], [0.1, 0.2]])
    assert found.verdict == "does not hold here" and "0.55 at 1 x, 0.45 at 2 x, 0.15 at 4 x" in found.reason
    assert pruning_game.still("game", [[0.5, 0.6]] * 3).verdict == "holds"


def test_the_consensus_has_its_baselines_at_its_depth(agreed):
    lines = {row["arm"]: row for row in agreed.rows}
    assert list(lines) == [
        "dense", "random blocks", "smallest blocks", "consensus", "lam_pol = 0", "scratch-E", "scratch-B"
    ]  # fmt: skip
    assert {row["steps"] for row in agreed.rows} == {10} and lines["scratch-E"]["MACs"] == lines["consensus"]["MACs"]
    assert lines["random blocks"]["MACs"] == 64 * 48 + 4 * 2 * 48 * 48 + 48 * 10
    assert 0.5 <= lines["consensus"]["agreement"] <= 1 and len(agreed.settings["blocks kept"]["consensus"]) == 2
    assert t_interval(lines["dense"]["scores"]).mean == lines["dense"]["right"]


def test_blocks_go_whole():
    model = drawn(consensus.network, 0)
    masks = Masks.of(model)
    keep = {name: mask & (not name.startswith(("blocks.1.", "blocks.6."))) for name, mask in masks.items()}
    shorter = consensus.without(model, masks.changed(keep))
    assert len(shorter.blocks) == 6 and shorter.blocks[1] is not model.blocks[2]
    assert (shorter.blocks[1].first.weight == model.blocks[2].first.weight).all()
    assert shorter.eval()(digits().example).shape == (1, 10)
