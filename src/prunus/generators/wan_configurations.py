"""Wan models from their configuration alone: known ones by name, others from a folder, built without weights.

The module's tensors are on torch's meta device: they have shapes and types, but no memory and no values.

| name | transformer | source |
|---|---|---|
| wan-1.3b | 30 layers, 12 heads x 128, feed-forward 8960 | Wan-AI/Wan2.1-T2V-1.3B-Diffusers |
| wan-14b | 40 layers, 40 heads x 128, feed-forward 13824 | Wan-AI/Wan2.1-T2V-14B-Diffusers |

All else of the transformer and the autoencoder are the defaults of diffusers' classes, which are Wan 2.1's. Both read
512 tokens of the encoder of google/umt5-xxl. Their streaming settings (4 steps, shift 5, chunks of 3, window 12, sinks
of 3 to 15 latent frames, 16 frames per second) are those of the published code of paper 01, whose checkpoint has the
1.3B configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prunus.errors import ModelError, require
from prunus.generators.kv_cache import CacheSpec
from prunus.generators.video_model import DTYPES, Streaming, VideoModel, load_part

PROMPT = "a video"  # any: a configuration has no grammar

STREAMING = Streaming(
    timesteps=(1000.0, 750.0, 500.0, 250.0),
    shift=5.0,
    cache=CacheSpec(),
    text_length=512,
    trained_frames=21,
    fps=16,
    size=(480, 832),
)
UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


@dataclass(frozen=True)
class Configuration:
    """What the folders of a model say of it: the keyword arguments of its classes, and how it streams."""

    name: str
    streaming: Streaming
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any] | None
    """None: the folder has prompt embeddings instead."""
    folder: Path | None = None


KNOWN = {
    name: Configuration(name, STREAMING, transformer, {}, UMT5_XXL)
    for name, transformer in {
        "wan-1.3b": {"num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960},
        "wan-14b": {"num_layers": 40, "num_attention_heads": 40, "ffn_dim": 13824},
    }.items()
}


def read_configuration(folder: str | Path) -> Configuration:
    """The configuration of a model folder. Raises ModelError for a part that is missing or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is neither a folder nor one of {', '.join(KNOWN)}; name a diffusers folder or those"
        )
    has_text_encoder = (folder / "text_encoder").is_dir() or not (folder / "prompt_embeds.safetensors").is_file()
    return Configuration(
        str(folder),
        Streaming.load(folder),
        _settings(folder, "transformer"),
        _settings(folder, "vae"),
        _settings(folder, "text_encoder") if has_text_encoder else None,
        folder,
    )


def _settings(folder: Path, part: str) -> dict[str, Any]:
    path = folder / part / "config.json"
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; a streaming model needs one (see docs/models.md)") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); fetch that part again") from error
    return {key: value for key, value in data.items() if not key.startswith("_")}


@dataclass(frozen=True)
class Weights:
    """Parameters of a part, and the bytes that they take."""

    parameters: int
    bytes: int

    @classmethod
    def of(cls, parameters: Iterable[torch.Tensor]) -> Weights:
        several = list(parameters)
        return cls(sum(p.numel() for p in several), sum(p.nbytes for p in several))


@dataclass(frozen=True)
class MetaModel:
    """A model on the meta device, and what its parts would weigh."""

    model: VideoModel
    weights: Mapping[str, Weights]


def build(configuration: Configuration, size: tuple[int, int] | None = None, dtype: str = "bfloat16") -> MetaModel:
    """The model on the meta device, for frames of ``size`` (height, width; default: the configuration's own).

    Of an autoencoder that does not compress time the weights are read, because a decoder whose earlier taps are all
    zero runs in another way; no forward is run on them.
    Raises SettingError for a size that the patches do not divide, ModelError for a configuration that does not stream.
    """
    require(dtype in DTYPES, "dtype", dtype, f"one of {', '.join(DTYPES)}")
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    kind = getattr(torch, dtype)
    transformer = _empty(WanTransformer3DModel, configuration.transformer, configuration.name, kind)
    # The rotary tables are computed, not loaded: they are real, and small.
    transformer.rope = type(transformer.rope)(
        transformer.config.attention_head_dim, transformer.config.patch_size, transformer.config.rope_max_seq_len
    )
    vae = _empty(AutoencoderKLWan, configuration.vae, configuration.name, kind)
    size = size or configuration.streaming.size
    step = [vae.spatial_compression_ratio * patch for patch in transformer.config.patch_size[1:]]
    fits = all(length > 0 and length % unit == 0 for length, unit in zip(size, step, strict=True))
    require(fits, "size", "x".join(map(str, size)), f"height a multiple of {step[0]} and width of {step[1]} pixels")
    weights = {"transformer": Weights.of(transformer.parameters()), "vae": Weights.of(vae.parameters())}
    if configuration.text_encoder is not None:
        weights["text_encoder"] = Weights.of(_text_encoder(configuration.text_encoder, kind).parameters())
    streaming = replace(configuration.streaming, size=size, grammar=None)
    embeds = torch.empty(streaming.text_length, transformer.config.text_dim, device="meta")
    if configuration.folder is not None and not any(vae.config.temperal_downsample):
        vae = load_part(configuration.folder, "vae", AutoencoderKLWan, kind, "cpu")
    model = VideoModel(transformer, vae, streaming, prompt_embeds={PROMPT: embeds}, folder=Path(configuration.name))
    model.decoder.to("meta")
    return MetaModel(model, weights)


def _empty(kind: Any, settings: Mapping[str, Any], name: str, dtype: torch.dtype) -> Any:
    """A diffusers model without weights, in the types in which ``from_pretrained`` would load it."""
    try:
        with torch.device("meta"):
            model = kind.from_config(dict(settings))
    except Exception as error:  # every class checks its own settings
        raise ModelError(f"the {kind.__name__} of {name} cannot be made from its configuration: {error}") from error
    _cast(model, dtype, kind._keep_in_fp32_modules or ())
    return model.eval().requires_grad_(False)


def _cast(model: Any, dtype: torch.dtype, exact: Iterable[str]) -> None:
    """Give the parameters their type, but for those of the modules that stay in float32."""
    kept = set(exact)
    for path, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if kept & set(path.split(".")) else dtype)


def _text_encoder(settings: Mapping[str, Any], dtype: torch.dtype) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**settings))
    # transformers keeps these exact in float16 only
    _cast(model, dtype, (model._keep_in_fp32_modules or ()) if dtype is torch.float16 else ())
    return model
