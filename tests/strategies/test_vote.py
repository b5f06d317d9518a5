"""Votes against counting by hand."""

import functools

import pytest

from prunus import Score, Status, Tree, search
from prunus.errors import SettingError
from prunus.strategies import Beam, BestOfN, ParticleFilter, Vote
from prunus.testing import ScriptedGenerator, ScriptedReward, ScriptedText, check_strategy
from prunus.tree import Node


def last_word(text):
    """The answer of a text, None if it was cut off."""
    return text.steps[-1].strip() if text.whole else None


def grown(*leaves):
    """A tree with these finished candidates: (answer, score)."""
    writer = ScriptedText(lambda written: {})
    tree = Tree("", generator=writer)
    tree.rewards = ("reward",)
    for i, (answer, score) in enumerate(leaves):
        unit = {"text": answer, "tokens": [0] * len(answer), "reason": "end" if answer else "length"}
        node = Node(i + 1, tree.root, (i,), 1, unit=unit, status=Status.DONE)
        node.scores = {} if score is None else {"reward": Score(score)}
        tree.nodes.append(node)
    return tree


def chosen(by, *leaves):
    node = Vote(BestOfN(), by, answer=last_word).choose(grown(*leaves))
    return node.unit["text"], node.id - 1


def test_the_most_frequent_answer_wins_and_its_best_candidate_is_returned():
    assert chosen("majority", ("7", 0.9), ("5", 0.1), ("5", 0.3), ("5", 0.2)) == ("5", 2)


def test_the_heaviest_answer_wins():
    leaves = [("7", 0.9), ("5", 0.1), ("5", 0.3), ("5", 0.2)]
    assert chosen("weighted", *leaves) == ("7", 0)
    assert chosen("weighted", *leaves, ("5", 0.4)) == ("5", 4)


@pytest.mark.parametrize("by", ["majority", "weighted"])
def test_of_equal_votes_the_answer_of_the_earliest_path_wins(by):
    assert chosen(by, ("7", 0.5), ("5", 0.4), ("7", 0.0), ("5", 0.1))[0] == "7"
    assert chosen(by, ("5", 0.4), ("7", 0.5), ("5", 0.1), ("7", 0.0))[0] == "5"


def test_a_cut_text_does_not_vote():
    assert chosen("majority", ("", 0.9), ("", 0.9), ("5", 0.1)) == ("5", 2)
    assert chosen("weighted", ("", 0.9), ("", 0.9), ("5", None)) == ("5", 2)


def test_with_no_answer_at_all_the_inner_strategy_chooses():
    assert chosen("majority", ("", 0.1), ("", 0.9)) == ("", 1)


def test_a_candidate_that_was_not_scored_weighs_nothing():
    assert chosen("weighted", ("7", None), ("7", None), ("5", 0.1)) == ("5", 2)


def test_a_candidate_that_stands_for_several_has_as_many_votes():
    tree = grown(("7", 0.9), ("5", 0.5), ("5", 0.4))
    tree.note(tree.nodes[1])["count"] = 3.0
    vote = Vote(ParticleFilter(), answer=last_word)
    assert vote.votes(tree) == {"7": 3.0, "5": 2.0}
    assert vote.choose(tree).unit["text"] == "7"
    assert Vote(ParticleFilter(), "weighted", answer=last_word).votes(tree) == pytest.approx({"7": 2.7, "5": 0.9})


def third(content):
    return int(content[-1] * 3)


@pytest.mark.parametrize("inner", [BestOfN(5), BestOfN(5, aggregate="min"), Beam(2, 2), ParticleFilter(5)])
@pytest.mark.parametrize("by", ["majority", "weighted"])
def test_it_grows_what_the_inner_strategy_grows_and_keeps_the_contract(inner, by):
    vote = Vote(inner, by, answer=third)
    check_strategy(vote, seeds=(0,))
    voted, plain = (search("a prompt", ScriptedGenerator(), ScriptedReward(), s) for s in (vote, inner))
    assert [(n.path, n.status, n.unit) for n in voted.nodes] == [(n.path, n.status, n.unit) for n in plain.nodes]


def test_its_spec_names_the_function():
    named = Vote(Beam(), "weighted", answer=third).spec()
    assert named == {"name": "Vote", "inner": Beam().spec(), "by": "weighted", "answer": f"{__name__}:third"}
    assert Vote(Beam(), answer=functools.partial(third)).spec()["answer"] == "functools:partial"


def test_settings_are_checked():
    with pytest.raises(SettingError, match="by = 'all'"):
        Vote(Beam(), "all", answer=third)
    with pytest.raises(SettingError, match="answer = 3"):
        Vote(Beam(), answer=3)
    with pytest.raises(SettingError, match="inner"):
        Vote(None, answer=third)
