"""Models from their configuration alone: parameters, types, and the 1.3B transformer through the streaming code."""

import json

import pytest
import torch

from prunus.errors import ModelError, SettingError
from prunus.generators.kv_cache import unique_bytes
from prunus.generators.wan_configurations import KNOWN, PROMPT, build, read_configuration


def transformer_parameters(layers, width, hidden, text=4096, frequencies=256, patch=4 * 16):
    """Counted from the architecture: linear layers with bias, one query and one key norm per attention."""

    def linear(inputs, outputs):
        return inputs * outputs + outputs

    attention = 4 * linear(width, width) + 2 * width
    layer = 2 * attention + 2 * width + linear(width, hidden) + linear(hidden, width) + 6 * width
    time = linear(frequencies, width) + linear(width, width) + linear(width, 6 * width)
    ends = linear(patch, width) + linear(width, patch) + 2 * width
    return layers * layer + time + linear(text, width) + linear(width, width) + ends


@pytest.fixture(scope="module")
def small():
    return build(KNOWN["wan-1.3b"])


def test_known_models_have_their_parameters(small):
    assert small.weights["transformer"].parameters == transformer_parameters(30, 1536, 8960) == 1_418_996_800
    assert small.weights["vae"].parameters == 126_892_531  # the 508 MB of its float32 file / 4
    assert small.weights["text_encoder"].parameters == 5_680_910_336  # the 11.4 GB of its bfloat16 file / 2
    assert small.weights["text_encoder"].bytes == 2 * 5_680_910_336
    large = KNOWN["wan-14b"].transformer
    assert large["num_attention_heads"] * 128 == 5120
    assert transformer_parameters(40, 5120, 13824) == 14_288_491_584


def test_the_full_size_goes_through_the_streaming_code(small):
    """480 x 832 is 60 x 104 latents and 30 x 52 = 1560 tokens a frame; every chunk that leaves is appended."""
    model = small.model.transformer
    size, text = small.model.latent_size, small.model.text(PROMPT)
    assert size == (60, 104)
    assert text.keys.shape == text.values.shape == (30, 512, 12, 128)
    cache, attended = model.cache(small.model.streaming.cache), []
    for chunk in range(10):
        roomy = cache.make_room(dict.fromkeys(range(1, chunk), "append"))
        context = model.context(roomy, text, size)
        latents = torch.empty(2, 16, 3, *size, device="meta")
        if chunk in (0, 9):
            assert model.velocity(latents, torch.empty(2, device="meta"), [context, context]).shape == latents.shape
        for held in context.blocks:
            assert held.keys.shape == held.values.shape == (30, 3 * 1560, 12, 128)
            assert held.keys.dtype == torch.bfloat16
        (block,) = model.commit(latents[:1], [context])
        assert block.keys.shape == (30, 3 * 1560, 12, 128) and block.keys.is_meta
        assert unique_bytes([block]) == 2 * 30 * 3 * 1560 * 1536 * 2 == 862_617_600
        cache = roomy.commit(block)
        attended.append(cache.frames_attended)
    assert attended == [3, 6, 9, 12, 15, 18, 21, 24, 24, 24]
    # An EMA merge made a new block of the last sink; the cache holds 24 frames, card 01's 6.9 GB.
    assert unique_bytes([cache]) == 8 * 862_617_600


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_folder_weighs_what_it_weighs_when_loaded(video_folder, dtype):
    from prunus.generators.video_model import VideoModel

    loaded = VideoModel.load(video_folder, dtype=dtype)
    parts = {
        "transformer": loaded.transformer.transformer,
        "vae": loaded.decoder.vae,
        "text_encoder": loaded._text_encoder,
    }
    weights = build(read_configuration(video_folder), dtype=dtype).weights
    for name, part in parts.items():
        assert weights[name].parameters == sum(p.numel() for p in part.parameters())
        assert weights[name].bytes == sum(p.nbytes for p in part.parameters())


def test_whether_the_decoder_carries_features_is_read_from_its_weights(video_folder):
    assert not build(read_configuration(video_folder)).model.decoder.framewise  # random taps
    from prunus.pocket import path

    assert build(read_configuration(path("video"))).model.decoder.framewise


def test_a_text_encoder_may_be_missing(video_folder, tmp_path):
    for part in ("transformer", "vae"):
        (tmp_path / part).symlink_to(video_folder / part)
    (tmp_path / "streaming.json").write_text((video_folder / "streaming.json").read_text())
    with pytest.raises(ModelError, match=r"text_encoder/config.json does not exist"):
        read_configuration(tmp_path)
    (tmp_path / "prompt_embeds.safetensors").touch()
    assert set(build(read_configuration(tmp_path)).weights) == {"transformer", "vae"}


def test_what_cannot_be_built_is_explained(video_folder, tmp_path):
    with pytest.raises(SettingError, match=r"size = '480x830' .* width of 16 pixels"):
        build(KNOWN["wan-1.3b"], (480, 830))
    with pytest.raises(ModelError, match=r"neither a folder nor one of wan-1.3b, wan-14b"):
        read_configuration("wan-2b")
    (tmp_path / "streaming.json").write_text((video_folder / "streaming.json").read_text())
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config.json cannot be read"):
        read_configuration(tmp_path)
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"num_layers": "two"}))
    (tmp_path / "vae").symlink_to(video_folder / "vae")
    (tmp_path / "text_encoder").symlink_to(video_folder / "text_encoder")
    with pytest.raises(ModelError, match=r"WanTransformer3DModel of .* cannot be made"):
        build(read_configuration(tmp_path))
