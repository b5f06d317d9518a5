"""Diffusion forcing: how a streaming transformer is trained, each chunk of a clip at a noise level of its own.

A clip is five chunks as the rolling cache would hold them: the first one, perhaps a random earlier one, the last two
and the newest, block-causally attended, at their absolute positions. Noise levels follow the sampler's shift, from its
lowest on; a part of the context chunks is clean, as at use, and slightly perturbed, because at use the context is the
model's own output. The network predicts the velocity noise - x0 of the chunks that are not clean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from prunus.generators.wan_streaming import StreamingTransformer

CHUNKS = 5
LOWEST = 0.15  # of the noise levels, before the shift: the sampler's lowest is 0.25, less is not needed
CLEAN = 0.4  # share of the context chunks


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the five chunks of a batch of clips stand."""

    long: bool
    """Whether they are cut from long clips, else from short ones."""
    lengths: list[int]
    """Frames of each chunk."""
    positions: torch.Tensor
    """Frame positions (n, f)."""
    sees: torch.Tensor
    """Which chunk (row) attends to which, bool (chunks, chunks)."""

    @property
    def chunk_of(self) -> torch.Tensor:
        """The chunk of each frame (f,)."""
        return torch.repeat_interleave(torch.arange(CHUNKS), torch.tensor(self.lengths))

    @property
    def mask(self) -> torch.Tensor:
        """Which frame (row) attends to which, bool (f, f)."""
        frames = self.chunk_of.to(self.sees.device)
        return self.sees[frames][:, frames]


def layout(rng: np.random.Generator, clips: int, chunk: int, long: int) -> Layout:
    """70 % short clips, of which a quarter begin with a chunk of one frame, so that an image is a one-frame video; else
    anywhere in clips of ``long`` frames."""
    sees = torch.ones(CHUNKS, CHUNKS).tril().bool()
    if rng.random() < 0.7:  # the first chunk and four successive ones
        first = 1 if rng.random() < 0.25 else chunk
        begin = first + int(rng.integers(0, 3)) * chunk
        positions = torch.cat([torch.arange(first), torch.arange(begin, begin + 4 * chunk)])
        sees[4, 1] = False  # it has left the window
        return Layout(False, [first] + [chunk] * 4, positions.expand(clips, -1), sees)
    rows = []  # the first chunk, a random earlier one and the last three
    for _ in range(clips):
        b = int(rng.integers(5, long // chunk))
        chunks = [0, int(rng.integers(1, b - 2)), b - 2, b - 1, b]
        rows.append(torch.cat([torch.arange(c * chunk, (c + 1) * chunk) for c in chunks]))
    return Layout(True, [chunk] * CHUNKS, torch.stack(rows), sees)


@dataclass(frozen=True, eq=False)
class Noised:
    """Clips (n, c, f, h, w) with noise in them, and what is to be predicted of them."""

    latents: torch.Tensor
    timesteps: torch.Tensor
    """(n, f), in [0, 1000]."""
    target: torch.Tensor
    """The velocity, of the latents' shape."""
    counts: torch.Tensor
    """1 where it is to be predicted, of the latents' shape."""
    where: Layout

    def to(self, device: torch.device | str) -> Noised:
        parts = {name: getattr(self, name).to(device) for name in ("latents", "timesteps", "target", "counts")}
        where = replace(self.where, positions=self.where.positions.to(device), sees=self.where.sees.to(device))
        return Noised(**parts, where=where)


def noised(
    clean: torch.Tensor,
    where: Layout,
    shift: float,
    rng: np.random.Generator,
    normal: Callable[[torch.Tensor], torch.Tensor] = torch.randn_like,
) -> Noised:
    """``clean`` (n, c, f, h, w) with noise of random levels; ``normal`` draws noise like a tensor."""
    n, chunk_of = len(clean), where.chunk_of
    sigma = 1 - (1 - LOWEST) * torch.from_numpy(rng.random((n, CHUNKS)).astype(np.float32))
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    is_context = torch.from_numpy(rng.random((n, CHUNKS)) < CLEAN)
    is_context[:, -1] = False
    sigma[is_context] = 0
    jitter = 0.1 * torch.from_numpy(rng.random((n, CHUNKS)).astype(np.float32))
    mix = torch.where(sigma == 0, jitter, sigma)[:, None, chunk_of, None, None]
    noise = normal(clean)
    counts = (sigma > 0).float()[:, None, chunk_of, None, None].expand_as(clean)
    return Noised((1 - mix) * clean + mix * noise, 1000 * sigma[:, chunk_of], noise - clean, counts, where)


def forcing_loss(streaming: StreamingTransformer, batch: Noised, text: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the velocity; ``text`` (n, tokens, width) are embeddings padded with zeros."""
    velocity = streaming.clip_velocity(
        batch.latents, batch.timesteps, text, mask=batch.where.mask, frames=batch.where.positions
    )
    return ((velocity - batch.target) ** 2 * batch.counts).sum() / batch.counts.sum()
