"""GraNet and its baselines: densities by event, dense gradients that bring weights back, exact ends."""

from itertools import pairwise

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe, train
from prunus.sparse.allocation import Uniform
from prunus.sparse.methods import GMP, SET, GraNet, RigL
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.schedule import Cubic


def build():
    return mlp(8, 30, 20, 4)


def followed(method, steps=60, seed=0, recipe=None):
    """The masks after each step, and the model at the end."""
    model = drawn(build, seed)
    masks = method.first_masks(model, seed)
    seen = []

    event = method.events(model, steps, seed)

    def follow(step, hold):
        before = hold.masks
        event(step, hold)
        seen.append(hold.masks)
        for name, weight in hold.masks.weights(model).items():
            assert bool((weight[~hold.masks[name]] == 0).all())
            grown = hold.masks[name] & ~before[name]
            assert bool((weight[grown] == 0).all())

    train(model, blobs(), recipe or Recipe.sgd(steps), masks=masks, after_step=follow)
    return seen, model


@pytest.mark.parametrize("method", [GMP, GraNet])
def test_densities_follow_the_cubic_schedule_exactly_and_hit_the_target(method):
    seen, _ = followed(method(density=0.1, update_every=5, window=(0, 0.5)))
    total = seen[0].total
    for step, masks in enumerate(seen, start=1):
        event = min(step - step % 5, 30)
        assert masks.kept == round(Cubic().density(event / 30, 0.1) * total) if event else masks.total
    assert seen[-1].kept == round(0.1 * total)


def test_a_window_that_ends_between_updates_or_with_the_training_still_hits_the_target():
    for window, update_every in (((0.1, 0.55), 7), ((0, 1.0), 50)):
        seen, model = followed(GraNet(density=0.05, update_every=update_every, window=window))
        assert seen[-1].kept == round(0.05 * seen[-1].total)
        assert sum(int((w != 0).sum()) for w in seen[-1].weights(model).values()) <= seen[-1].kept


def test_pruning_alone_never_grows_and_regrowing_does():
    gmp, _ = followed(GMP(density=0.1, update_every=5))
    assert all(after.within(before) for before, after in pairwise(gmp))
    granet, _ = followed(GraNet(density=0.1, update_every=5))
    assert any(not after.within(before) for before, after in pairwise(granet))


def test_cyclical_pruning_begins_each_cycle_dense_and_ends_at_the_target():
    seen, _ = followed(GMP(density=0.1, update_every=5, window=(0, 1), cycles=3))
    total = seen[0].total
    for step, masks in enumerate(seen, 1):
        if step % 5 == 0:  # cycles of 20 steps: after 5, 10 and 15 a quarter, half and three quarters of one
            progress = 1.0 if step == 60 else step % 20 / 20
            assert masks.kept == round((0.1 + 0.9 * (1 - progress) ** 3) * total)
    assert seen[19].density == seen[39].density == 1.0 and seen[59].kept == round(0.1 * total)


def test_sparse_to_sparse_starts_with_random_erk_masks_of_exact_count():
    method = GraNet(density=0.1, initial_density=0.5, update_every=5)
    first = method.first_masks(drawn(build, 0), 0)
    assert first.kept == round(0.5 * first.total) and first.densities()["4.weight"] == 1.0
    assert first != method.first_masks(drawn(build, 0), 1)
    seen, _ = followed(method)
    assert seen[-1].kept == round(0.1 * first.total)


@pytest.mark.parametrize("method", [RigL, SET])
def test_a_fixed_density_is_kept_in_each_layer_until_three_quarters(method):
    seen, _ = followed(method(density=0.3, update_every=5))
    assert all(masks.counts() == seen[0].counts() for masks in seen)
    assert seen[44] != seen[3] and all(masks == seen[44] for masks in seen[44:])


def test_an_inactive_weight_with_the_largest_gradient_is_regrown():
    model = drawn(build, 0)
    masks = Masks.of(model)
    dead = torch.zeros(30, 8, dtype=torch.bool)
    dead[3, 5] = True  # one weight of the first layer is off
    masks = masks.changed({"0.weight": ~dead})
    method = GraNet(density=0.01, update_every=1, window=(0.9, 1.0), regrow_rate=0.02, regrow_floor=0.02)
    event = method.events(model, 1000, 0)

    def pushed(step, hold):
        model[0].weight.grad[3, 5] = 1e3  # what a dense backward pass would say of it
        event(step, hold)
        assert bool(hold.masks["0.weight"][3, 5]) and model[0].weight[3, 5].item() == 0

    train(model, blobs(), Recipe(1000), masks=masks, stop=1, after_step=pushed)


def test_the_gradient_of_an_inactive_weight_is_that_of_the_network_with_it_off():
    """Nothing masks ``.grad``: what growth reads equals a finite difference."""
    task, model = blobs(), drawn(build, 0).double()
    masks = Masks.of(model).changed({"0.weight": torch.arange(240).view(30, 8) % 2 == 0})
    masks.apply(model)
    x, y = task.batch(0, 0)
    task.loss(model, (x.double(), y)).backward()
    place = next(
        tuple(p) for p in (~masks["0.weight"]).nonzero().tolist() if abs(model[0].weight.grad[tuple(p)]) > 1e-3
    )
    with torch.no_grad():
        values = []
        for shift in (1e-6, -1e-6):
            model[0].weight[place] = shift
            values.append(float(task.loss(model, (x.double(), y))))
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(model[0].weight.grad[place]), rel=1e-4)


def test_momentum_of_dropped_and_grown_weights_is_zero():
    model, method = drawn(build, 0), GraNet(density=0.1, update_every=5)
    recipe = Recipe.sgd(60)
    optimiser = recipe.optimiser_of(model.parameters())
    event = method.events(model, 60, 0)

    def follow(step, hold):
        before = hold.masks
        event(step, hold)
        for name, weight in hold.masks.weights(model).items():
            momentum = optimiser.state[weight]["momentum_buffer"]
            assert bool((momentum[~hold.masks[name] | (hold.masks[name] & ~before[name])] == 0).all())

    train(model, blobs(), recipe, masks=method.first_masks(model, 0), optimiser=optimiser, after_step=follow)


def test_it_runs_as_a_method_and_the_same_again():
    task, recipe = blobs(), Recipe.sgd(60)
    method = GraNet(density=0.2, update_every=5)
    a, b = (method.run(build, task, recipe, seed=3) for _ in range(2))
    assert a.masks == b.masks and a.steps == 60 and a.masks.density == pytest.approx(0.2, abs=0.001)
    assert all(torch.equal(v, b.model.state_dict()[n]) for n, v in a.model.state_dict().items())
    assert a.levels[-1].validation.score > 0.5
    uniform = GMP(density=0.2, update_every=5, allocation=Uniform()).run(build, task, recipe)
    assert uniform.masks.densities() == pytest.approx(dict.fromkeys(uniform.masks, 0.2), abs=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 0.0}, "density"),
        ({"density": 1.0}, "density"),
        ({"density": 0.5, "initial_density": 0.4}, "initial_density"),
        ({"window": (0.5, 0.2)}, "window"),
        ({"regrow_rate": 2}, "regrow_rate"),
        ({"growth": "momentum"}, "growth"),
        ({"dropped": "x"}, "dropped"),
        ({"update_every": 0}, "update_every"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        GraNet(**settings)


def test_updates_that_would_never_come_are_an_error():
    with pytest.raises(SettingError, match="at most the 60 steps"):
        GraNet().run(build, blobs(), Recipe(60))
