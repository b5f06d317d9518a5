"""The streaming decoder against diffusers' own decoding of the whole clip."""

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

from prunus.generators import wan_decoder
from prunus.generators.kv_cache import unique_bytes
from prunus.generators.wan_decoder import Features, StreamingDecoder

KINDS = {
    "no temporal compression": {"temperal_downsample": [False, False], "scale_factor_temporal": 1},
    "temporal compression": {"temperal_downsample": [True, True]},
    "residual": {"temperal_downsample": [False, True], "is_residual": True, "patch_size": 2},
}


def build(kind: str) -> AutoencoderKLWan:
    torch.manual_seed(0)
    settings = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 2, 2], "num_res_blocks": 1} | KINDS[kind]
    if settings.get("patch_size"):
        settings |= {"in_channels": 12, "out_channels": 12}
    vae = AutoencoderKLWan(**settings, latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.7, 1.0, 2.0]).eval()
    vae.requires_grad_(False)
    for module in vae.modules():  # random temporal taps strong enough to be seen in the frames
        if isinstance(module, WanCausalConv3d):
            module.weight.mul_(2)
    return vae


def whole(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    with torch.no_grad():
        return vae.decode(latents * std + mean).sample.transpose(1, 2) / 2 + 0.5


def stream(decoder: StreamingDecoder, latents: torch.Tensor, chunks: list[int]) -> torch.Tensor:
    features: list[Features | None] = [None] * len(latents)
    parts = []
    for chunk in latents.split(chunks, 2):
        frames, features = decoder.decode(chunk, features)
        parts.append(frames)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [[7], [3, 3, 1], [1, 3, 3], [1] * 7, [2, 1, 4]], ids=str)
def test_any_chunking_equals_the_whole_clip(kind, chunks):
    vae = build(kind)
    latents = torch.randn(2, 4, 7, 4, 4)
    expected = whole(vae, latents)
    assert expected.std() > 0.02
    assert expected.shape[1] == {"temporal compression": 25, "residual": 13}.get(kind, 7)
    torch.testing.assert_close(stream(StreamingDecoder(vae), latents, chunks), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_features_are_noticed(kind):
    vae = build(kind)
    decoder = StreamingDecoder(vae)
    latents = torch.randn(1, 4, 4, 4, 4)
    fresh, _ = decoder.decode(latents[:, :, 2:], [None])
    assert (fresh[:, -1] - whole(vae, latents)[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_different_histories_in_one_batch(kind):
    decoder = StreamingDecoder(build(kind))
    torch.manual_seed(1)
    pasts = [torch.randn(1, 4, frames, 4, 4) for frames in (1, 3, 3, 6)]
    features = [decoder.decode(past, [None])[1][0] for past in pasts]
    before = [[tensor.clone() for tensor in entry.tensors()] for entry in features]
    chunk = torch.randn(4, 4, 3, 4, 4)
    together, after = decoder.decode(chunk, features)
    for row, entry in enumerate(features):
        alone, alone_after = decoder.decode(chunk[row : row + 1], [entry])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)
        for a, b in zip(after[row].tensors(), alone_after[0].tensors(), strict=True):
            # Features are not normalised: their error is relative to the size of their map.
            torch.testing.assert_close(a, b, atol=1e-5 * max(1.0, float(b.abs().max())), rtol=0)
    for entry, saved in zip(features, before, strict=True):
        torch.testing.assert_close(list(entry.tensors()), saved, atol=0, rtol=0)


@pytest.mark.parametrize("kind, scale", [("temporal compression", 4), ("no temporal compression", 1)])
def test_large_frames_are_decoded_in_several_calls(kind, scale, monkeypatch):
    """Five rows of 3 latent frames of 4 x 4 latents, by its configuration of 8 x 8 pixels: two rows a call,
    and the same frames."""
    decoder = StreamingDecoder(build(kind))
    latents = torch.randn(5, 4, 3, 4, 4)
    expected, after = decoder.decode(latents, [None] * 5)
    then, _ = decoder.decode(latents, after)
    rows = []
    decoder.decoder.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    monkeypatch.setattr(wan_decoder, "MOST_PIXELS", 2 * 3 * scale * 32 * 32)
    frames, split = decoder.decode(latents, [None] * 5)
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(decoder.decode(latents, split)[0], then, atol=1e-5, rtol=0)
    assert set(rows) == {2, 1}
    monkeypatch.setattr(wan_decoder, "MOST_PIXELS", 1)
    rows.clear()
    decoder.decode(latents, [None] * 5)
    assert set(rows) == {1}


def test_features_own_their_memory():
    decoder = StreamingDecoder(build("no temporal compression"))
    _, features = decoder.decode(torch.randn(3, 4, 3, 4, 4), [None] * 3)
    assert sum(t.numel() * 4 for t in features[0].tensors()) == unique_bytes(features[:1])
    assert unique_bytes(features) == 3 * unique_bytes(features[:1])


def test_framewise_autoencoder_carries_nothing_and_decodes_the_same():
    vae = build("no temporal compression")
    assert not StreamingDecoder(vae).framewise
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d):
            module.weight[:, :, :-1] = 0
    decoder = StreamingDecoder(vae)
    latents = torch.randn(2, 4, 5, 4, 4)
    assert decoder.framewise
    assert unique_bytes(decoder.decode(latents, [None, None])[1]) == 0
    torch.testing.assert_close(stream(decoder, latents, [1, 3, 1]), whole(vae, latents), atol=1e-5, rtol=0)
    assert isinstance(vae.decoder.conv_in, WanCausalConv3d), "the model itself must stay as it was"


def test_errors_name_what_is_wrong():
    decoder = StreamingDecoder(build("temporal compression"))
    latents = torch.randn(2, 4, 2, 4, 4)
    with pytest.raises(ValueError, match="2 rows, but there are 1"):
        decoder.decode(latents, [None])
    _, features = decoder.decode(latents, [None, None])
    with pytest.raises(ValueError, match="decode them apart"):
        decoder.decode(latents, [None, features[0]])
