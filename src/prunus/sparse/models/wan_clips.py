"""What a streaming Wan transformer is trained on here: clips of its world, by diffusion forcing, as its recipe does.

Clips are renderings of prompts of the world's **train split**, encoded once by the model's own autoencoder; the text
encoder is frozen. A batch depends on (order, step) alone. Validation and test are other renderings of train prompts,
at fixed noise: the dev and the report split stay unseen. Score: minus the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from prunus.errors import ModelError, require
from prunus.generators.diffusion_forcing import Noised, forcing_loss, layout, noised
from prunus.generators.video_model import VideoModel
from prunus.generators.wan_decoder import framewise
from prunus.generators.wan_streaming import StreamingTransformer
from prunus.sparse.task import Evaluation, evaluating, mixed_seed
from prunus.worlds import sprites

HELD_OUT = {"validation": 1, "test": 2}
EVALUATED = 8  # batches


@dataclass(frozen=True, eq=False)
class Pool:
    """Encoded clips: latents (clips, frames, c, h, w), and each one's text (clips, tokens, width)."""

    latents: Tensor
    text: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    clips: Noised
    text: Tensor


@dataclass(frozen=True, eq=False)
class Clips:
    """A ``Task`` for the transformer of ``video``: ``short`` and ``long`` clips, ``one_sprite`` of them with one sprite
    (the recipe's shares), in batches of ``batch_size``."""

    video: VideoModel
    short: int = 480
    long: int = 60
    one_sprite: float = 0.65
    batch_size: int = 16
    seed: int = 0
    measures: ClassVar[str] = "minus the loss of diffusion forcing"

    def __post_init__(self) -> None:
        """Raises ModelError for a model that these clips do not suit."""
        require(min(self.short, self.long) >= 1, "short, long", (self.short, self.long), "at least 1 clip of each")
        require(0 <= self.one_sprite <= 1, "one_sprite", self.one_sprite, "a share, from 0 to 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        streaming = self.video.streaming
        if streaming.world != "sprites" or any(self.video.decoder.vae.config.temperal_downsample):
            raise ModelError(
                f"{self.video.folder} has no data here: its streaming.json must name the world 'sprites' (it names "
                f"{streaming.world!r}) and its autoencoder must not compress time; train it by a Task of your own"
            )
        chunks = streaming.trained_frames // streaming.cache.chunk
        require(chunks > 5, "trained_frames", streaming.trained_frames, "at least six chunks")

    @property
    def example(self) -> dict[str, Tensor]:
        """The inputs of one chunk that has no context, by name."""
        video = self.video
        latents = torch.zeros(1, video.channels, video.streaming.cache.chunk, *video.latent_size)
        text = torch.zeros(1, video.streaming.text_length, video.config.text_dim)
        inputs = {"hidden_states": latents, "timestep": torch.zeros(1), "encoder_hidden_states": text}
        return {name: value.to(video.device) for name, value in inputs.items()}

    @cached_property
    def pools(self) -> tuple[Pool, Pool]:
        """Short and long clips for training."""
        return self._pools(self.short, self.long, 0)

    @cached_property
    def held_out(self) -> dict[str, tuple[Pool, Pool]]:
        """A few others for each split."""
        return {name: self._pools(2 * self.batch_size, self.batch_size, of) for name, of in HELD_OUT.items()}

    def batch(self, order: int, step: int) -> Batch:
        return self._of(self.pools, order, step)

    def loss(self, model: Callable[..., Any], batch: Batch) -> Tensor:
        assert isinstance(model, nn.Module)
        device = self.video.device  # batches are made on the processor, alike for all devices
        return forcing_loss(StreamingTransformer(model), batch.clips.to(device), batch.text.to(device))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        require(split in HELD_OUT, "split", split, " or ".join(HELD_OUT))
        with evaluating(model):
            pools = self.held_out[split]
            losses = [float(self.loss(model, self._of(pools, HELD_OUT[split], step))) for step in range(EVALUATED)]
        return Evaluation(sum(losses) / EVALUATED, -sum(losses) / EVALUATED)

    def _of(self, pools: tuple[Pool, Pool], order: int, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, order, step])
        where = layout(rng, self.batch_size, self.video.streaming.cache.chunk, self.video.streaming.trained_frames)
        pool = pools[where.long]
        rows = torch.from_numpy(rng.integers(len(pool.latents), size=self.batch_size))
        clean = pool.latents[rows[:, None], where.positions].transpose(1, 2)
        draws = torch.Generator().manual_seed(mixed_seed(self.seed, order, step))
        clips = noised(
            clean, where, self.video.streaming.shift, rng, lambda like: torch.randn(like.shape, generator=draws)
        )
        return Batch(clips, pool.text[rows])

    def _pools(self, short: int, long: int, of: int) -> tuple[Pool, Pool]:
        rng = np.random.default_rng([self.seed, of, 77])
        return self._pool(short, sprites.SHORT, rng), self._pool(long, self.video.streaming.trained_frames, rng)

    def _pool(self, count: int, frames: int, rng: np.random.Generator) -> Pool:
        encoder, latents, prompts = ClipEncoder(self.video), [], []
        for _ in range(count):
            known = sprites.split("train", sprites=1 if rng.random() < self.one_sprite else 2)
            prompts.append(known[rng.integers(len(known))])
            latents.append(encoder(sprites.stage(prompts[-1], rng, frames), frames))
        return Pool(torch.stack(latents), torch.stack([self.video.embeddings(prompt).cpu() for prompt in prompts]))


class ClipEncoder:
    """Scenes to latents (frames, c, h, w), frame by frame. A lone sprite stands on a grid: its frames are kept."""

    def __init__(self, video: VideoModel) -> None:
        vae = video.decoder.vae
        # Taken together: a convolution by itself holds no other to exchange.
        self.encode = framewise(nn.Sequential(vae.encoder, vae.quant_conv))
        self.channels, self.device = vae.config.z_dim, video.device
        self.mean, self.std = torch.tensor([vae.config.latents_mean, vae.config.latents_std])[:, :, None, None]
        self.coded: dict[tuple, Tensor] = {}

    def __call__(self, scene: sprites.Scene, frames: int) -> Tensor:
        video = torch.from_numpy(sprites.render(scene, frames)) * 2 - 1
        if len(scene.sprites) > 1:
            return self._encode(video)
        sprite, (centres,) = scene.sprites[0], scene.centres(frames)
        keys = [(sprite.colour, sprite.shape, *centre) for centre in centres.tolist()]
        new = {key: place for place, key in enumerate(keys) if key not in self.coded}
        if new:
            self.coded.update(zip(new, self._encode(video[list(new.values())]), strict=True))
        return torch.stack([self.coded[key] for key in keys])

    @torch.no_grad()
    def _encode(self, frames: Tensor) -> Tensor:
        means = self.encode(frames[:, :, None].to(self.device))[:, : self.channels, 0].cpu()
        return (means - self.mean) / self.std
