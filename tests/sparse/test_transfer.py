"""Pruning on one task, training on another."""

from dataclasses import replace

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Recipe
from prunus.sparse.data import of_classes
from prunus.sparse.methods import OneShot
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.task import mixed_seed
from prunus.sparse.training import train
from prunus.sparse.transfer import Transferred, transfer_pairs


def build():
    return mlp(8, 16, 12, 4)


def test_transfer_takes_the_mask_and_perhaps_the_weights_of_the_other_task():
    task = blobs()
    source, target = of_classes(task, [0, 1]), of_classes(task, [2, 3])
    recipe = Recipe(10, 0.01)
    for name, (original, transfer) in transfer_pairs(build, source, 0.25).items():
        kept = transfer.run(build, target, recipe, seed=0)
        assert kept.steps == original.run(build, target, recipe, seed=0).steps == 20
        dense = drawn(build, 0)
        train(dense, source, recipe, order=0)
        shot = replace(original.method, retrain="none", pretrain=0)
        masks = shot.run(lambda dense=dense: dense, source, recipe).masks
        assert kept.masks == masks
        network = drawn(build, 0) if "mask" in name else dense
        train(network, target, recipe, order=mixed_seed(0, 1), masks=masks)
        expected = dict(network.named_parameters())
        assert all(torch.equal(p, expected[n]) for n, p in kept.model.named_parameters())
    # where both tasks are one, transfer is what it is held against
    for original, transfer in transfer_pairs(build, target, 0.25).values():
        same = [arm.run(build, target, recipe, seed=3) for arm in (original, transfer)]
        assert same[0].masks == same[1].masks
        assert same[0].levels[-1].validation == same[1].levels[-1].validation
    with pytest.raises(SettingError, match="finetune or rewind"):
        Transferred(source, OneShot(0.1, at="init"))


def test_the_tasks_of_transfer_share_no_class():
    task = blobs()
    low, high = of_classes(task, [0, 1]), of_classes(task, (2, 3))
    assert set(low.test[1].tolist()) == {0, 1} and set(high.train[1].tolist()) == {2, 3}
    assert len(low.train[0]) + len(high.train[0]) == len(task.train[0]) and low.batch_size == task.batch_size
    with pytest.raises(SettingError, match="classes"):
        of_classes(task, [7])
