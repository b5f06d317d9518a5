"""Shared prefixes compute what transformers' plain forward computes on the whole text."""

import pytest
import torch
from tiny_text import COPIED, FULL, network

from prunus.errors import ModelError
from prunus.generators import prefix_cache
from prunus.generators.copied_rows import CopiedRows
from prunus.generators.shared_prefixes import SharedPrefixes
from prunus.generators.text_attention import attend, fold, unfold

VOCABULARY = 50


def tokens(count, seed):
    return torch.randint(2, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def engine(kind):
    plain, same = network(kind, VOCABULARY), network(kind, VOCABULARY)
    return plain, (SharedPrefixes if kind in FULL else CopiedRows)(same)


@torch.no_grad()
def expected(plain, text):
    return plain(torch.tensor([text])).logits[0, -1]


@pytest.mark.parametrize("long", [8, 128])
@pytest.mark.parametrize("kind", [*FULL, *COPIED])
def test_a_tree_of_texts_is_as_the_plain_forward_on_each(kind, long, monkeypatch):
    """Two prompts of different lengths; steps of several lengths that fork; rows that leave on the way."""
    monkeypatch.setattr(prefix_cache, "LONG", long)
    plain, model = engine(kind)
    texts = [tokens(40, 1), tokens(13, 2)]
    contexts, logits = model.read([model.empty] * 2, texts)
    for text, row in zip(texts, logits, strict=True):
        assert torch.allclose(row, expected(plain, text), atol=1e-5)
    # Three children of the first and two of the second, of 4, 1, 6, 2 and 6 tokens, written together.
    parents, steps = [0, 0, 0, 1, 1], [tokens(n, 10 + i) for i, n in enumerate((4, 1, 6, 2, 6))]
    for _ in range(2):
        writing, rows, done = model.write([contexts[p] for p in parents]), list(range(5)), {}
        for at in range(6):
            logits = writing.step(torch.tensor([steps[row][at] for row in rows]))
            for row, out in zip(rows, logits, strict=True):
                assert torch.allclose(out, expected(plain, texts[parents[row]] + steps[row][: at + 1]), atol=1e-5)
            done |= {row: writing.context(i) for i, row in enumerate(rows) if len(steps[row]) == at + 1}
            if left := [i for i, row in enumerate(rows) if len(steps[row]) > at + 1]:
                rows = [rows[i] for i in left]
                writing.keep(left)
        texts = [texts[p] + step for p, step in zip(parents, steps, strict=True)]
        contexts = [done[row] for row in range(5)]
        assert [context.length for context in contexts] == list(map(len, texts))
        parents = [4, 0, 0, 2, 4]  # in no order, and not everyone has children
    # Runs of several tokens, behind contexts of different lengths and behind none, in one call.
    more = [tokens(n, 30 + n) for n in (3, 1, 3, 5)]
    behind = [contexts[0], contexts[3], contexts[1], model.empty]
    _, logits = model.read(behind, more)
    for before, new, row in zip([texts[0], texts[3], texts[1], []], more, logits, strict=True):
        assert torch.allclose(row, expected(plain, before + new), atol=1e-5)


def test_the_network_goes_on_as_before():
    plain, shared = network("llama", VOCABULARY), network("llama", VOCABULARY)
    model = SharedPrefixes(shared)
    text = torch.tensor([tokens(9, 1), tokens(9, 2)])
    mask = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])
    model.read([model.empty], [tokens(9, 1)])
    for options in ({}, {"attention_mask": mask}):
        assert torch.equal(shared(text, **options).logits, plain(text, **options).logits)
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(shared.generate(text, **options), plain.generate(text, **options))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("sliding window", "sliding_window"), ("hybrid", "linear_attention"), ("recurrent", "linear_attention")],
)
def test_what_cannot_share_is_refused_and_left_as_it_was(kind, reason):
    plain = network(kind, VOCABULARY)
    before = plain.config._attn_implementation
    with pytest.raises(ModelError, match=reason):
        SharedPrefixes(plain)
    assert plain.config._attn_implementation == before


def test_attention_that_says_something_else_is_found_out(monkeypatch):
    """An option that no one thought of: the outputs differ, and that is enough."""
    from prunus.generators.text_attention import TextWork

    right = TextWork.attend
    monkeypatch.setattr(TextWork, "attend", lambda self, *inputs: right(self, *inputs) * 1.1)
    with pytest.raises(ModelError, match="the outputs differ"):
        SharedPrefixes(network("llama", VOCABULARY))


@pytest.mark.parametrize("queries", [1, 3, 4, 9])
def test_pieces_merged_by_log_sum_exp_are_attention_to_all(queries):
    random = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(2, 3, n, 8, generator=random) for n in (queries, 9, 9))
    hidden = torch.arange(9) < torch.tensor([9, 7])[:, None, None, None]
    mask = torch.zeros(hidden.shape).masked_fill(~hidden, -torch.inf)
    whole, lse = attend(query, keys, values, 0.3, mask)
    scores = (query @ keys.mT) * 0.3 + mask
    assert torch.allclose(whole, scores.softmax(-1) @ values, atol=1e-6)
    assert torch.allclose(lse, scores.logsumexp(-1), atol=1e-5)
    parts = (attend(query, keys[..., s, :], values[..., s, :], 0.3, mask[..., s]) for s in (slice(0, 4), slice(4, 9)))
    (one, a), (other, b) = parts
    assert torch.allclose(one.lerp(other, torch.sigmoid(b - a).unsqueeze(-1)), whole, atol=1e-6)


def test_folding_queries_is_undone():
    rows = torch.randn(3, 5, 2, 4, 8)  # segments, rows, key-value heads, group, dim
    folded = fold(rows)
    assert folded.shape == (3, 2, 20, 8) and torch.equal(unfold(folded, 4), rows)
