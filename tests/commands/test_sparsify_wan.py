"""``prunus sparsify`` on a folder of a streaming video model: a narrower and a shorter one; heads are refused."""

import json

from command_line import run

from prunus.generators.video_model import VideoModel

SMALL = ("--no-baselines", "--set", "short=2", "--set", "long=1", "--set", "batch_size=1", "--json")


def test_a_narrower_video_model_is_written(video_folder, tmp_path, capsys):
    arguments = ("--structured", "channels", "--sparsity", "0.5", "--out", tmp_path / "out", *SMALL)
    assert run("sparsify", video_folder, *arguments) == 0
    (level,) = json.loads(capsys.readouterr().out)["levels"]
    assert "real on any hardware" in level["written"]["speed_up"]
    assert VideoModel.load(tmp_path / "out" / "model").config.ffn_dim == 24


def test_layers_are_removed_and_heads_cannot_be(video_folder, tmp_path, capsys):
    arguments = ("--structured", "layers", "--sparsity", "0.5", "--out", tmp_path / "layers", *SMALL)
    assert run("sparsify", video_folder, *arguments) == 0
    assert VideoModel.load(tmp_path / "layers" / "model").config.num_layers == 1
    capsys.readouterr()
    heads = ("--structured", "heads", "--sparsity", "0.5", "--out", tmp_path / "heads", *SMALL)
    assert run("sparsify", video_folder, *heads) == 2
    assert "ties the width" in capsys.readouterr().err
