"""Text by steps: the contract, plain transformers as the reference, what is counted and what is held."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_text import COPIED, FULL, byte_tokenizer, letter_tokenizer, network

from prunus import Budget, Cost, Tree, search, search_many
from prunus.errors import ModelError, PromptError, SettingError
from prunus.generators.sampling import Stream
from prunus.generators.text import TextGenerator, TextHow
from prunus.generators.text_model import TextModel
from prunus.generators.written import Written
from prunus.roles import CHUNK, WHOLE, View
from prunus.search import restore
from prunus.strategies import Beam, BestOfN
from prunus.testing import assert_same_tree, check_generator
from prunus.tree import seed_of

TOKENIZER = byte_tokenizer()
LETTERS = letter_tokenizer()


def model(kind="llama", tokenizer=TOKENIZER, **sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return TextModel(network(kind, len(tokenizer), **sizes), tokenizer, kind)


@pytest.fixture(scope="module")
def llama():
    return model()


@pytest.fixture(scope="module")
def letters():
    return model(tokenizer=LETTERS)


def liking(text, prompt):
    """A reward that has nothing to do with anything, but is not alike for two texts."""
    return seed_of(str(text)) / 2**63


def asks(tree, parents, **how):
    return tree.number([tree.ask(parent, **how) for parent in parents])


def planted(generator, prompt, seed=0):
    tree = Tree(prompt, seed, generator)
    tree.root.state = generator.begin(prompt)
    return tree


def grow(tree, parents, **how):
    rows = asks(tree, parents, **how)
    nodes = tree.add(rows, tree.generator.grow(rows))
    tree.settle(())
    return nodes


def grown_out(generator, prompt, branches=1, seed=0, **how):
    tree = planted(generator, prompt, seed)
    grow(tree, [tree.root] * branches, **how)
    while tree.frontier:
        grow(tree, tree.frontier, **how)
    return tree


# ---- the contract and the reference ------------------------------------------------------------------------------


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


# ---- steps -------------------------------------------------------------------------------------------------------


def whole_text(made, prompt, leaf):
    tokens = [t for node in leaf.units() for t in node.unit["tokens"].tolist() if t not in made.ends]
    begun = made.encode(prompt)
    return made.decode([*begun, *tokens])[len(made.decode(begun)) :]


@pytest.mark.parametrize("step", [1, 3, "\n", re.compile("[aeiou]")])
def test_steps_joined_are_exactly_the_whole_text(llama, step):
    """Random bytes, most of which are no characters; each step ends where it should."""
    generator = TextGenerator(llama, step, max_tokens=40)
    tree = grown_out(generator, "汉字 ab", branches=4)
    for leaf in tree.finished:
        written = generator.output(leaf)
        assert written == whole_text(llama, "汉字 ab", leaf) == "".join(written.steps)
        assert len(written.steps) == leaf.depth
        for node in leaf.units()[:-1]:
            assert node.unit["reason"] == "step" and generator.step.reached(node.unit["text"], len(node.unit["tokens"]))


def test_characters_of_several_tokens_are_never_torn():
    """A network that writes a given text: its bytes are tokens, a step ends after each two of them."""
    text = "é汉👩‍👧 ab"
    tokens = TOKENIZER(text, add_special_tokens=False).input_ids
    generator = TextGenerator(reciting([*tokens, 1]), 2)
    tree = grown_out(generator, "x")
    [leaf] = tree.finished
    assert generator.output(leaf) == text and leaf.unit["reason"] == "end"
    assert all("\ufffd" not in node.unit["text"] for node in leaf.units())
    assert "" in generator.output(leaf).steps  # a step in which no character was completed


class Reciting(torch.nn.Module):
    """Stands in for an engine: the next token is the next of a list, whatever was written."""

    def __init__(self, tokens, vocabulary):
        super().__init__()
        self.tokens, self.vocabulary, self.empty = tokens, vocabulary, Said()

    def forwards(self, tokens, context):
        return 1

    def logits(self, said):
        row = torch.full((self.vocabulary,), -20.0)
        row[self.tokens[min(said, len(self.tokens) - 1)]] = 20.0
        return row

    def read(self, contexts, tokens):
        grown = [Said(c.length + len(t), c.said + (len(t) if c.length else 0)) for c, t in zip(contexts, tokens)]
        return grown, torch.stack([self.logits(c.said) for c in grown])

    def write(self, contexts):
        return Saying(self, list(contexts))


class Said:
    def __init__(self, length=0, said=0):
        self.length, self.said = length, said

    def tensors(self):
        return iter(())


class Saying:
    def __init__(self, engine, contexts):
        self.engine, self.contexts = engine, contexts

    def step(self, tokens):
        self.contexts = [Said(c.length + 1, c.said + 1) for c in self.contexts]
        return torch.stack([self.engine.logits(c.said) for c in self.contexts])

    def keep(self, rows):
        self.contexts = [self.contexts[row] for row in rows]

    def context(self, row):
        return self.contexts[row]


def reciting(tokens, tokenizer=TOKENIZER):
    made = model(tokenizer=tokenizer)
    made.engine = Reciting(tokens, len(tokenizer))
    return made


def recited(text, step="\n", end=True, **settings):
    tokens = TOKENIZER(text, add_special_tokens=False).input_ids
    return grown_out(TextGenerator(reciting([*tokens, *[1] * end]), step, **settings), "x").finished[0]


def reasons(leaf):
    return [(node.unit["text"], node.unit["reason"]) for node in leaf.units()]


def test_why_a_unit_ends():
    assert reasons(recited("7+5=12\n12*3=36\nanswer 36")) == [
        ("7+5=12\n", "step"), ("12*3=36\n", "step"), ("answer 36", "end"),
    ]  # fmt: skip
    assert reasons(recited("\n\na\n\n\nb")) == [("\n\na\n", "step"), ("\n\nb", "end")]
    assert reasons(recited("a\nbcdefgh", max_tokens=5)) == [("a\n", "step"), ("bcd", "length")]
    assert reasons(recited("cdefg\nh", max_step=3)) == [("cde", "step"), ("fg\n", "step"), ("h", "end")]
    assert reasons(recited("a\nb\nc\n", max_steps=2)) == [("a\n", "step"), ("b\n", "length")]
    assert reasons(recited("a. B c! d", re.compile(r"[.!]"))) == [("a.", "step"), (" B c!", "step"), (" d", "end")]


def test_a_stop_string_ends_the_text_and_is_not_in_it():
    assert reasons(recited("a\nb STOP c", stop=["STOP"])) == [("a\n", "step"), ("b ", "end")]
    assert reasons(recited("a STOQ STOP", stop=["STOP", "Q ST"])) == [("a STO", "end")]
    # It may have begun in the step before, whose text stands.
    assert reasons(recited("a\n\nQ: b", stop=["\n\nQ:"])) == [("a\n", "step"), ("", "end")]


def test_a_length_cut_is_done_and_not_whole():
    leaf = recited("abcdefgh", max_tokens=3)
    generator = TextGenerator(model(), "\n")
    assert leaf.unit["reason"] == "length" and not generator.output(leaf).whole
    assert generator.output(recited("ab")).whole


def test_what_is_written_is_shown_by_views(letters):
    generator = TextGenerator(letters, 4, max_tokens=12)
    tree = planted(generator, "7+5=?")
    [first] = grow(tree, [tree.root])
    [second] = grow(tree, [first], steps=2)
    [last, all_] = (generator.render([second], view)[0] for view in (CHUNK, WHOLE))
    assert isinstance(all_, Written) and all_.steps == (first.unit["text"], second.unit["text"]) and not all_.whole
    assert last == second.unit["text"] and last.steps == (last,)
    assert generator.render([first, second], View(1, progress=True)) == [(first.unit["text"], 4), (last, 2)]
    [ended] = grow(tree, [second])
    assert generator.render([ended], WHOLE)[0].steps == (first.unit["text"], ended.unit["text"])
    assert generator.render([tree.root], WHOLE)[0] == ""


# ---- draws -------------------------------------------------------------------------------------------------------


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


# ---- counting ----------------------------------------------------------------------------------------------------


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


# ---- memory ------------------------------------------------------------------------------------------------------


def held(tree):
    return tree.generator.state_bytes([node.state for node in tree.nodes if node.state is not None])


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


# ---- going on ----------------------------------------------------------------------------------------------------


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


# ---- prompts and settings ----------------------------------------------------------------------------------------


def test_characters_that_the_tokenizer_cannot_write_are_named(letters):
    with pytest.raises(PromptError, match="cannot write 'x', 'é'"):
        TextGenerator(letters).begin("7+x*é=x?")
    silent = model(tokenizer=letter_tokenizer(unknown=False))
    TextGenerator(silent).begin("7+5=?")


def test_a_prompt_beyond_the_context_is_refused(letters):
    assert letters.positions == 512
    assert TextGenerator(letters).begin("1" * 511).most == 1
    with pytest.raises(PromptError, match="has 512 tokens and llama reads 512"):
        TextGenerator(letters).begin("1" * 512)
    with pytest.raises(PromptError, match="empty"):
        TextGenerator(letters).begin("")


def test_a_chat_template_is_used_if_there_is_one():
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}({{ m.content }}){% endfor %}{% if add_generation_prompt %}={% endif %}"
    )
    made = model(tokenizer=tokenizer)
    assert made.decode(made.encode("7+5")) == made.decode(made.encode("7+5", chat=True)) == "(7+5)="
    assert made.decode(made.encode("7+5", chat=False)) == "7+5"
    with pytest.raises(ModelError, match="no chat template"):
        TextGenerator(model(tokenizer=LETTERS), chat=True).begin("7+5")


def test_the_folder_says_how_to_sample_and_when_to_stop(letters):
    from transformers import GenerationConfig

    old = letters.network.generation_config
    letters.network.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.9, top_k=12, max_new_tokens=9, stop_strings="==", eos_token_id=[1, 4]
    )
    try:
        generator = TextGenerator(TextModel(letters.network, LETTERS))
        spec = generator.spec()
        assert (spec["temperature"], spec["top_p"], spec["top_k"]) == (0.7, 0.9, 12)
        assert generator.stop == ("==",) and generator.begin("7").most == 9
        assert generator.model.ends == {1, 4}
        letters.network.generation_config = GenerationConfig(max_length=20)
        assert TextGenerator(letters).begin("7+5=?").most == 15
    finally:
        letters.network.generation_config = old


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_step", 0),
        ("max_steps", -1),
        ("max_batch_tokens", 0),
        ("temperature", -1),
        ("stop", [""]),
        ("top_p", 2),
    ],
)
def test_settings_outside_their_range_are_refused(letters, field, value):
    with pytest.raises(SettingError, match=f"^{field} = "):
        TextGenerator(letters, **{field: value})


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("temperature", -1.0)])
def test_hows_outside_their_range_are_refused(field, value):
    with pytest.raises(SettingError, match=f"^{field} = "):
        TextHow(**{field: value})
