"""Lottery tickets: the cards' counts, the published code's extra weight, resets, controls, and a ticket that wins."""

import pytest
import torch
from small_networks import blobs, with_weights
from torch import nn

from prunus.errors import SettingError
from prunus.sparse import Examples, Masks, Recipe, train
from prunus.sparse.methods import IMPRewinding, LotteryTicket
from prunus.sparse.methods.imp_rewinding import choose_rewind
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.rewind import snapshot
from prunus.sparse.task import Evaluation, mixed_seed
from prunus.sparse.tickets import winning
from prunus.sparse.training import Training, cosine

TEN = [[0.1, -0.2, 0.3, -0.4, 0.5, 0.6, -0.7, 0.8, 0.9, -1.0]]
RATES = {"[02].weight": 0.2, "4.weight": 0.1}


def build():
    return mlp(8, 12, 6, 4)


def test_exactly_k_goes_and_the_published_code_bases_take_one_more():
    model = with_weights(TEN)
    masks = Masks.of(model)
    assert LotteryTicket().prune(model, masks)["0.weight"].tolist() == [[False] * 2 + [True] * 8]
    for published in (LotteryTicket.published_google(rates=0.2), LotteryTicket(count="open_lth", scope="global")):
        assert published.prune(model, masks)["0.weight"].tolist() == [[False] * 3 + [True] * 7]


def test_of_equal_weights_exactly_k_go_where_the_published_code_takes_all():
    model = with_weights([[0.5] * 10])
    masks = Masks.of(model)
    assert LotteryTicket().prune(model, masks).kept == 8
    assert LotteryTicket.published_google(rates=0.2).prune(model, masks).kept == 0


def test_open_lth_ranks_over_layers_rounds_up_and_spares_the_output():
    model = with_weights([[0.1, 0.2, 0.3], [5.0, 6.0, 7.0]], [[0.05, 0.4]], [[0.01]])
    method = LotteryTicket.published_open_lth("4.weight")
    masks = method.prune(model, Masks.of(model, method.exclude))
    assert "4.weight" not in masks  # 8 weights: ceil(1.6) = 2, and one more
    assert masks["0.weight"].tolist() == [[False, False, True], [True] * 3] and masks["2.weight"].tolist() == [
        [False, True]
    ]


def test_rates_by_layer_give_the_papers_kept_fractions():
    model = drawn(lambda: mlp(64, 30, 10, 10), 0)
    masks, method = Masks.of(model), LotteryTicket(rates=RATES)
    for round_ in range(1, 5):
        new = method.prune(model, masks)
        assert new.within(masks) and new != masks
        masks = new
        for name, rate in {"0.weight": 0.2, "2.weight": 0.2, "4.weight": 0.1}.items():
            assert masks.densities()[name] == pytest.approx(
                (1 - rate) ** round_, abs=1.5 / masks[name].numel() * round_
            )


def test_the_routine_is_train_prune_reset():
    """Against the algorithm written out."""
    task, recipe = blobs(), Recipe(20, 0.01, decay=cosine)
    found = LotteryTicket(rounds=2, rates=0.3).run(build, task, recipe, seed=5)
    model = drawn(build, 5)
    initial, masks = snapshot(model), Masks.of(model)
    for round_ in range(3):
        model.load_state_dict({n: v * masks[n] if n in masks else v for n, v in initial.items()})
        train(model, task, recipe, order=mixed_seed(5, 1 + round_), masks=masks)
        assert found.levels[round_].masks == masks
        if round_ < 2:
            new = {}
            for name, mask in masks.items():
                left = int(mask.sum()) - round(0.3 * int(mask.sum()))
                score = torch.where(mask, dict(model.named_parameters())[name].detach().abs(), torch.tensor(-1.0))
                new[name] = (
                    torch.zeros_like(mask)
                    .flatten()
                    .index_fill(0, score.flatten().topk(left).indices, True)
                    .view(mask.shape)
                )
            masks = Masks(new)
    assert found.masks == masks and found.steps == 60
    assert all(torch.equal(value, found.model.state_dict()[n]) for n, value in model.state_dict().items())
    assert found.levels[-1].validation == task.evaluate(model, "validation")


def test_rewinding_to_zero_is_the_lottery_ticket_bit_for_bit():
    task, recipe = blobs(), Recipe(15, 0.01)
    ticket = LotteryTicket(rounds=2).run(build, task, recipe, seed=1)
    rewound = IMPRewinding(rounds=2, rewind_to=0).run(build, task, recipe, seed=1)
    assert ticket.masks == rewound.masks and ticket.steps == rewound.steps
    assert all(torch.equal(v, rewound.model.state_dict()[n]) for n, v in ticket.model.state_dict().items())


