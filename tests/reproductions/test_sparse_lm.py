"""The study of one-shot pruning of a language model: its arms, its files, its table."""

import json
import math

import pytest
import tiny_text
import torch
from transformers import AutoTokenizer

from prunus import pocket
from prunus.errors import FileError
from prunus.reproductions import sparse_lm
from prunus.reproductions.sparse_lm import SETTINGS, Study, arms, main, not_moved, table
from prunus.sparse import Masks
from prunus.sparse.methods import SparseGPT


@pytest.fixture
def little(monkeypatch):
    monkeypatch.setattr(sparse_lm, "CALIBRATION", 12)
    monkeypatch.setattr(sparse_lm, "TOKENS", 48)
    monkeypatch.setattr(sparse_lm, "LENGTH", 96)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small random Llama that reads what the packaged one reads."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(pocket.path("lm"))
    sizes = {"max_position_embeddings": 512, "num_hidden_layers": 6, "hidden_size": 16, "intermediate_size": 24}
    tiny_text.network("llama", len(tokenizer), **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def study(folder, model, problems=("1+2=?", "(7+5)*3-4=?"), **about):
    return Study(model, problems, folder, {"split": "dev", **about})


def test_the_dense_model_solves_what_it_is_asked(little, tmp_path):
    row = study(tmp_path, pocket.path("lm")).row("dense", "dense", 0, None)
    assert row["density"] == 1 and row["right"] == [1.0, 1.0]
    assert 0 < row["loss"] < 0.1


def test_every_arm_prunes_as_much_as_its_setting_says(little, tiny, tmp_path):
    given = study(tmp_path, tiny).loaded(0)
    for setting in SETTINGS:
        for name, (how, _) in arms(setting).items():
            model = given.build()
            masks = how(model, given.task, 0)
            assert masks.density == pytest.approx(setting.density, abs=0.02), name
            weights = dict(model.named_parameters())
            assert all(not bool(weights[n][~mask].any()) for n, mask in masks.items()), name


def test_weights_that_do_not_move_are_the_dense_ones(little, tiny, tmp_path):
    given = study(tmp_path, tiny).loaded(0)
    dense, model = given.build(), given.build()
    masks = not_moved(SparseGPT(), model, given.task, 0)
    moved = given.build()
    assert masks == SparseGPT().prune(moved, Masks.of(moved), given.task, 0)
    for name, mask in masks.items():
        weight = dict(model.named_parameters())[name]
        assert torch.equal(weight, dict(dense.named_parameters())[name] * mask)


def test_calibration_text_is_of_the_train_split_and_drawn_by_the_seed(little, tiny, tmp_path):
    one, same, other = (study(tmp_path, tiny).loaded(seed).task.train.tokens for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_what_was_measured_is_not_measured_again(little, tiny, tmp_path):
    first = study(tmp_path, tiny).row("dense", "dense", 0, None)
    path = next(tmp_path.glob("*.json"))
    path.write_text(json.dumps({**first, "loss": 7.0}))
    assert study(tmp_path, tiny).row("dense", "dense", 0, None)["loss"] == 7.0
    with pytest.raises(FileError, match="other settings"):
        study(tmp_path, tiny, problems_of="another day").row("dense", "dense", 0, None)


def test_the_table_has_intervals_and_marks_what_differs():
    def row(loss, right, density=0.5):
        return {"loss": loss, "right": right, "density": density}

    text = table(
        "50 %",
        {
            "dense": [row(math.log(2), [1.0] * 8, 1.0)],
            "magnitude": [row(math.log(4), [0.0] * 8)],
            "SparseGPT": [row(math.log(2), [1.0, 0.0] * 4), row(math.log(3), [1.0, 0.0] * 4)],
        },
    )
    lines = text.splitlines()
    assert "| dense | 1.000 | 2 | 1.000 [1.000, 1.000] | +1.000 [+1.000, +1.000]* |" in lines
    assert "| magnitude | 0.500 | 4 | 0.000 [0.000, 0.000] |  |" in lines
    assert lines[-1].startswith("| SparseGPT | 0.500 | 2.5 ± 6.4 | 0.500 [")  # t of one degree: 12.7 * .707 / sqrt 2


def test_the_command_runs_and_goes_on(little, tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sparse_lm, "SETTINGS", SETTINGS[:1])
    monkeypatch.setattr(sparse_lm, "OPERATIONS", range(2, 4))
    monkeypatch.setattr(sparse_lm, "arms", lambda setting: {"magnitude": arms(setting)["magnitude"]})
    main(["--limit", "1", "--model", str(tiny), "--out", str(tmp_path)])
    first = capsys.readouterr().out
    assert "**50 %**" in first and "channels, 25 % removed: 0." in first
    assert {json.loads(p.read_text())["about"]["split"] for p in tmp_path.glob("*.json")} == {"dev"}
    main(["--limit", "1", "--model", str(tiny), "--out", str(tmp_path)])
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit):
        main(["--limit", "0", "--model", str(tiny), "--out", str(tmp_path)])
