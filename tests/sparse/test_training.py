"""The training loop: seeded by step, counted, and the same from any step on."""

import pytest
import torch
from small_networks import blobs
from torch import nn

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe, train
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.rewind import rewind, snapshot
from prunus.sparse.training import cosine, divided_by_ten, early_stop_iteration

SGD = Recipe(12, 0.05, torch.optim.SGD, cosine)


def noisy():
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 4))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_two_halves_are_the_whole():
    task, whole, parts = blobs(), drawn(noisy, 0), drawn(noisy, 0)
    assert train(whole, task, SGD, order=3).steps == 12
    assert train(parts, task, SGD, order=3, stop=5).steps == 5
    torch.manual_seed(99)  # what happens between does not matter
    assert train(parts, task, SGD, order=3, start=5).steps == 7
    assert same(whole, parts)


def test_another_order_is_another_training_and_the_global_generator_is_left_alone():
    task = blobs()
    a, b = drawn(noisy, 0), drawn(noisy, 0)
    before = torch.random.get_rng_state()
    train(a, task, SGD, order=0)
    train(b, task, SGD, order=1)
    assert not same(a, b) and torch.equal(before, torch.random.get_rng_state())


def test_the_rate_of_a_step_is_that_of_its_place_in_the_whole():
    seen = []
    train(
        drawn(noisy, 0),
        blobs(),
        SGD,
        start=7,
        after_step=lambda _, hold: seen.append(hold._optimiser.param_groups[0]["lr"]),
    )
    assert seen == [0.05 * cosine(step / 12) for step in range(7, 12)]
    assert [divided_by_ten(t) for t in (0, 0.49, 0.5, 0.75)] == pytest.approx([1, 1, 0.1, 0.01])


def test_an_epoch_shows_every_example_once():
    task = blobs(rows=240, batch_size=20)
    epoch = torch.cat([task.batch(0, step)[0] for step in range(6, 12)])
    assert sorted(epoch[:, 0].tolist()) == sorted(task.train[0][:, 0].tolist())
    assert torch.equal(task.batch(0, 7)[0], task.batch(0, 7)[0]) and not torch.equal(
        task.batch(0, 1)[0], task.batch(0, 7)[0]
    )


def test_masks_hold_throughout_and_hooks_see_dense_gradients():
    task, model = blobs(), drawn(lambda: mlp(8, 12, 4), 0)
    masks = Masks.of(model)
    masks = masks.changed({"0.weight": torch.arange(96).view(12, 8) % 3 == 0})
    dense = []

    def look(step, hold):
        assert bool((model[0].weight[~masks["0.weight"]] == 0).all())
        dense.append(bool((model[0].weight.grad[~masks["0.weight"]] != 0).any()))

    train(model, task, Recipe(10), masks=masks, after_step=look)
    assert dense == [True] * 10


def test_validation_is_evaluated_as_often_as_asked_and_at_the_end():
    found = train(drawn(lambda: mlp(8, 12, 4), 0), blobs(), Recipe(25, 0.01), every=10)
    assert [step for step, _ in found.curve] == [10, 20, 25]
    losses = [seen.loss for _, seen in found.curve]
    assert found.early_stop == [10, 20, 25][losses.index(min(losses))]
    assert found.steps_to(2.0) is None and found.steps_to(0.0) == 10
    with pytest.raises(SettingError, match="every"):
        _ = train(drawn(noisy, 0), blobs(), SGD).early_stop


def test_early_stopping_takes_the_first_of_equals():
    assert early_stop_iteration([3.0, 1.0, 2.0, 1.0], 100) == 200


def test_a_loss_that_is_no_number_ends_the_training():
    with pytest.raises(SettingError, match=r"loss is .* at step \d+.*learning_rate"):
        train(drawn(noisy, 0), blobs(), Recipe(50, 1e20, torch.optim.SGD))
    with pytest.raises(SettingError, match="start, stop"):
        train(drawn(noisy, 0), blobs(), SGD, start=5, stop=4)


def test_rewinding_gives_back_everything_that_survives():
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    early = snapshot(model)
    masks = Masks.of(model).changed({"0.weight": torch.eye(6, 8).bool()})
    train(model, blobs(), Recipe(5))
    rewind(model, early, masks)
    for name, value in model.state_dict().items():
        assert torch.equal(value, early[name] * masks[name] if name in masks else early[name])
