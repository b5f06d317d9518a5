"""Where units of text end, what they hold, and that joined they are the whole text."""

import re

import pytest
import torch
from tiny_text import (
    LETTERS,
    TOKENIZER,
    grow,
    grown_out,
    model,
    planted,
)

from prunus.generators.text import TextGenerator
from prunus.generators.written import Written
from prunus.roles import CHUNK, WHOLE, View


@pytest.fixture(scope="module")
def llama():
    return model()


@pytest.fixture(scope="module")
def letters():
    return model(tokenizer=LETTERS)


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
