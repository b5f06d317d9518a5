"""Text as a task: files, packing, and the loss of packed rows against that of single documents."""

import json
import math

import pytest
import tiny_text
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config

from prunus.errors import FileError, SettingError
from prunus.sparse.models.text_data import IGNORED, Texts, documents, pack, read_jsonl, split_texts


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_packing_keeps_every_token_once_and_scores_what_is_to_be_scored(sizes, length):
    found = [(list(range(100, 100 + size)), min(unscored, size)) for size, unscored in sizes]
    rows = pack(found, length)
    assert rows.tokens.shape == rows.positions.shape == rows.targets.shape
    assert rows.tokens.shape[1] == length
    assert sorted(rows.tokens[rows.tokens > 0].tolist()) == sorted(t for tokens, _ in found for t in tokens)
    scored = rows.targets != IGNORED
    assert torch.equal(rows.targets[scored], rows.tokens[scored])
    # Each piece's first token has nothing before it; the prompt's are read only.
    expected = sum(sum(1 for at in range(len(tokens)) if at >= unscored and at % length) for tokens, unscored in found)
    assert int(scored.sum()) == expected
    assert bool((rows.positions[:, 0] == 0).all())
    assert bool(((rows.positions[:, 1:] == rows.positions[:, :-1] + 1) | (rows.positions[:, 1:] == 0)).all())
    assert not bool(scored[rows.positions == 0].any())


def test_a_packed_row():
    rows = pack([([5, 6, 7], 1), ([8, 9], 1), ([1, 2, 3, 4], 2)], 6)
    assert rows.tokens.tolist() == [[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 0, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 1]]
    no = IGNORED
    assert rows.targets.tolist() == [[no, 6, 7, no, 9, no], [no, no, 3, 4, no, no]]


def gpt2():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, n_positions=32))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "sliding window", "gpt2"])
def test_documents_of_a_row_do_not_see_each_other(kind):
    network = gpt2().eval() if kind == "gpt2" else tiny_text.network(kind, 30)
    texts = [(list(range(2, 2 + n)), 1 + n % 3) for n in (5, 9, 3, 7)]
    together = Texts(*[pack(texts, 16)] * 3).evaluate(network, "test").loss
    nats = count = 0.0
    for tokens, unscored in texts:  # slow and obvious: one document, one row, no padding
        said = network(torch.tensor([tokens])).logits[0].log_softmax(-1).detach()
        for at in range(unscored, len(tokens)):
            nats -= float(said[at - 1, tokens[at]])
            count += 1
    assert together == pytest.approx(nats / count, rel=1e-5)


def test_the_score_is_minus_the_perplexity_and_the_loss_is_nats_a_token():
    network = tiny_text.network("llama", 30)
    rows = pack([(list(range(2, 9)), 1)] * 6, 8)
    task = Texts(rows, rows, rows, batch_size=4)
    seen = task.evaluate(network, "validation")
    assert seen.score == pytest.approx(-math.exp(seen.loss))
    assert float(task.loss(network, task.batch(0, 0))) == pytest.approx(seen.loss, rel=1e-5)
    with pytest.raises(SettingError, match="split"):
        task.evaluate(network, "train")
    assert task.example.shape == (1, 8)


def test_batches_depend_on_order_and_step_alone():
    rows = pack([([n, n + 1], 1) for n in range(2, 26, 2)], 2)
    task = Texts(rows, rows, rows, batch_size=4)
    epoch = torch.cat([task.batch(1, step).tokens for step in range(3)])
    assert sorted(epoch[:, 0].tolist()) == list(range(2, 26, 2))
    assert torch.equal(task.batch(1, 2).tokens, task.batch(1, 2).tokens)
    assert not torch.equal(torch.cat([task.batch(2, step).tokens for step in range(3)]), epoch)


def test_documents_end_with_the_end_of_text_and_prompts_are_not_scored():
    tokenizer = tiny_text.LETTERS
    plain, asked = documents([("", "1+2"), ("1+", "2=3")], tokenizer)
    assert plain[0] == [*tokenizer("1+2").input_ids, tokenizer.eos_token_id] and plain[1] == 1
    assert asked[0] == [*tokenizer("1+2=3").input_ids, tokenizer.eos_token_id] and asked[1] == 2


# ---- files -----------------------------------------------------------------------------------------------------------


def test_both_forms_of_lines_are_read(tmp_path):
    file = write(tmp_path / "a.jsonl", {"text": "one\u2028two"}, {"prompt": "p", "completion": "c", "more": 1})
    file.write_text(json.dumps({"text": "one\u2028two"}, ensure_ascii=False) + "\n\n" + file.read_text())
    assert read_jsonl(file) == [("", "one\u2028two"), ("", "one\u2028two"), ("p", "c")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "fine"}\n{"body": "what"}\n', r"line 2, has body; a line needs a text in the field 'text'"),
        ('{"text": 3}\n', "line 1, has text"),
        ('{"prompt": "p"}\n', "line 1, has prompt"),
        ('["text"]\n', "line 1, has no fields"),
        ("plain words\n", "line 1, is not JSON"),
        ("\n", "has no text in it"),
        ('{"text": ""}\n', "has no text in it"),
    ],
)
def test_lines_of_the_wrong_shape_are_named(tmp_path, content, says):
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(FileError, match=says):
        read_jsonl(file)


def test_files_that_cannot_be_read_are_errors(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        read_jsonl(tmp_path / "absent.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="cannot be read as text"):
        read_jsonl(tmp_path / "bytes.jsonl")


def test_one_file_is_shared_out_by_the_seed_and_three_are_taken_as_they_are(tmp_path):
    file = write(tmp_path / "a.jsonl", *({"text": str(n)} for n in range(20)))
    train, validation, test = split_texts([file], (0.8, 0.1, 0.1), seed=1)
    assert (len(train), len(validation), len(test)) == (16, 2, 2)
    assert sorted(int(text) for part in (train, validation, test) for _, text in part) == list(range(20))
    assert split_texts([file], (0.8, 0.1, 0.1), seed=1) == (train, validation, test)
    assert split_texts([file], (0.8, 0.1, 0.1), seed=2) != (train, validation, test)
    assert [len(part) for part in split_texts([file] * 3)] == [20, 20, 20]
    with pytest.raises(SettingError, match="one JSONL file, or three"):
        split_texts([file] * 2)
    with pytest.raises(SettingError, match="shares"):
        split_texts([file], (0.5, 0.5, 0.5))
    with pytest.raises(SettingError, match="three at least"):
        split_texts([write(tmp_path / "b.jsonl", {"text": "a"}, {"text": "b"})])
