"""Text by steps: the contract, plain transformers as the reference, draws, and going on."""

import numpy as np
import pytest
import torch
from tiny_text import (
    COPIED,
    FULL,
    LETTERS,
    TOKENIZER,
    grow,
    grown_out,
    held,
    liking,
    model,
    network,
    planted,
)

from prunus import Tree, search, search_many
from prunus.generators.sampling import Stream
from prunus.generators.text import TextGenerator
from prunus.search import restore
from prunus.strategies import Beam
from prunus.testing import assert_same_tree, check_generator


@pytest.fixture(scope="module")
def letters():
    return model(tokenizer=LETTERS)


@pytest.mark.parametrize("how", [{}, {"steps": 3}, {"temperature": 1.5}])
@pytest.mark.parametrize("kind", [*FULL, *COPIED])
def test_it_keeps_the_contract(kind, how):
    generator = TextGenerator(model(kind), 5, max_tokens=17)
    check_generator(generator, ["ab c", "hello ab world"], how=how, exact=False)


def test_it_keeps_the_contract_with_steps_of_lines(letters):
    generator = TextGenerator(letters, "\n", max_tokens=60, max_step=20, max_steps=4, stop=["=="])
    check_generator(generator, ["7+5=?", "12*(3+4)=?"], exact=False)


@pytest.mark.parametrize("kind", [*FULL, *COPIED])
def test_log_probabilities_are_those_of_the_plain_forward_on_the_whole_text(kind):
    made = model(kind)
    tree = grown_out(TextGenerator(made, 5, max_tokens=20, top_k=30, temperature=0.9), "hello ab world", branches=3)
    prompt = made.encode("hello ab world")
    for leaf in tree.finished:
        written = np.concatenate([node.unit["tokens"] for node in leaf.units()])
        told = np.concatenate([node.unit["log_probabilities"] for node in leaf.units()])
        logits = made.network(torch.tensor([[*prompt, *written]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(written)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(told), expected, atol=1e-5)
        assert sum(n.log_probability for n in leaf.units()) == pytest.approx(float(expected.sum()), abs=1e-4)


@pytest.mark.parametrize("kind", [*FULL, *COPIED])
def test_greedy_is_generates_greedy(kind):
    made = model(kind)
    tree = grown_out(TextGenerator(made, 4, temperature=0, max_tokens=24), "hello ab world")
    prompt = torch.tensor([made.encode("hello ab world")])
    expected = network(kind, len(TOKENIZER)).generate(prompt, do_sample=False, max_new_tokens=24, pad_token_id=1)
    [leaf] = tree.finished
    assert [t for node in leaf.units() for t in node.unit["tokens"].tolist()] == expected[0, prompt.shape[1] :].tolist()


def test_a_token_is_drawn_by_its_own_number(letters):
    """The first tokens of a path, by hand: the number of (seed, path, position), inverted in the plain distribution."""
    tree = planted(TextGenerator(letters, "\n", max_tokens=30), "7+5=?", seed=3)
    for node in grow(tree, [tree.root] * 3, steps=4):
        text = letters.encode("7+5=?")
        for position, token in enumerate(node.unit["tokens"].tolist()):
            shares = letters.network(torch.tensor([text])).logits[0, -1].double().softmax(-1).cumsum(-1)
            assert token == int((shares <= Stream(3, node.path).at(position)).sum())
            text.append(token)


@pytest.mark.parametrize("kind", ["llama", "sliding window", "hybrid"])
def test_going_on_with_an_unfinished_step_gives_the_same_tokens(kind):
    generator = TextGenerator(model(kind), 7, max_tokens=28, stop=["ab"])
    whole, pieces = grown_out(generator, "hello", branches=4), grown_out(generator, "hello", branches=4, steps=2)
    assert len(pieces.nodes) > len(whole.nodes)
    leaves = (sorted(tree.finished, key=lambda node: node.path) for tree in (whole, pieces))
    for one, other in zip(*leaves, strict=True):
        assert one.path == other.path and one.depth == other.depth
        for a, b in zip(one.units(), other.units(), strict=True):
            assert a.unit["tokens"].tolist() == b.unit["tokens"].tolist() and a.unit["text"] == b.unit["text"]
            assert np.allclose(a.unit["log_probabilities"], b.unit["log_probabilities"], atol=1e-5)


def test_searches_do_not_depend_on_the_batch(letters):
    generator = TextGenerator(letters, "\n", max_tokens=60, max_step=16)
    prompts, seeds = ["7+5=?", "12*(3+4)-5=?", "1+1=?"], [0, 1, 2]
    alone = [search(p, generator, liking, Beam(keep=2, branch=2), seed=s) for p, s in zip(prompts, seeds, strict=True)]
    for batch in (None, 1, 5):
        together = search_many(prompts, generator, liking, Beam(keep=2, branch=2), seeds=seeds, batch=batch)
        for one, other in zip(alone, together, strict=True):
            assert_same_tree(one, other, f"batch = {batch}", tolerance=1e-5)


def test_a_saved_search_goes_on_as_if_it_had_not_stopped(letters, tmp_path):
    from prunus import stream_search

    generator = TextGenerator(letters, "\n", max_tokens=60, max_step=16)
    whole = search("7+5=?", generator, liking, Beam(keep=2, branch=2))
    for stop in (1, 2, 3):
        for event in stream_search("7+5=?", generator, liking, Beam(keep=2, branch=2)):
            if event.kind == "round" and event.tree.round == stop:
                event.tree.save(tmp_path)
                break
        went_on = search(Tree.load(tmp_path), generator, liking, Beam(keep=2, branch=2))
        assert_same_tree(whole, went_on, f"after round {stop}", tolerance=1e-5)


@pytest.mark.parametrize("kind", ["llama", "hybrid"])
def test_restored_states_share_and_cost_each_token_once(kind, tmp_path):
    generator = TextGenerator(model(kind), 5, max_tokens=40)
    tree = planted(generator, "hello ab world")
    grow(tree, grow(tree, [tree.root] * 2) * 2)  # four open nodes of depth 2
    before = held(tree)
    tree.save(tmp_path)
    loaded = Tree.load(tmp_path, generator)
    restore(loaded, generator)
    prompt = len(generator.model.encode("hello ab world"))
    assert loaded.spent.rebuilding.tokens == prompt + 2 * 5 + 4 * 4
    assert kind == "hybrid" or held(loaded) == before
    for a, b in zip(grow(tree, tree.frontier), grow(loaded, loaded.frontier), strict=True):
        assert a.unit["tokens"].tolist() == b.unit["tokens"].tolist() and a.cost == b.cost


def test_a_look_ahead_of_the_text_changes_nothing(letters):
    """What self-evaluation does: a special token behind the text, two logits read."""
    generator = TextGenerator(letters, 4, max_tokens=20)
    tree = planted(generator, "7+5=?")
    nodes = grow(tree, [tree.root] * 3)
    states = [node.state for node in nodes]
    before = held(tree)
    logits = generator.logits_after(states, [[3], [4, 5], []])
    for node, extra, row in zip(nodes, ([3], [4, 5], []), logits, strict=True):
        text = [*letters.encode("7+5=?"), *node.unit["tokens"].tolist(), *extra]
        assert torch.allclose(row, letters.network(torch.tensor([text])).logits[0, -1], atol=1e-5)
    assert held(tree) == before and all(len(state.pending) == 1 for state in states)
    assert generator.look_cost(states, [[3], [4, 5], []]).tokens == 2 + 3 + 1
