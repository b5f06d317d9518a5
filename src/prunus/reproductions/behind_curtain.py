"""The curtain variant of long sprites videos: a bar hides part of the picture while the video grows.

The model never draws curtains, so the curtain is an intervention: it is painted over the pixels of each finished chunk
that it touches, and the painted chunk, encoded again, is what is shown and what later chunks attend to. Nothing
that the bar hides is left in the cache. Afterwards each sprite must be where its motion puts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from prunus.errors import SettingError
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.roles import Ask, Grown
from prunus.tree import seed_of
from prunus.worlds.sprites.judge import fit, judge
from prunus.worlds.sprites.render import hang
from prunus.worlds.sprites.scene import FREE_STEPS, SIZE, Curtain, parse
from prunus.worlds.sprites.track import BASE, Track, curtain_columns, find

Clip = tuple[str, int]  # prompt and seed


class CurtainVideo(StreamingVideo):
    """A streaming video with a curtain for each (prompt, seed); one that has none is grown as it is."""

    def __init__(self, model: VideoModel, frames: int, curtains: Mapping[Clip, Curtain]) -> None:
        super().__init__(model, frames)
        if not model.decoder.framewise:
            raise SettingError(f"the autoencoder of {model.folder} mixes frames; a curtain needs one that does not")
        self.curtains = curtains

    @torch.no_grad()
    def grow(self, asks: Sequence[Ask]) -> list[Grown]:
        grown = super().grow(asks)
        for ask, child in zip(asks, grown, strict=True):
            curtain = self.curtains.get((ask.prompt, ask.seed))
            first = ask.parent.depth * self.chunk_frames
            if curtain and first < curtain.start + curtain.frames and first + self.chunk_frames > curtain.start:
                self._paint(child, curtain, first)
        return grown

    def _paint(self, child: Grown, curtain: Curtain, first: int) -> None:
        """Replace the chunk that starts at frame ``first`` by one with the curtain over it."""
        decoder = self.model.decoder
        frames = decoder.decode(child.state.latents[None], [None])[0][0].cpu()
        hang(curtain, frames.numpy(), first)
        child.state.latents = encode(self.model, frames)
        child.unit["latents"] = child.state.latents.cpu()


def encode(model: VideoModel, frames: torch.Tensor) -> torch.Tensor:
    """Normalised latents (c, f, h, w) of frames (f, 3, H, W) in [0, 1], each encoded by itself."""
    vae = model.decoder.vae
    images = (2 * frames - 1).to(model.device, vae.post_quant_conv.weight.dtype)
    coded = vae.encode(images[:, :, None]).latent_dist.mode()[:, :, 0].float()
    mean, std = (torch.tensor(v, device=coded.device)[:, None, None] for v in _statistics(vae))
    return ((coded - mean) / std).transpose(0, 1)


def _statistics(vae: torch.nn.Module) -> tuple[list[float], list[float]]:
    return vae.config.latents_mean, vae.config.latents_std  # type: ignore[union-attr, return-value]


def place_curtain(video: np.ndarray, prompt: str, seed: int) -> Curtain:
    """Where and when the curtain hangs in this clip, as ``scene.stage`` would have it, read off a video without it.

    It begins at a random frame of the second quarter, and hangs where the first sprite's motion until then will have
    taken it in the middle of the hidden stretch.
    """
    rng = np.random.default_rng(seed_of("curtain", prompt, seed))
    curtain = Curtain(left=0, start=int(rng.integers(len(video) // 4, len(video) // 2 + 1)))
    path = _paths(video, prompt, curtain)[0][1]
    x = path[min(curtain.start + curtain.frames // 2, len(path) - 1), 0]
    return replace(curtain, left=int(np.clip(round(float(x)) - curtain.width // 2, 0, SIZE - curtain.width)))


def afterwards(video: np.ndarray, prompt: str, curtain: Curtain) -> dict[str, float]:
    """How the frames after the curtain go on from those before it (or would have, in a video without one).

    ``place``: mean of exp(-(d / 3)^2), d px from where the asked motion, fitted to the frames before the curtain
    alone, puts the sprite; 0 if it is lost. ``persistence`` and ``score`` are the judge's of the frames after it alone.
    """
    end = curtain.start + curtain.frames
    places = []
    for track, path in _paths(video, prompt, curtain):
        weight, error = track.weight[end:], np.square(track.position - path).sum(1)[end:]
        places.append(float((weight * np.exp(-error / 9)).sum() / max(weight.sum(), 1e-6)))
    alone = judge(video[end:], prompt, begins=False)
    return {"place": float(np.mean(places)), "persistence": alone.parts["persistence"], "score": alone.value}


def _paths(video: np.ndarray, prompt: str, curtain: Curtain) -> list[tuple[Track, np.ndarray]]:
    """Each sprite's track, and the path that its frames before the curtain promise."""
    sprites = parse(prompt)
    pixels = video - BASE[:, None, None]
    tracks, _ = find(pixels, sprites, curtain_columns(pixels))
    before = np.arange(len(video)) < curtain.start
    known = [replace(track, found=track.found * before) for track in tracks]
    paths = [fit(track, sprite.motion, FREE_STEPS - 1) for track, sprite in zip(known, sprites, strict=True)]
    return list(zip(tracks, paths, strict=True))


def positions(video: np.ndarray, prompt: str) -> list[list[float]]:
    """Where the first sprite is found in each frame: (x, y) in px."""
    pixels = video - BASE[:, None, None]
    tracks, _ = find(pixels, parse(prompt), curtain_columns(pixels))
    return tracks[0].position.tolist()
