"""A streaming video model from a diffusers folder, and the ``streaming.json`` that says how it streams.

The folder holds ``transformer`` (WanTransformer3DModel), ``vae`` (AutoencoderKLWan), ``text_encoder`` (UMT5) and
``tokenizer``; ``prompt_embeds.safetensors`` (prompt -> embeddings) may stand in for the last two. Only safetensors
are read. A folder without ``streaming.json`` is a bidirectional model and is refused with the remedy.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from prunus.errors import ModelError, PromptError, require
from prunus.generators.flow_sampler import FlowSampler, shifted
from prunus.generators.kv_cache import CacheSpec
from prunus.generators.wan_decoder import StreamingDecoder
from prunus.generators.wan_flops import flop_counter, flops
from prunus.generators.wan_streaming import StreamingTransformer, Text

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Grammar:
    """Which prompts a model understands: a regular expression for the whole prompt, and the same in words."""

    pattern: str
    words: str

    def check(self, prompt: str) -> None:
        if not re.fullmatch(self.pattern, prompt):
            raise PromptError(f"prompt {prompt!r} is not one that this model understands; it understands {self.words}")


@dataclass(frozen=True)
class Streaming:
    """``streaming.json``: how a model was trained to stream. Sizes are latent frames, timesteps are in [0, 1000]."""

    timesteps: tuple[float, ...]
    shift: float
    cache: CacheSpec
    text_length: int
    trained_frames: int
    fps: int
    size: tuple[int, int]
    """Height and width of a frame in pixels."""
    grammar: Grammar | None = None
    world: str | None = None
    search: dict[str, Any] = field(default_factory=dict)
    """Search settings that measured better for this model than a method's defaults, by method."""

    @property
    def sampler(self) -> FlowSampler:
        """The model's own few steps, with fresh noise between them."""
        return FlowSampler(shifted(self.timesteps, self.shift))

    def euler(self, steps: int) -> FlowSampler:
        """As many Euler steps, evenly over the span of the model's own timesteps before the shift."""
        require(steps >= 1, "steps", steps, "at least 1")
        first, last = self.timesteps[0], self.timesteps[-1]
        spaced = [first + (last - first) * i / max(1, steps - 1) for i in range(steps)]
        return FlowSampler(shifted(spaced, self.shift), fresh_noise=False)

    @classmethod
    def load(cls, folder: Path) -> Streaming:
        path = folder / "streaming.json"
        if not path.is_file():
            raise ModelError(
                f"{folder} has no streaming.json: it is not a streaming model. A bidirectional video model cannot grow "
                "chunk by chunk; take a checkpoint that was distilled for streaming and write its streaming.json "
                "(chunk, window, sink, max_sink, timesteps, shift, text_length, trained_frames, fps, size)"
            )
        try:
            data = json.loads(path.read_text())
            cache = CacheSpec(**{k: data.pop(k) for k in ("chunk", "window", "sink", "max_sink") if k in data})
            grammar = Grammar(**data.pop("grammar")) if data.get("grammar") else None
            data["timesteps"], data["size"] = tuple(data["timesteps"]), tuple(data["size"])
            return cls(cache=cache, grammar=grammar, **data)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{path} cannot be used: {error}; see docs/models.md for its fields") from error


