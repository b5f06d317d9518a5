"""BiP: the card's worked step, the implicit gradient's derivation, exact counts, and what it is better than."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from small_networks import blobs
from torch import nn

from prunus.errors import SettingError
from prunus.sparse import Masks, Recipe
from prunus.sparse.allocation import Global, Uniform
from prunus.sparse.journal import Journal
from prunus.sparse.learned import ScoreDescent, keep_best
from prunus.sparse.methods import BiP, OneShot
from prunus.sparse.methods.bip import hypergradient
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.task import mixed_seed

THETA, GRAD, M = (torch.tensor(v) for v in ((0.5, -2, 1, 0.1), (0.2, 0.3, -0.1, 0.4), (1.0, 0, 1, 1)))


def build():
    return mlp(8, 30, 20, 4)


def test_the_cards_worked_step():
    found = hypergradient(THETA, GRAD, M, gamma=1.0)
    assert torch.allclose(found, torch.tensor([0.06, -0.60, -0.11, -0.12]))
    descent = ScoreDescent({"w": torch.tensor([0.5, 0.9, 0.4, 0.6])})
    descent.step({"w": found}, rate=0.1)
    assert torch.allclose(descent.scores["w"], torch.tensor([0.494, 0.96, 0.411, 0.612]))
    # weight 1 was pruned, and yet its score rose
    assert keep_best(0.5, Global())(descent.scores)["w"].tolist() == [False, True, False, True]


def test_without_the_implicit_term_it_is_the_straight_through_gradient():
    assert torch.equal(hypergradient(THETA, GRAD, M, None), THETA * GRAD)
    assert bool((hypergradient(THETA, GRAD, M, 2.0) <= THETA * GRAD).all())
    off = BiP(use_implicit=False).gradient(THETA, GRAD, M, THETA.abs())
    assert torch.equal(off, THETA * GRAD)
    assert torch.equal(BiP(gamma=2.0).gradient(THETA, GRAD, M, THETA.abs()), hypergradient(THETA, GRAD, M, 2.0))


def test_the_implicit_gradient_is_the_derivative_through_the_lower_level():
    """l linear in z has Hessian 0: theta*(m) = -m c / gamma in closed form, and l(m theta*(m)) is differentiated."""
    c, gamma = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64), 0.8
    m = torch.tensor([1.0, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    theta = -m * c / gamma
    (expected,) = torch.autograd.grad((c * m * theta).sum(), m)
    assert torch.allclose(hypergradient(theta, c, m, gamma).detach(), expected)


def test_as_published_signs_count_and_the_implicit_term_is_next_to_nothing():
    method, score = BiP.published(), torch.tensor([0.5, -2, 1, 0.1])
    found = method.gradient(THETA, GRAD, M, score)
    direct = torch.tensor([0.1, 0.6, -0.1, 0.04])  # theta g sign(s)
    assert torch.allclose(found, direct - 1e-4 * direct**2) and torch.allclose(found, direct, atol=1e-4)
    start = method.first_scores({"w": THETA})
    assert torch.equal(start["w"], THETA)
    best = BiP.published(0.25).projection(Masks({"w": torch.ones(4).bool()}))
    assert best(start)["w"].tolist() == [False, True, False, False]  # -2
    assert torch.equal(BiP().first_scores({"w": THETA})["w"], torch.tensor([0.5, 1.0, 1.0, 0.1]))  # in the box


def slow(method, task, iterations, seed):
    """One obvious loop: gradients by autograd at a product, plain SGD, top k by sorting all scores."""
    model = drawn(build, seed)
    weights = Masks.of(model).weights(model)
    theta = {n: w.detach().clone() for n, w in model.named_parameters()}
    scores = {n: theta[n].abs().clamp(max=1) for n in weights}
    total = sum(s.numel() for s in scores.values())

    def top(scores):
        values = torch.cat([s.flatten() for s in scores.values()])
        least = values.sort(descending=True).values[round(method.density * total) - 1]
        return {n: (s >= least).float() for n, s in scores.items()}

    def gradients(masks, batch):
        z = {n: (t * masks[n] if n in masks else t).clone().requires_grad_() for n, t in theta.items()}
        loss = task.loss(lambda x: torch.func.functional_call(model, z, (x,)), batch)
        return dict(zip(z, torch.autograd.grad(loss, list(z.values()))))

    masks = top(scores)
    memory, speed = ({n: torch.zeros_like(t) for n, t in theta.items()} for _ in range(2))
    for i in range(iterations):
        alpha = method.alpha * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * i / iterations)))
        beta = method.beta * (1 if i / iterations < 0.5 else 0.1 if i / iterations < 0.75 else 0.01)
        for n, g in gradients(masks, task.batch(mixed_seed(seed, 1), i)).items():
            g = (g * masks[n] if n in masks else g) + method.weight_decay * theta[n]
            memory[n] = method.momentum * memory[n] + g
            theta[n] = theta[n] - alpha * memory[n]
        upper = gradients(masks, task.batch(mixed_seed(seed, 2), i))
        for n in scores:
            g = theta[n] * upper[n] - masks[n] * upper[n] ** 2 / method.gamma
            speed[n] = method.momentum * speed[n] + g
            scores[n] = (scores[n] - beta * speed[n]).clamp(0, 1)
        masks = top(scores)
    return theta, masks


def test_it_is_the_slow_loop():
    task, method = blobs(), BiP(0.3, pretrain=0, iterations=12)
    found = method.run(build, task, Recipe(1), seed=4)
    theta, masks = slow(method, task, 12, seed=4)
    for name, mask in found.masks.items():
        assert torch.equal(mask, masks[name].bool())
    for name, value in found.model.named_parameters():
        assert torch.allclose(value, theta[name] * masks.get(name, 1), atol=1e-6)


class Watched(BiP):
    """Records the masks of all projections."""

    def projection(self, masks):
        project = super().projection(masks)
        self.__dict__["seen"] = []

        def watched(scores):
            self.seen.append(project(scores))
            return self.seen[-1]

        return watched


def test_counts_are_exact_at_every_step_and_weights_come_back():
    method = Watched(0.2, iterations=15)
    found = method.run(build, blobs(), Recipe(10, 0.01))
    assert len(method.seen) == 16 and method.seen[-1] == found.masks
    assert {masks.kept for masks in method.seen} == {round(0.2 * found.masks.total)}
    assert any(not later.within(earlier) for earlier, later in pairwise(method.seen))


def test_all_gradients_are_counted():
    steps = [
        method.run(build, blobs(), Recipe(10, 0.01)).steps
        for method in (BiP(0.2, iterations=15), BiP(0.2, finetune_steps=7), BiP(0.2, pretrain=0))
    ]
    assert steps == [10 + 2 * 15, 10 + 2 * 5 + 7, 2 * 5]


@pytest.mark.parametrize(("scope", "dim"), [("filter", 1), ("channel", 0)])
def test_filters_and_channels_go_whole_as_many_in_each_layer(scope, dim):
    def conv():
        return nn.Sequential(
            nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 4, 3, padding=1), nn.Flatten(), nn.Linear(16, 4),
        )  # fmt: skip

    method = BiP(0.5, scope=scope, iterations=8, exclude=("6.*",))
    found = method.run(conv, blobs(), Recipe(10, 0.01))
    assert list(found.masks) == ["1.weight", "4.weight"]
    for mask in found.masks.values():
        lines = mask.transpose(0, 1 - dim).flatten(1)
        assert bool((lines.all(1) | ~lines.any(1)).all()) and int(lines.any(1).sum()) == len(lines) // 2
    assert method.taxonomy.speedup == {"structured"} and method.taxonomy.scope == "local"
    assert BiP.published(0.5, scope=scope, iterations=3, exclude=("6.*",)).run(conv, blobs(), Recipe(5, 0.01))


def test_it_finds_a_better_mask_than_magnitude_at_a_small_density():
    task, recipe = blobs(), Recipe(60, 0.01)
    ours = [BiP(0.05, iterations=60).run(build, task, recipe, seed=s).levels[-1].validation.loss for s in range(3)]
    shot = OneShot(0.05, finetune_steps=120, finetune_rate=1.0)
    theirs = [shot.run(build, task, recipe, seed=s).levels[-1].validation.loss for s in range(3)]
    assert sum(ours) < sum(theirs)


def test_the_same_seed_gives_the_same_again():
    a, b = (BiP(0.2, iterations=6).run(build, blobs(), Recipe(6, 0.01), seed=2) for _ in range(2))
    assert a.masks == b.masks and torch.equal(a.model[0].weight, b.model[0].weight)


class Killed(Exception):
    pass


def test_a_killed_search_ends_as_one_that_was_not(tmp_path):
    method, recipe = BiP(0.2, iterations=9, pretrain=2, finetune_steps=2), Recipe(6, 0.01)

    def kill(training, step, stop, loss):
        if (training, step) == (2, 7):
            raise Killed

    whole = method.run(build, blobs(), recipe, seed=1)
    with pytest.raises(Killed):
        method.run(build, blobs(), replace(recipe, journal=Journal(tmp_path, 3, kill)), seed=1)
    seen = []
    journal = Journal(tmp_path, 3, lambda training, step, *_: seen.append((training, step)))
    again = method.run(build, blobs(), replace(recipe, journal=journal), seed=1)
    assert seen == [(2, 7), (2, 8), (2, 9), (3, 1), (3, 2)]  # momentum and scores of step 6 were there
    assert again.masks == whole.masks and again.steps == whole.steps == 2 + 2 * 9 + 2
    assert all(torch.equal(v, whole.model.state_dict()[n]) for n, v in again.model.state_dict().items())


def test_no_layer_is_emptied():
    kept = BiP(0.004, iterations=5, allocation=Global(floor=1)).run(build, blobs(), Recipe(5, 0.01)).masks.counts()
    assert min(kept.values()) >= 1
    even = BiP(0.2, iterations=5, allocation=Uniform())
    assert even.taxonomy.scope == "local" and BiP().taxonomy.scope == "global"


@pytest.mark.parametrize(
    "wrong",
    [{"density": 1.0}, {"scope": "x"}, {"gamma": 0}, {"alpha": 0}, {"momentum": 1}, {"iterations": 0}, {"form": "x"},
     {"weight_decay": -1}, {"pretrain": -1}, {"finetune_steps": -1}, {"beta": 0}, {"finetune_rate": 0}],
)  # fmt: skip
def test_settings_are_checked(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        BiP(**wrong)
