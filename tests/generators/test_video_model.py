"""Loading a model folder, and what is said of one that cannot be used."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from prunus.errors import ModelError, PromptError
from prunus.generators.video_model import VideoModel

PROMPT = "a red circle moving left"


@pytest.fixture
def folder(video_folder, tmp_path):
    return shutil.copytree(video_folder, tmp_path / "model")


def test_sigmas_are_warped_by_the_shift(video_model):
    # card 01: 1000, 750, 500, 250 with shift 5 become 1000, 937.5, 833.3, 625
    assert video_model.streaming.sampler.sigmas == pytest.approx([1.0, 0.9375, 0.83333333, 0.625])


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(ModelError, match=f"has no {part} folder"):
        VideoModel.load(folder)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_damaged_part_is_named(folder, part):
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(b"not a safetensors file")
    with pytest.raises(ModelError, match=f"the {part} in .* cannot be loaded"):
        VideoModel.load(folder)


def test_a_bidirectional_folder_is_refused_with_the_remedy(folder):
    (folder / "streaming.json").unlink()
    with pytest.raises(ModelError, match=r"no streaming\.json.*distilled for streaming"):
        VideoModel.load(folder)


def test_a_wrong_setting_is_named(folder):
    settings = json.loads((folder / "streaming.json").read_text())
    (folder / "streaming.json").write_text(json.dumps({**settings, "window": 2}))
    with pytest.raises(ModelError, match="window is 2"):
        VideoModel.load(folder)
    (folder / "streaming.json").write_text(json.dumps({**settings, "colour": 2}))
    with pytest.raises(ModelError, match="colour"):
        VideoModel.load(folder)


def test_no_folder_and_no_such_dtype(folder):
    with pytest.raises(ModelError, match="is not a folder"):
        VideoModel.load(folder / "nothing")
    with pytest.raises(ModelError, match="float32, bfloat16, float16"):
        VideoModel.load(folder, dtype="int8")


def test_cached_prompt_embeddings_stand_in_for_the_text_encoder(folder):
    whole = VideoModel.load(folder)
    tokens = whole._tokenizer(PROMPT, return_tensors="pt").input_ids
    embeds = whole._text_encoder(tokens).last_hidden_state[0]
    save_file({PROMPT: embeds.contiguous()}, folder / "prompt_embeds.safetensors")
    shutil.rmtree(folder / "text_encoder")
    cached = VideoModel.load(folder)
    torch.testing.assert_close(cached.text(PROMPT).keys, whole.text(PROMPT).keys)
    with pytest.raises(PromptError, match="is not among the 1 prompts"):
        cached.text("a blue square moving up")


def test_text_has_the_length_that_the_model_was_trained_with(video_model):
    assert video_model.text(PROMPT).keys.shape[1] == 12
    with pytest.raises(PromptError, match="tokens; this model reads 12"):
        video_model.text("a red circle moving " + "left " * 20)
