"""Stream-T1's search as its published code runs it (paper card 01): the partner that ours is measured against.

Candidates one after another; the whole key-value cache is copied for each of them and its tensors once more in every
attention layer of every denoising step; keys are rotated anew each time; frames go through files to the rewards, and
the long reward's window is decoded again for each candidate. Only the network itself is shared with ours, so that
the two differ in how they search and in nothing else: same seeds, same rewards, same videos.

Files are lossless here (a lossy video changes which candidate wins).
"""

from __future__ import annotations

import copy
import math
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from prunus.generators.kv_cache import CacheSpec, unique_bytes
from prunus.generators.video_model import VideoModel
from prunus.generators.wan_attention import Work, attend, rotate
from prunus.report.media import read_video, write_video
from prunus.roles import Reward
from prunus.strategies import StreamT1


@dataclass
class FlatCache:
    """Keys (unrotated) and values of every layer in one allocated tensor (1, frames, tokens, heads, dim) each.

    The order is base sink, appended sinks, rolling window. Sizes and positions are latent frames.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    spec: CacheSpec
    end: int = 0
    sink: int = 0
    capacity: int = 0
    appended: list[int] = field(default_factory=list)

    @classmethod
    def empty(cls, model: VideoModel) -> FlatCache:
        config, spec = model.config, model.streaming.cache
        assert spec.window is not None
        grid = model.transformer.grid(model.latent_size)
        shape = (1, spec.window + spec.max_sink - spec.sink, math.prod(grid), config.num_attention_heads)
        keys, values = (
            [torch.zeros(*shape, config.attention_head_dim, device=model.device) for _ in range(config.num_layers)]
            for _ in range(2)
        )
        return cls(keys, values, spec, sink=spec.sink, capacity=spec.window)

    def tensors(self):
        yield from self.keys
        yield from self.values

    def frame_ids(self, start: int) -> torch.Tensor:
        """The absolute frame of every slot up to ``end``, the chunk that starts at ``start`` being the last."""
        chunk = self.spec.chunk
        sinks = [*range(self.spec.sink), *(s + i for s in self.appended for i in range(chunk))][: self.end]
        window = self.end - len(sinks)
        return torch.tensor([*sinks, *range(start + chunk - window, start + chunk)])


@dataclass
class PublishedWork(Work):
    """One network call for one candidate: every layer works on a copy of its cache, which replaces it afterwards."""

    model: VideoModel
    cache: FlatCache
    text_keys: torch.Tensor
    text_values: torch.Tensor
    start: int
    action: str
    """What the first call of a chunk does with the oldest windowed chunk; "" in later calls, which overwrite."""
    updates: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def attend_frames(self, layer, query, key, value):
        chunk, cache = self.cache.spec.chunk, self.cache
        keys, values = cache.keys[layer].clone(), cache.values[layer].clone()
        sink, end = cache.sink, cache.end
        if self.action in ("ema", "discard"):
            for kept in (keys, values):
                if self.action == "ema":
                    last = kept[:, sink - chunk : sink]
                    last.copy_(torch.lerp(last, kept[:, sink : sink + chunk], 1 - cache.spec.ema))
                kept[:, sink : end - chunk] = kept[:, sink + chunk : end].clone()
            end -= chunk
        end += chunk if self.action else 0
        for kept, new in ((keys, key), (values, value)):
            kept[:, end - chunk : end] = new.unflatten(1, (chunk, -1))
        self.updates.append((keys, values))
        rotations, size = self.model.transformer.rotations, self.model.latent_size
        ids = _ids_after(cache, self.action, self.start)
        rotated = rotate(keys[:, :end].flatten(1, 2), rotations(ids, size))
        query = rotate(query, rotations(torch.arange(self.start, self.start + chunk), size))
        return attend(query, rotated, values[:, :end].flatten(1, 2))

    def attend_text(self, layer, attention, query):
        return attend(query, self.text_keys[layer, None], self.text_values[layer, None])

    def apply(self) -> None:
        for layer, (keys, values) in enumerate(self.updates):
            self.cache.keys[layer], self.cache.values[layer] = keys, values
        _count(self.cache, self.action, self.start)


def _count(cache: FlatCache, action: str, start: int) -> None:
    """Move the counters as the action moved the tensors."""
    chunk = cache.spec.chunk
    if action == "append":
        cache.sink += chunk
        cache.capacity += chunk
        cache.appended.append(start - (cache.spec.window - cache.spec.sink))
    if action in ("append", "fill"):
        cache.end += chunk


def _ids_after(cache: FlatCache, action: str, start: int) -> torch.Tensor:
    after = FlatCache([], [], cache.spec, cache.end, cache.sink, cache.capacity, list(cache.appended))
    _count(after, action, start)
    return after.frame_ids(start)


def _action(cache: FlatCache, gates: Sequence[str], start: int) -> str:
    """What has to happen before the chunk at ``start`` finds room."""
    chunk = cache.spec.chunk
    if cache.end + chunk <= cache.capacity:
        return "fill"
    victim = (start - (cache.spec.window - cache.spec.sink)) // chunk
    gate = gates[victim] if victim < len(gates) else "discard"
    if gate == "append" and cache.sink + chunk > cache.spec.max_sink:
        return "ema"
    return gate


@dataclass
class Beam:
    """A surviving partial video."""

    cache: FlatCache
    latents: list[torch.Tensor] = field(default_factory=list)
    noise: torch.Tensor | None = None
    seed: int = 0
    shorts: list[float] = field(default_factory=list)
    longs: list[float] = field(default_factory=list)
    gates: list[str] = field(default_factory=list)
    score: float = 0.0


@dataclass
class Found:
    """The chosen video, 8-bit (frames, h, w, 3); each chunk's scores (short, long); calls; bytes."""

    video: np.ndarray
    scores: list[list[tuple[float, float]]]
    calls: int
    cache_bytes: int