class VideoModel:
    """The parts of a model folder, ready to stream."""

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        streaming: Streaming,
        *,
        text_encoder: Any = None,
        tokenizer: Any = None,
        prompt_embeds: dict[str, torch.Tensor] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.streaming, self.folder = streaming, folder
        self.transformer = StreamingTransformer(transformer)
        self.decoder = StreamingDecoder(vae)
        self.config = transformer.config
        self._text_encoder, self._tokenizer, self._prompt_embeds = text_encoder, tokenizer, prompt_embeds or {}
        self.channels = transformer.config.in_channels
        scale = vae.spatial_compression_ratio
        self.latent_size = (streaming.size[0] // scale, streaming.size[1] // scale)
        self.max_frames = transformer.rope.max_seq_len
        self.text = lru_cache(maxsize=4096)(self._text)
        self.decode_flops = lru_cache(self._decode_flops)

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    def with_transformer(self, transformer: Any) -> VideoModel:
        """The same model with another transformer, for example a smaller one; it shares all other parts."""
        return VideoModel(
            transformer,
            self.decoder.vae,
            self.streaming,
            text_encoder=self._text_encoder,
            tokenizer=self._tokenizer,
            prompt_embeds=self._prompt_embeds,
            folder=self.folder,
        )

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", dtype: str = "float32") -> VideoModel:
        """Load all parts. Raises ModelError that names the part which is missing or damaged, and what to do."""
        folder = Path(folder)
        if not folder.is_dir():
            raise ModelError(f"{folder} is not a folder; name a diffusers folder with a streaming.json")
        if dtype not in DTYPES:
            raise ModelError(f"dtype {dtype!r} is not known; take one of {', '.join(DTYPES)}")
        streaming = Streaming.load(folder)
        kind = getattr(torch, dtype)
        from diffusers import AutoencoderKLWan, WanTransformer3DModel

        transformer = load_part(folder, "transformer", WanTransformer3DModel, kind, device)
        vae = load_part(folder, "vae", AutoencoderKLWan, kind, device)
        cache = folder / "prompt_embeds.safetensors"
        prompt_embeds = _load_prompt_embeds(cache) if cache.is_file() else None
        text_encoder = tokenizer = None
        if prompt_embeds is None or (folder / "text_encoder").is_dir():
            from transformers import AutoTokenizer, UMT5EncoderModel

            text_encoder = load_part(folder, "text_encoder", UMT5EncoderModel, kind, device)
            tokenizer = load_part(folder, "tokenizer", AutoTokenizer, None, None)
        return cls(
            transformer,
            vae,
            streaming,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            prompt_embeds=prompt_embeds,
            folder=folder,
        )

    def _text(self, prompt: str) -> Text:
        """A prompt's cross-attention keys and values."""
        return self.transformer.text(self.embeddings(prompt))

    @torch.no_grad()
    def embeddings(self, prompt: str) -> torch.Tensor:
        """What the text encoder makes of a prompt, padded with zeros to the model's text length (tokens, width)."""
        if self.streaming.grammar is not None:
            self.streaming.grammar.check(prompt)
        length = self.streaming.text_length
        if prompt in self._prompt_embeds:
            embeds = self._prompt_embeds[prompt].to(self.device)
        elif self._text_encoder is None:
            raise PromptError(
                f"prompt {prompt!r} is not among the {len(self._prompt_embeds)} prompts of {self.folder}'s "
                "prompt_embeds.safetensors, and the folder has no text_encoder"
            )
        else:
            tokens = self._tokenizer(prompt, return_tensors="pt").input_ids.to(self.device)
            if tokens.shape[1] > length:
                raise PromptError(
                    f"prompt {prompt!r} has {tokens.shape[1]} tokens; this model reads {length}. Shorten it"
                )
            embeds = self._text_encoder(tokens).last_hidden_state[0]
        return torch.nn.functional.pad(embeds, (0, 0, 0, length - len(embeds)))

    def flops(self, frames: int, context_frames: int) -> int:
        """FLOPs of one forward of one candidate."""
        text = self.streaming.text_length
        return flops(self.config, 1, frames, self.latent_size, context_frames=context_frames, text_tokens=text)

    def _decode_flops(self, frames: int, start: bool = True) -> int:
        """FLOPs of decoding one chunk of latent frames, counted once on zeros.

        An autoencoder that compresses time shows 4 frames for the first latent frame of a later chunk, 1 at the
        ``start`` of a clip.
        """
        latents = torch.zeros(1, self.channels, frames, *self.latent_size, device=self.device)
        before = None if start or self.decoder.framewise else self.decoder.decode(latents[:, :, :1], [None])[1][0]
        with flop_counter() as counter:
            self.decoder.decode(latents, [before])
        return counter.get_total_flops()


def load_part(folder: Path, name: str, kind: Any, dtype: torch.dtype | None, device: str | None) -> Any:
    """One part of a model folder, ready for inference. Raises ModelError that names it if it cannot be loaded."""
    path = folder / name
    if not path.is_dir():
        raise ModelError(f"{folder} has no {name} folder; a streaming model needs one (see docs/models.md)")
    options: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        options |= {"torch_dtype" if kind.__module__.startswith("diffusers") else "dtype": dtype}
        options |= {"use_safetensors": True}
    try:
        part = kind.from_pretrained(path, **options)
        if dtype is None:
            return part
        return part.to(device).eval().requires_grad_(False)
    except Exception as error:  # every library raises its own kind here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the {name} in {path} cannot be loaded: {reason}; fetch that part again") from error


def _load_prompt_embeds(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise ModelError(f"{path} is damaged ({error}); write it again or delete it") from error
