"""Scratch-E and -B: budgets, arms, and what each starts from."""

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe, prune
from prunus.sparse.macs import macs
from prunus.sparse.methods.scratch import ARMS, Arm, compare_arms, milestones, scratch_budget
from prunus.sparse.networks import mlp
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import channels


def test_the_cards_budgets_and_milestones():
    assert scratch_budget(160, 2.0, 1.25) == 256 and milestones(256) == (128, 192)
    assert scratch_budget(90, 4, 1, cap=180) == 180 and scratch_budget(160, 2.0, 1.25, finetune=40) == 296
    assert int(16 * 0.4) == 6  # ResNet-56-B's first block
    with pytest.raises(SettingError, match="positive"):
        scratch_budget(90, 1, 0)


def test_arms_of_a_really_smaller_network():
    pytest.importorskip("torch_pruning")
    task, recipe = blobs(), Recipe(40, 0.01)

    def half(dense):
        masks = Masks.of(dense)
        masks = prune(dense, masks, 0.5, scope=channels(masks, ["[02].weight"]))
        return remove_channels(dense, masks, task.example), None

    build = lambda: mlp(8, 12, 6, 4)  # noqa: E731
    table = compare_arms(
        build, half, task, recipe, seeds=(0, 1), finetune_steps=5, uniform=lambda: mlp(8, 6, 3, 4), cap=2.0
    )
    assert list(table) == list(ARMS)
    dense, small = macs(build(), task.example), 8 * 6 + 6 * 3 + 3 * 4
    assert table["dense"].macs == dense and table["finetune"].macs == table["small_dense_uniform"].macs == small
    assert {n: arm.steps for n, arm in table.items()} == {
        "dense": 40,
        "finetune": 45,  # the dense training counts where its weights are used
        "finetune_full_lr": 80,
        "scratch_E": 40,
        "scratch_B": 80,
        "small_dense_uniform": 40,
    }
    assert table["scratch_B"].capped and not table["scratch_E"].capped  # 192/78 = 2.46 > 2
    assert all(len(arm.scores) == 2 and 0.2 < arm.mean <= 1 for arm in table.values())


def test_arms_of_a_mask_on_fresh_weights():
    task, recipe = blobs(), Recipe(30, 0.01)
    seen = []

    def shrink(dense):
        masks = prune(dense, Masks.of(dense), 0.4)
        seen.append(masks)
        return dense, masks

    arms = ("finetune", "scratch_E", "scratch_B")
    build = lambda: mlp(8, 12, 4)  # noqa: E731
    table = compare_arms(build, shrink, task, recipe, seeds=(0,), arms=arms, cap=None)
    cost = macs(build(), task.example, seen[0])
    assert table["scratch_E"].macs == cost == pytest.approx(0.4 * 144, abs=0.5)
    assert table["scratch_B"].steps == int(30 * 144 / cost) and not table["scratch_B"].capped
    again = compare_arms(build, shrink, task, recipe, seeds=(0,), arms=("scratch_E",))
    assert again["scratch_E"].scores == table["scratch_E"].scores  # an arm does not depend on the others


def test_an_unknown_arm_and_a_missing_network_are_errors():
    with pytest.raises(SettingError, match="scratch_Z"):
        compare_arms(lambda: mlp(8, 4), lambda m: (m, None), blobs(), Recipe(5), arms=("scratch_Z",))
    with pytest.raises(SettingError, match="uniform"):
        compare_arms(lambda: mlp(8, 4), lambda m: (m, None), blobs(), Recipe(5))


def test_the_spread_is_of_single_seeds():
    assert Arm("x", [0.8, 0.9, 1.0]).deviation == pytest.approx(0.1) and Arm("x", [0.5]).deviation == 0
    assert torch.tensor([0.8, 0.9, 1.0]).std().item() == pytest.approx(0.1)
