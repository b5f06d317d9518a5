"""``prunus convert``: the folder that it makes, what it says and guesses, and that a failure leaves nothing behind."""

import json
import shutil

import original_wan as wan
import pytest
import torch

from prunus.cli import main
from prunus.commands import convert as command
from prunus.generators.video_model import Streaming


@pytest.fixture
def checkpoint(tmp_path):
    tensors = wan.original(wan.transformer(1))
    file = tmp_path / "self_forcing_dmd.pt"
    torch.save({"generator": tensors, "generator_ema": tensors}, file)
    return file


def run(*arguments):
    """The exit code; 0 if the command returned."""
    try:
        main(["convert", *map(str, arguments)])
    except SystemExit as stopped:
        return stopped.code or 0
    return 0


def test_a_checkpoint_becomes_a_model_folder(tmp_path, capsys, checkpoint, video_folder):
    out, base = tmp_path / "out", tmp_path / "base"
    shutil.copytree(video_folder, base)  # its text encoder and autoencoder have the tiny checkpoint's sizes
    assert run(checkpoint, out, "--base", base, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["weights"], result["not_taken"], result["family"]) == (
        "generator_ema",
        ["generator"],
        "self-forcing",
    )
    assert result["assumed"][0].startswith("family self-forcing (from its path")
    assert result["missing"] == []
    streaming = Streaming.load(out)
    assert (streaming.cache.chunk, streaming.cache.window, streaming.cache.sink) == (3, 21, 0)
    assert (streaming.fps, streaming.size, streaming.text_length) == (16, (480, 832), 512)
    assert {p.name for p in out.iterdir()} == {"transformer", "streaming.json", "vae", "text_encoder", "tokenizer"}
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (out / weights).samefile(base / weights)
    assert not (out / "vae/config.json").samefile(base / "vae/config.json")


def test_the_folder_loads_as_a_streaming_model(tmp_path, checkpoint, video_folder):
    """Through the ordinary loader, at a tiny size."""
    from prunus.generators.video_model import VideoModel

    out = tmp_path / "out"
    assert run(checkpoint, out, "--base", video_folder, "--quiet") == 0
    settings = json.loads((out / "streaming.json").read_text()) | {"size": [64, 64], "text_length": 12}
    (out / "streaming.json").write_text(json.dumps(settings))
    model = VideoModel.load(out)
    assert model.streaming.sampler.sigmas == pytest.approx([1, 0.9375, 5 / 6, 0.625])
    model.text("a red circle")  # the base's text encoder feeds the converted transformer
    assert model.config.num_layers == 1


@pytest.mark.parametrize("family, sigmas", [("causvid", [1, 0.757, 0.522]), ("longlive", [1, 0.9375, 5 / 6, 0.625])])
def test_every_family_has_a_streaming_file_that_loads(tmp_path, checkpoint, family, sigmas, capsys):
    assert run(checkpoint, tmp_path / "out", "--family", family) == 0
    assert Streaming.load(tmp_path / "out").sampler.sigmas == pytest.approx(sigmas)
    text = capsys.readouterr().out
    assert "weights   generator_ema of the checkpoint (also there: generator; --weights chooses)" in text
    assert "missing   vae, text_encoder, tokenizer: copy them" in text
    assert "assumed   family" not in text


def test_the_family_is_guessed_from_path_lora_and_nesting(tmp_path):
    guess = command.guess_family
    assert guess(tmp_path / "LongLive-1.3B/models/longlive_base.pt", False, True)[0] == "longlive"
    assert guess(tmp_path / "CausVid/model.pt", True, True)[0] == "causvid"
    assert guess(tmp_path / "a/b/model.pt", True, True) == ("longlive", "it has a LoRA")
    assert guess(tmp_path / "a/b/model.pt", False, True)[0] == "self-forcing"
    assert guess(tmp_path / "a/b/model.safetensors", False, False)[0] == "wan"


def test_force_replaces_the_model_and_keeps_the_rest(tmp_path, capsys, checkpoint):
    out = tmp_path / "out"
    assert run(checkpoint, out) == 0
    (out / "vae").mkdir()
    (out / "transformer/old").touch()
    assert run(checkpoint, out) == 2
    assert "exists; name another folder, or replace the model in it with --force" in capsys.readouterr().err
    assert (out / "transformer/old").exists()
    assert run(checkpoint, out, "--force", "--family", "wan") == 0
    # A bidirectional model has no streaming.json, not even the older one.
    assert {p.name for p in out.iterdir()} == {"transformer", "vae"} and not (out / "transformer/old").exists()
    text = capsys.readouterr().out
    assert "streaming none: a bidirectional model" in text and "missing   text_encoder, tokenizer" in text
    other = tmp_path / "photos"
    other.mkdir()
    (other / "one.jpg").touch()
    assert run(checkpoint, other, "--force") == 2
    assert "is not a model folder" in capsys.readouterr().err
    assert run(out / "transformer/diffusion_pytorch_model.safetensors", out, "--force") == 2
    assert "lies in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (("--family", "sora"), "--family = 'sora' is not allowed; --family must be one of self-forcing, causvid"),
        (("--lora-alpha", "4"), "left out where no --lora is given"),
        (("--weights", "ema"), "no weights named 'ema'; it holds generator, generator_ema"),
        (("--base", "nowhere"), "has no vae folder"),
        (("--lora", "nowhere.pt"), "nowhere.pt is not there"),
    ],
)
def test_wrong_options_are_told_and_leave_nothing(tmp_path, capsys, checkpoint, options, message):
    assert run(checkpoint, tmp_path / "new" / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_base_of_another_model_is_refused(tmp_path, capsys, checkpoint):
    base = tmp_path / "base"
    (base / "vae").mkdir(parents=True)
    (base / "vae/config.json").write_text('{"z_dim": 48}')
    assert run(checkpoint, tmp_path / "out", "--base", base) == 2
    assert "has z_dim 48, this transformer needs 4" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(tmp_path, capsys, checkpoint, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    assert run(checkpoint, tmp_path / "out") == 2
    assert "No space left on device; nothing was changed" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.name]