class PublishedSearch:
    """``settings`` are read where they are hyper-parameters; what the published code does is done."""

    def __init__(self, model: VideoModel, short: Reward, long: Reward, frames: int, settings: StreamT1) -> None:
        self.model, self.short, self.long, self.settings = model, short, long, settings
        self.chunk = model.streaming.cache.chunk
        self.chunks = frames // self.chunk
        self.calls = 0

    @torch.no_grad()
    def run(self, prompt: str) -> Found:
        text, s = self.model.text(prompt), self.settings
        self.calls, scores, most = 0, [], 0
        beams = [Beam(FlatCache.empty(self.model))]
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder)
            for b in range(self.chunks):
                children = []
                for rank, parent in enumerate(beams):
                    for i in range(s.branch if b else s.keep * s.branch):
                        child = copy.deepcopy(parent)
                        self._grow(child, parent, b, rank, i, text)
                        self._score(child, b, prompt, files)
                        children.append(child)
                most = max(most, unique_bytes(beam.cache for beam in (*beams, *children)))
                scores.append([(child.shorts[-1], child.longs[-1]) for child in children])
                beams = sorted(children, key=lambda beam: -beam.score)[: s.keep]
            finals = [self._long(beam, 0, prompt, files) for beam in beams]
            best = beams[max(range(len(beams)), key=lambda i: finals[i])]
            return Found(self._decode(best.latents), scores, self.calls, most)

    def _grow(self, child: Beam, parent: Beam, b: int, rank: int, i: int, text) -> None:
        """Four denoising calls and the clean one, for one candidate."""
        s, model, start = self.settings, self.model, b * self.chunk
        if b == 0 or i > 0 or s.noise != "seed-reuse":
            child.seed = s.first_seed + i + (1000 * b + 100 * rank if b else 0)
        stream = torch.Generator().manual_seed(child.seed)
        x = torch.randn(1, model.channels, self.chunk, *model.latent_size, generator=stream)
        if b and s.noise != "fresh":
            x = s.beta * parent.noise + math.sqrt(1 - s.beta**2) * x
        child.noise = x
        child.cache.spec = CacheSpec(**{**vars(child.cache.spec), "ema": s.ema})
        action = _action(child.cache, child.gates if s.memory else (), start)
        sigmas = model.streaming.sampler.sigmas
        for step, sigma in enumerate(sigmas):
            x0 = x - sigma * self._call(x, 1000 * sigma, child.cache, text, start, action)
            action = ""
            if step + 1 < len(sigmas):
                fresh = torch.randn(x.shape, generator=stream)
                x = (1 - sigmas[step + 1]) * x0 + sigmas[step + 1] * fresh
        self._call(x0, 0.0, child.cache, text, start, "")
        child.latents.append(x0)

    def _call(self, x: torch.Tensor, timestep: float, cache: FlatCache, text, start: int, action: str) -> torch.Tensor:
        self.calls += 1
        work = PublishedWork(self.model, cache, text.keys, text.values, start, action)
        velocity = self.model.transformer._forward(x, torch.full((1,), timestep), work)
        work.apply()
        return velocity

    def _score(self, child: Beam, b: int, prompt: str, files: Path) -> None:
        s = self.settings
        images = []
        for i, frame in enumerate(self._decode(child.latents[-1:])):  # each frame is a file
            Image.fromarray(frame).save(files / f"{i}.png")
            images.append(np.array(Image.open(files / f"{i}.png")))
        [short] = self.short.score([_floats(np.stack(images))], [prompt])
        long = self._long(child, max(0, b - s.window + 1), prompt, files)
        earlier, before = child.shorts, child.longs
        if b:
            high = short.value - statistics.fmean(earlier) > s.tau_short
            fell = before[-1] - long > s.tau_long
            child.gates.append(("append" if fell else "ema") if high else "discard")
        else:
            child.gates.append("discard")
        child.shorts.append(short.value)
        child.longs.append(long)
        a = min(b / (self.chunks - 1), s.cap) if self.chunks > 1 else 0.0
        child.score = a * short.value + (1 - a) * long

    def _long(self, beam: Beam, first: int, prompt: str, files: Path) -> float:
        write_video(files / "window.mp4", self._decode(beam.latents[first:]).transpose(0, 3, 1, 2), 8)
        [score] = self.long.score([_floats(read_video(files / "window.mp4"))], [prompt])
        return score.value

    def _decode(self, latents: list[torch.Tensor]) -> np.ndarray:
        """8-bit frames (f, h, w, 3)."""
        frames, _ = self.model.decoder.decode(torch.cat(latents, 2), [None])
        return frames[0].mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _floats(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