def test_after_rewinding_weights_statistics_and_rate_are_those_of_step_k():
    def with_norm():
        return nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))

    task, recipe = blobs(), Recipe(20, 0.01, decay=cosine)
    found = IMPRewinding(rounds=1, rates=0.5, rewind_to=6).run(with_norm, task, recipe, seed=2)
    early = drawn(with_norm, 2)
    train(early, task, recipe, order=2, stop=6)
    assert found.ticket.start == 6 and found.steps == 6 + 2 * 14
    assert all(torch.equal(value, found.ticket.state[n]) for n, value in early.state_dict().items())
    assert int(found.ticket.state["1.num_batches_tracked"]) == 6
    model, done = found.ticket.trained(early, task, recipe, order=mixed_seed(2, 2))
    assert done.steps == 14  # at the rates of steps 6 to 19
    assert all(torch.equal(value, found.model.state_dict()[n]) for n, value in model.state_dict().items())
    with pytest.raises(SettingError, match="below the recipe's 20"):
        IMPRewinding(rewind_to=20).run(with_norm, task, recipe)


def test_controls_change_one_thing_each():
    task, recipe = blobs(), Recipe(10, 0.01)
    ticket = LotteryTicket(rounds=2, rates=0.4).run(build, task, recipe).ticket
    fresh = ticket.reinitialised(build, 9)
    assert fresh.masks == ticket.masks and not torch.equal(fresh.state["0.weight"], ticket.state["0.weight"])
    shuffled = ticket.shuffled(9)
    assert shuffled.masks != ticket.masks and shuffled.masks.counts() == ticket.masks.counts()
    assert shuffled.state is ticket.state
    redrawn, mask = ticket.redrawn(9), ticket.masks["0.weight"]
    assert set(redrawn.state["0.weight"][mask].tolist()) <= set(ticket.state["0.weight"][mask].tolist())
    assert not torch.equal(redrawn.state["0.weight"], ticket.state["0.weight"])


def test_training_on_between_rounds_differs_and_still_ends_at_the_reset():
    task, recipe = blobs(), Recipe(15, 0.01)
    on = LotteryTicket(rounds=2, rates=0.4, between="continue").run(build, task, recipe)
    back = LotteryTicket(rounds=2, rates=0.4).run(build, task, recipe)
    assert on.masks != back.masks and on.steps == back.steps
    assert torch.equal(on.ticket.state["0.weight"], back.ticket.state["0.weight"])


def test_winning_needs_speed_and_score():
    def result(stop, score):
        return Training(9, [(stop, Evaluation(0.1, score)), (stop + 9, Evaluation(0.2, score))]), Evaluation(0.1, score)

    dense = result(300, 0.9)
    assert winning(dense, result(300, 0.9)) and winning(dense, result(200, 0.95))
    assert not winning(dense, result(400, 0.95)) and not winning(dense, result(200, 0.89))
    assert winning(dense, result(200, 0.89), slack=0.02)


def test_the_smallest_rewind_that_is_as_good_is_chosen():
    task, recipe = blobs(), Recipe(20, 0.01)
    chosen, tried = choose_rewind(IMPRewinding(rounds=1), build, task, recipe, steps=(0, 5, 50), slack=1.0)
    assert chosen == 0 and list(tried) == [0, 5]
    chosen, tried = choose_rewind(IMPRewinding(rounds=2, rates=0.7), build, task, recipe, steps=(0, 5, 10), slack=0)
    scores = {k: found.levels[-1].validation.score for k, found in tried.items()}
    assert scores[chosen] == max(scores.values()) and all(scores[k] < scores[chosen] for k in scores if k < chosen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds"),
        ({"rates": 1.0}, "rates"),
        ({"scope": "row"}, "layer or global"),
        ({"scope": "global", "rates": {"0.weight": 0.2}}, "one number"),
        ({"rewind_to": -1}, "rewind_to"),
        ({"between": "x"}, "between"),
        ({"count": "x"}, "count"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        LotteryTicket(**settings)


def hidden_pairs(seed=0):
    """64 inputs of which a few matter, so that places matter."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(1200, 64, generator=draw)
    y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()
    parts = zip(x.split([600, 200, 400]), y.split([600, 200, 400]))
    return Examples(*parts, batch_size=60)


def test_a_ticket_beats_its_controls_where_few_weights_are_left():
    task, recipe = hidden_pairs(), Recipe(200, 3e-3)
    scores = {"ticket": [], "reinitialised": [], "shuffled": []}
    network = lambda: mlp(64, 100, 4)  # noqa: E731
    for seed in range(2):
        ticket = LotteryTicket(rounds=5, rates=0.5).run(network, task, recipe, seed=seed).ticket
        for name, control in (
            ("ticket", ticket),
            ("reinitialised", ticket.reinitialised(network, 100 + seed)),
            ("shuffled", ticket.shuffled(seed)),
        ):
            model, _ = control.trained(network(), task, recipe, order=1000 + seed)
            scores[name].append(task.evaluate(model, "test").score)
    mean = {name: sum(values) / len(values) for name, values in scores.items()}
    assert mean["ticket"] > mean["shuffled"] + 0.1 and mean["ticket"] >= mean["reinitialised"] - 0.02
