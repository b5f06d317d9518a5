"""Pruning as a game: the card's numbers, decay without benefit, and what is left in the end."""

import math

import pytest
import torch
from small_networks import blobs

from prunus.errors import SettingError
from prunus.sparse import Recipe
from prunus.sparse.macs import parameters
from prunus.sparse.methods import Game
from prunus.sparse.methods.game import PUBLISHED, Participation, best_response, utility_gradient
from prunus.sparse.networks import drawn, mlp, residual_mlp

pytest.importorskip("torch_pruning")
THETA = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
GRADIENTS = torch.tensor([[0.5, 0.1], [0.1, 0.05]])
PULL = (THETA * GRADIENTS).sum(1)
CARD = {"alpha": 1.0, "beta": 0.1, "gamma": 0.05, "eta": 0.01, "benefit": "paper"}


def build():
    return mlp(8, 16, 12, 4)


def values(tensor):
    return pytest.approx(tensor, abs=1e-6)


def test_the_cards_numbers():
    s = torch.ones(2)
    assert PULL.tolist() == values([0.5, 0.11])
    slope = utility_gradient(THETA, PULL, s, **CARD)
    assert slope.tolist() == values([0.242, -0.148])
    assert best_response(THETA, PULL, s, **CARD).tolist() == values([1, 0.26])
    assert (s + 0.5 * slope).clamp(0, 1).tolist() == values([1, 0.926])


def test_the_gradient_is_that_of_the_utility():
    generator = torch.Generator().manual_seed(0)
    theta, pull = (torch.randn(shape, generator=generator, dtype=torch.double) for shape in ((5, 3), (5,)))
    start = torch.rand(5, generator=generator, dtype=torch.double)
    terms = {"alpha": 2.0, "beta": 0.3, "gamma": 0.2, "eta": 0.1}
    for benefit, sign in (("paper", pull), ("descent", -pull), ("abs", pull.abs())):
        for i in range(5):
            s = start.clone().requires_grad_()
            others = [j for j in range(5) if j != i]
            rivals = sum(start[j] * (theta[i] @ theta[j]) for j in others)
            cost = 0.3 * theta[i].square().sum() * s[i] ** 2 + 0.2 * s[i].abs() + 0.1 * s[i] * rivals
            (2 * sign[i] * s[i] - cost).backward()
            slope = utility_gradient(theta, pull, start, **terms, benefit=benefit)
            assert float(slope[i]) == pytest.approx(float(s.grad[i]), rel=1e-9)
            # The best response is where the utility is largest on a fine grid, the others' s as they are.
            grid = torch.linspace(0, 1, 10001, dtype=torch.double)
            utility = (2 * sign[i] - 0.2 - 0.1 * rivals) * grid - 0.3 * theta[i].square().sum() * grid**2
            best = best_response(theta, pull, start, **terms, benefit=benefit)[i]
            assert float(best) == pytest.approx(float(grid[utility.argmax()]), abs=1e-4)


def test_without_a_quadratic_cost_the_best_response_is_all_or_nothing():
    best = best_response(THETA, PULL, torch.ones(2), gamma=0.2, benefit="paper")
    assert best.tolist() == [1, 0]
    assert best_response(torch.zeros(1, 2), torch.zeros(1), torch.ones(1), beta=0.5).tolist() == [0]


class Still:
    """Players of a layer whose rows have length 1, with no gradient ever."""

    def __init__(self):
        layer = torch.nn.Linear(3, 2, bias=False)
        layer.weight.data = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8]])
        self.players = Participation(torch.nn.Sequential(layer), {"0.weight": "0"})

    def after(self, game, rate, steps):
        for _ in range(steps):
            self.players.update(game, rate)
        return self.players.values["0.weight"].tolist()


def test_without_benefit_s_decays_as_in_closed_form():
    game = Game(alpha=0, beta=0.5, gamma=0)
    assert Still().after(game, 0.002, 2303) == pytest.approx([math.exp(-4.606)] * 2, rel=0.05)
    assert math.exp(-4.606) == pytest.approx(0.01, abs=2e-5)
    assert Still().after(Game(alpha=0, beta=0, gamma=0.1), 0.01, 938) == pytest.approx([0.062] * 2, rel=0.001)
    # The floor holds one of the two above the threshold; the other falls to exactly 0.
    first, second = Still().after(Game(alpha=0, beta=0, gamma=0.1), 0.01, 1010)
    assert first >= 0.01 and second == 0


def test_in_training_the_decay_is_that_of_the_closed_form():
    game = Game(alpha=0, beta=0, gamma=0.1, travel=5)
    found = game.run(build, blobs(), Recipe(50, 0.01), seed=0)
    for s in found.s.values():
        assert s.tolist() == pytest.approx([0.5] * len(s), rel=1e-4)
    assert found.neurons == 1 and found.stopped == 0 and found.steps == 50 and found.masks is None


def test_the_pull_is_the_gradient_at_the_product():
    model, task = drawn(build, 0), blobs()
    players = Participation(model, {"0.weight": "0"})
    with torch.no_grad():
        players.s["0.weight"].fill_(0.5)
    task.loss(model, task.batch(0, 0)).backward()
    layer = model[0]
    # .grad of the weights is s dL/d(s theta).
    by_hand = ((layer.weight.grad * layer.weight).sum(1) + layer.bias.grad * layer.bias) / 0.5
    assert torch.allclose(players.s["0.weight"].grad, by_hand, atol=1e-6)


@pytest.mark.parametrize("network", [build, lambda: residual_mlp(8, 6, 2, 4)])
def test_what_is_left_computes_what_the_gated_network_did(network):
    task = blobs()
    found = Game(alpha=10, gamma=1, density=0.5).run(network, task, Recipe(60, 0.01), seed=1)
    model = drawn(network, 1)
    total = sum(k.numel() for k in found.kept.values())
    assert sum(int(k.sum()) for k in found.kept.values()) == round(total / 2) and 0 < found.stopped <= 30
    assert parameters(found.model) < parameters(model)
    again = Game(alpha=10, gamma=1, density=0.5).run(network, task, Recipe(60, 0.01), seed=1)
    x = task.test[0]
    found.model.eval(), again.model.eval()
    assert torch.equal(found.model(x), again.model(x))
    assert all(((s > 0) == found.kept[name]).all() for name, s in found.s.items())


def test_the_floor_keeps_a_layer_alive():
    found = Game(alpha=0, beta=0, gamma=1, travel=20, floor=2).run(build, blobs(), Recipe(20, 0.01))
    assert {name: int(k.sum()) for name, k in found.kept.items()} == {"0.weight": 2, "2.weight": 2}
    assert [p.shape for n, p in found.model.named_parameters() if "weight" in n] == [(2, 8), (2, 2), (4, 2)]


def test_a_killed_game_goes_on_where_it_was():
    players, other = Still().players, Still().players
    players.update(Game(alpha=0, gamma=0.1), 1.0)
    players.stopped = 7
    other.load_state_dict(players.state_dict())
    assert other.stopped == 7 and torch.equal(other.s["0.weight"], players.s["0.weight"])


def test_published_forms_are_there_by_name():
    assert len(PUBLISHED) == 4
    game = Game.published("extreme beta")
    assert (game.alpha, game.beta, game.gamma, game.benefit, game.density) == (1, 0.5, 0, "paper", None)
    with pytest.raises(SettingError, match="L1 strong"):
        Game.published("L3")


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"benefit": "none"}, {"density": 1}, {"travel": 0}, {"floor": 0}])
def test_wrong_settings_are_named(wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        Game(**wrong)
