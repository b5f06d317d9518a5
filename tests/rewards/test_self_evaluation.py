"""Self-evaluation on a scripted model: what is read, what is left, and the fitted read-out."""

import math

import pytest
import torch

from prunus import Cost, search
from prunus.errors import FileError, ModelError, SettingError
from prunus.rewards.self_evaluation import Head, SelfEvaluation, win_or_tie
from prunus.strategies.adaptive_sampling import AdaptiveSampling
from prunus.testing import ScriptedGenerator, check_reward


class Model(ScriptedGenerator):
    """Its logits (5) depend on the state's last number and on the tokens that are looked at."""

    def logits_after(self, states, tokens):
        seen = [(s.blocks[-1][-1], sum(t)) for s, t in zip(states, tokens, strict=True)]
        return torch.tensor([[x * (i + 1) + 0.1 * t for i in range(5)] for x, t in seen])

    def look_cost(self, states, tokens):
        return Cost(len(states), sum(len(t) + 1 for t in tokens))  # one token of each state was not read yet


def contents():
    model = Model()
    tree = search("x", model, SelfEvaluation(model, (7,), no=(1,), yes=(3,)), AdaptiveSampling(most=4, tau=1.0))
    return model, [(None, n.state or model._restore(n, tuple(tuple(u.unit["values"]) for u in n.lineage))[0])
                   for n in tree.finished]  # fmt: skip


def test_it_keeps_the_contract():
    model, pairs = contents()
    check_reward(SelfEvaluation(model, (7,), no=(1,), yes=(3,)), pairs, ["x"] * len(pairs))


def test_two_logits_decide_and_spellings_are_added_up():
    model, pairs = contents()
    x = [state.blocks[-1][-1] for _, state in pairs]
    two = SelfEvaluation(model, (7,), no=(1,), yes=(3,)).score(pairs, ["x"] * len(pairs))
    assert two == pytest.approx([math.exp(2 * v) / (math.exp(2 * v) + math.exp(4 * v)) for v in x], abs=1e-6)
    three = SelfEvaluation(model, (7,), no=(1, 0), yes=(3,)).score(pairs, ["x"] * len(pairs))
    no = [math.exp(2 * v) + math.exp(v) for v in x]
    assert three == pytest.approx([n / (n + math.exp(4 * v)) for n, v in zip(no, x, strict=True)], abs=1e-6)


def test_an_evaluation_costs_its_question():
    model = Model()
    assert SelfEvaluation(model, (7, 8), no=(1,), yes=(3,)).cost([3, 1]) == Cost(2, 4)
    assert SelfEvaluation(model, (7,), no=(1,), yes=(3,), price=Cost(1, 2, 50)).cost([3, 1]) == Cost(2, 4, 100)
    model, pairs = contents()
    assert SelfEvaluation(model, (7, 8), no=(1,), yes=(3,)).took(pairs, ["x"] * 4, [0] * 4) == Cost(4, 12)


def test_a_fitted_head_reads_the_chance_off_the_logits(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.2]) + 2
    chance = (1.5 * (x[:, 0] - 2) - 0.2 * (x[:, 1] - 2) + 0.5).sigmoid()
    labels = (torch.rand(4000, generator=generator) < chance).float().tolist()
    head = Head.fit(x, labels, decay=1e-5)
    assert (head(x) - chance).abs().mean() < 0.03
    head.save(tmp_path / "head.safetensors")
    again = Head.load(tmp_path / "head.safetensors")
    assert torch.equal(again(x), head(x))
    model, pairs = contents()
    with pytest.raises(ModelError, match="reads 3 logits, the model has 5"):
        SelfEvaluation(model, (7,), head=head).score(pairs, ["x"] * len(pairs))


def test_a_file_that_is_no_head_is_refused(tmp_path):
    (tmp_path / "head.safetensors").write_text("no")
    with pytest.raises(FileError, match="no head"):
        Head.load(tmp_path / "head.safetensors")
    with pytest.raises(FileError, match="no head"):
        Head.load(tmp_path / "none")


def test_labels_are_wins_and_ties_against_the_other_samples():
    assert win_or_tie([0, 1, 1, 2]) == pytest.approx([0, 2 / 3, 2 / 3, 1])
    assert win_or_tie([0, 0, 0]) == [1, 1, 1]  # a prompt that is never solved
    assert win_or_tie([0.50, 0.52, 0.9], tie=0.05) == [0.5, 0.5, 1]
    with pytest.raises(SettingError, match="two samples"):
        win_or_tie([1.0])


@pytest.mark.parametrize("options", [{"no": (1,)}, {"no": (1,), "yes": (1, 2)}, {}])
def test_answers_are_two(options):
    with pytest.raises(SettingError, match="two answers"):
        SelfEvaluation(Model(), (7,), **options)
