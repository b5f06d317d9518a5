"""What growing text reads and holds: each token is read once, and what is shared is held once."""

from dataclasses import replace

import pytest
import torch
from tiny_text import (
    LETTERS,
    asks,
    grow,
    grown_out,
    held,
    liking,
    model,
    network,
    planted,
)

from prunus import Budget, Cost, search, search_many
from prunus.errors import ModelError
from prunus.generators.text import TextGenerator
from prunus.generators.text_model import TextModel
from prunus.strategies import Beam, BestOfN


@pytest.fixture(scope="module")
def letters():
    return model(tokenizer=LETTERS)


class Counting:
    """Counts the tokens that really go through a network, and the rows."""

    def __init__(self, network):
        self.tokens = 0
        network.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module, inputs, output):
        self.tokens += inputs[0].numel()


STRATEGIES = {
    "best of 8": (BestOfN(8), {}),
    "beam": (Beam(keep=4, branch=4), {}),
    "beam, short budget": (Beam(keep=4, branch=4), {"budget": Budget(tokens=700)}),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["llama", "sliding window"])
def test_no_token_is_read_twice(kind, strategy):
    """Tokens read / (the prompt's once + those written) <= 1.05, as counted at the network's embedding."""
    made = model(kind, LETTERS)
    counting = Counting(made.network)
    generator = TextGenerator(made, "\n", max_tokens=80, max_step=16)
    method, options = STRATEGIES[strategy]
    prompts = ["7+5=?", "12*(3+4)-5=?"]
    for tree in search_many(prompts, generator, liking, method, **options):
        read, counting.before = tree.spent.generating.tokens, counting.tokens
        written = sum(
            len(n.unit["tokens"]) - (0 if n.parent.boundary else len(n.parent.unit["tokens"])) for n in tree.nodes[1:]
        )
        assert written > 50 and read <= 1.05 * (len(made.encode(tree.prompt)) + written)
        assert read >= 0.8 * written
    total = sum(tree.spent.generating.tokens for tree in search_many(prompts, generator, liking, method, **options))
    assert counting.tokens - counting.before == total  # what is charged is what was read


def test_costs_by_hand(letters):
    """A prompt of 5 tokens, two children of 4 tokens, and one grandchild of 3."""
    generator = TextGenerator(letters, 4, max_tokens=7)
    tree = planted(generator, "7+5=?")
    first, second = grow(tree, [tree.root] * 2)
    flops = letters.flops
    # The first child pays for the prompt; the last of its own four tokens is not read.
    assert replace(first.cost, seconds=0) == Cost(1 + 3, 5 + 3, flops(5, 0, 1) + flops(3, 5, 3))
    assert replace(second.cost, seconds=0) == Cost(3, 3, flops(3, 5, 3))
    [ask] = asks(tree, [first])
    bound = Cost(1 + 2, 1 + 2, flops(1, 8, 1) + flops(2, 9, 2))
    assert generator.cost([ask]) == bound and generator.units_left(first) == 3
    [third] = grow(tree, [first])
    assert third.cost == bound and third.unit["reason"] == "length"


def test_flops_are_those_that_torch_counts(letters):
    from prunus.generators.wan_flops import flop_counter

    with flop_counter() as counter:
        letters.network(torch.tensor([list(range(3, 13))]), use_cache=False)
    config = letters.config
    # torch counts all pairs of tokens, we count those that causal attention looks at.
    masked = 4 * config.num_hidden_layers * config.hidden_size * (10 * 10 - 10 * 11 // 2)
    norms = 2 * 10 * 32 * (2 * config.num_hidden_layers + 1)  # weights of norms, which are no product
    assert letters.flops(10, 0, 10) - norms == counter.get_total_flops() - masked


def test_a_budget_of_tokens_is_kept(letters):
    generator = TextGenerator(letters, "\n", max_tokens=60, max_step=12, max_steps=5)
    for tokens in (80, 150, 400):
        tree = search("7+5=?", generator, liking, Beam(keep=2, branch=2), budget=Budget(tokens=tokens))
        assert tree.result is not None and tree.spent.total.tokens <= tokens


def test_what_is_shared_is_held_once():
    """4 x 4 on a prompt of 1024 tokens: at most 1.2 times the prompt once and the live new tokens."""
    made = model(tokenizer=LETTERS, max_position_embeddings=2048)
    made.ends = frozenset()
    generator = TextGenerator(made, 12, max_tokens=96)
    token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, key-value heads, dim, bytes
    peaks = []

    def watch(event):
        if event.kind == "round" and event.tree.frontier:
            live = {n for node in event.tree.frontier for n in node.lineage}
            peaks.append(held(event.tree) / (token * (1024 + sum(len(n.unit["tokens"]) for n in live))))

    prompt = ("1+2*3-4" * 200)[:1024]
    assert len(made.encode(prompt)) == 1024
    [tree] = search_many([prompt], generator, liking, Beam(keep=4, branch=4), on_event=watch)
    assert len(peaks) == 7 and max(peaks) <= 1.2
    # Before 12 of 16 are pruned all of them are alive.
    assert tree.spent.peak_bytes <= 1.2 * token * (1024 + 16 * 12 + 4 * 84)


def test_copies_are_warned_of_once_and_seen_in_the_bytes():
    with pytest.warns(UserWarning, match="each has a copy; its attention has sliding_window") as warned:
        copied = TextModel(network("sliding window", len(LETTERS)), LETTERS, "mine")
    assert len(warned) == 1
    trees = []
    for made in (copied, model(tokenizer=LETTERS)):
        tree = planted(TextGenerator(made, 2, max_tokens=20), "7+5=?" * 20)
        grow(tree, [tree.root] * 8)
        trees.append(held(tree))
    # Windows of 8 - 1 tokens for each of 8 rows, and 100 + 8 x 1 tokens shared.
    token = 2 * 2 * 2 * 8 * 4
    assert trees == [8 * 7 * token, (100 + 8) * token]


def test_memory_that_runs_out_halves_the_batches(letters):
    generator = TextGenerator(letters, "\n", max_tokens=30, max_step=10)
    plain = grown_out(generator, "7+5=?", branches=9)
    engine, sizes = letters.engine, []

    class Small:
        empty, forwards, read = engine.empty, engine.forwards, engine.read

        def write(self, contexts):
            sizes.append(len(contexts))
            if len(contexts) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return engine.write(contexts)

    letters.engine = Small()
    try:
        found = grown_out(generator, "7+5=?", branches=9)
        for a, b in zip(plain.nodes[1:], found.nodes[1:], strict=True):
            assert a.unit["tokens"].tolist() == b.unit["tokens"].tolist()
        assert sizes[:4] == [9, 4, 2, 2] and max(sizes[2:]) == 2 and generator.max_batch_tokens == 2
        Small.write = lambda self, contexts: (_ for _ in ()).throw(RuntimeError("can't allocate memory: 8 bytes"))
        with pytest.raises(ModelError, match="memory ran out for a single candidate"):
            grown_out(generator, "7+5=?")
    finally:
        letters.engine = engine


def test_a_bound_on_tokens_splits_the_batches(letters):
    seen = []
    network_, hook = letters.network, lambda module, inputs, output: seen.append(inputs[0].numel())
    handle = network_.get_input_embeddings().register_forward_hook(hook)
    generator = TextGenerator(letters, "\n", max_tokens=30, max_step=10, max_batch_tokens=6)
    search_many(["7+5=?", "1+1=?", "12*3=?"], generator, liking, Beam(keep=4, branch=4))
    handle.remove()
    assert max(seen) == 6
