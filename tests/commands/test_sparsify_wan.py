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


TASK = """
import torch

from prunus.sparse.task import Evaluation


class Still:
    measures = "nothing"

    def __init__(self, video):
        self.example = {
            "hidden_states": torch.zeros(1, video.channels, 3, *video.latent_size),
            "timestep": torch.zeros(1),
            "encoder_hidden_states": torch.zeros(1, 4, video.config.text_dim),
        }

    def batch(self, order, step):
        return self.example

    def loss(self, model, batch):
        return model(**batch, return_dict=False)[0].square().mean()

    def evaluate(self, model, split):
        with torch.no_grad():
            return Evaluation(0.0, -float(self.loss(model, self.example)))


def nothing(video):
    return 3
"""


def test_a_task_of_ones_own_trains_a_video_model(video_folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_video_task.py").write_text(TASK)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ("--structured", "channels", "--macs", "0.9", "--steps", "2", "--no-baselines", "--json")
    out = ("--out", tmp_path / "out")
    assert run("sparsify", video_folder, "--data", "my_video_task:Still", *arguments, *out) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["score"] == "nothing" and result["levels"][0]["lines"]["one-shot"]["steps"] == 2
    assert run("sparsify", video_folder, "--data", "my_video_task:nothing", *arguments) == 2
    assert "they must be a Task" in capsys.readouterr().err
    assert run("sparsify", video_folder, "--data", "a.jsonl", "--data", "b.jsonl", *arguments) == 2
    assert "one import path" in capsys.readouterr().err
