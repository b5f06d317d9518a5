"""The table of search methods for text, their widths, and where rewards come from."""

import pytest
from text_folders import write_folder

from prunus.commands.text_methods import PACKAGED, TEXT_METHODS, fixed_settings, is_wide, text_reward, text_strategy
from prunus.errors import ModelError, SettingError
from prunus.strategies import DVTS, REBASE, Beam, BestOfN, Vote


def strategy(variant, width=None, choose="best", **options):
    return text_strategy(variant, options, width, "prm", choose, str)


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_every_method_is_built_alone_and_at_any_width(name):
    assert strategy(name).reward == "prm"
    for width in (1, 2, 3, 16):
        assert strategy(name, width).reads == strategy(name).reads
    assert is_wide(name, {}) == (name != "plain")


def test_widths():
    assert strategy("best-of-n", 8) == BestOfN(8, "prm")
    assert strategy("rebase", 8) == REBASE(8, reward="prm")
    assert strategy("beam", 16) == Beam(4, 4, reward="prm")
    assert strategy("beam", 2) == Beam(1, 2, reward="prm")
    assert strategy("beam:branch=8", 16) == Beam(2, 8, reward="prm")
    assert strategy("dvts", 16, branch=2) == DVTS(8, 2, reward="prm")
    assert strategy("dvts:keep=2", 4) == DVTS(2, 2, reward="prm")
    assert strategy("mcts", 4).iterations == 16
    assert not is_wide("beam:keep=2:branch=2", {}) and not is_wide("best-of-n", {"n": 3})
    assert fixed_settings("best-of-n", {"n": 3, "keep": 2}) == ("best-of-n", {"n": 3})


def test_votes_go_around_a_strategy():
    vote = strategy("beam", 4, "majority")
    assert isinstance(vote, Vote) and vote.inner == Beam(1, 4, reward="prm") and vote.by == "majority"


@pytest.mark.parametrize(
    ("variant", "message"),
    [("snake", "is unknown; take one of plain"), ("beam:width=3", "width"), ("beam:keep=0", "keep")],
)
def test_bad_variants_are_explained(variant, message):
    with pytest.raises(SettingError, match=message):
        strategy(variant)


def test_rewards_by_name_folder_and_path(tmp_path):
    assert text_reward("none", "cpu").score(["a"], ["b"]) == [0.0]
    steps = text_reward(str(write_folder(tmp_path / "steps", "LlamaForTokenClassification")), "cpu")
    whole = text_reward(str(write_folder(tmp_path / "whole", "LlamaForSequenceClassification")), "cpu")
    assert (type(steps).__name__, steps.name) == ("StepReward", "steps")
    assert (type(whole).__name__, whole.name) == ("OutcomeReward", "whole")
    assert [type(text_reward(name, "cpu")).__name__ for name in PACKAGED] == ["StepReward", "OutcomeReward"]
    assert text_reward("prunus.commands.text_methods:nothing", "cpu").name == "nothing"
    with pytest.raises(SettingError, match="is no folder; take prm, orm, a folder"):
        text_reward("snake", "cpu")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        text_reward(str(tmp_path), "cpu")
    write_folder(tmp_path / "other", "LlamaForCausalLM")
    with pytest.raises(ModelError, match="a reward is a model for token or sequence classification"):
        text_reward(str(tmp_path / "other"), "cpu")
