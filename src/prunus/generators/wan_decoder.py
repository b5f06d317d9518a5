"""Decode a video chunk by chunk with diffusers' unchanged ``AutoencoderKLWan``, equal to decoding the whole clip.

The decoder's convolutions are causal in time: each needs the last two frames of its input. Those *features* are carried
from chunk to chunk, one immutable value per candidate that siblings share.

All frames of all candidates go through the decoder in one call, as long as they are small; a call with more of large
frames saves no time, but takes the memory of all. A clip's first latent frame goes alone if the autoencoder compresses
time (it becomes 1 frame, every later one 4). diffusers itself decodes clip by clip, latent frame by latent frame.

If all but the last temporal tap of every convolution are zero and time is not compressed, a frame does not depend on
the frames before it: nothing is carried, and each convolution runs as the 2-D convolution of its last tap, a third of
the work or less. This is found out once, when the decoder is made.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify

MOST_PIXELS = 1 << 21
"""Pixels that are decoded in one call, unless a single latent frame has more: 512 frames of 64 x 64, 5 of 480 x 832."""


@dataclass(frozen=True, eq=False)
class Features:
    """What one candidate's decoding must remember: per causal convolution its last inputs (1, c, 1 or 2, h, w).

    None where a convolution remembers nothing; diffusers marks a temporal upsampler that has seen one frame by "Rep".
    """

    maps: tuple[torch.Tensor | str | None, ...] = ()

    def tensors(self) -> Iterator[torch.Tensor]:
        yield from (entry for entry in self.maps if isinstance(entry, torch.Tensor))


class StreamingDecoder:
    """Streams through the decoder of an ``AutoencoderKLWan``. Make it after the model was moved to its device."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.compresses_time = any(vae.config.temperal_downsample)
        convolutions = [module for module in vae.decoder.modules() if isinstance(module, WanCausalConv3d)]
        self.framewise = not self.compresses_time and not any(bool(c.weight[:, :, :-1].any()) for c in convolutions)
        self.decoder = framewise(vae.decoder) if self.framewise else vae.decoder
        self._memory = len(convolutions)
        self._pixels = vae.config.scale_factor_temporal * vae.config.scale_factor_spatial**2  # of one latent pixel
        weight = vae.post_quant_conv.weight
        statistics = torch.tensor([vae.config.latents_mean, vae.config.latents_std], device=weight.device)
        self._mean, self._std = statistics[:, None, :, None, None, None]

    def to(self, device: str | torch.device) -> StreamingDecoder:
        """Move it to a device, the meta device for planning included; changes it in place."""
        self.vae.to(device)
        self.decoder.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, features: Sequence[Features | None]) -> tuple[torch.Tensor, list[Features]]:
        """Frames (n, F, 3, H, W) in [0, 1] of normalised latents (n, c, f, h, w), and the features to go on with.

        ``features`` has one entry per row, None at the start of a clip; entries are never changed. F is f, or, if the
        autoencoder compresses time by 4, 4f (4f - 3 at the start).
        Raises ValueError if such an autoencoder is given starting rows and others in one batch.
        """
        if len(latents) != len(features):
            raise ValueError(f"latents has {len(latents)} rows, but there are {len(features)} features.")
        if self.compresses_time and len({entry is None for entry in features}) > 1:
            raise ValueError("Rows at the start of a clip give fewer frames than later ones; decode them apart.")
        most_frames = max(1, MOST_PIXELS // (math.prod(latents.shape[3:]) * self._pixels))
        most_rows = max(1, most_frames // latents.shape[2])
        if len(latents) > most_rows:
            starts = range(0, len(latents), most_rows)
            groups = [self.decode(latents[at : at + most_rows], features[at : at + most_rows]) for at in starts]
            return torch.cat([shown for shown, _ in groups]), [entry for _, after in groups for entry in after]
        if latents.shape[2] > most_frames:
            several = []
            for part in latents.split(most_frames, 2):
                shown, after = self.decode(part, features)
                several.append(shown)
                features = after
            return torch.cat(several, 1), after
        weight = self.vae.post_quant_conv.weight
        x = self.vae.post_quant_conv((latents.to(self._std) * self._std + self._mean).to(weight.dtype))
        if self.framewise:
            images = self.decoder(x.transpose(1, 2).flatten(0, 1).unsqueeze(2))
            return self._frames(images.unflatten(0, (len(x), -1)).squeeze(3).transpose(1, 2)), [Features()] * len(x)
        alike: dict[tuple[Any, ...], list[int]] = {}
        for row, entry in enumerate(features):
            kinds = tuple(m.shape if isinstance(m, torch.Tensor) else m for m in entry.maps) if entry else ()
            alike.setdefault(kinds, []).append(row)
        frames: dict[int, torch.Tensor] = {}
        entries: dict[int, Features] = {}
        for kinds, rows in alike.items():
            maps = _stack([entry for entry in (features[row] for row in rows) if entry], self._memory)
            decoded = self._decode(x[rows], maps, start=not kinds)
            for place, row in enumerate(rows):
                frames[row] = decoded[place]
                entries[row] = Features(tuple(_row(entry, place) for entry in maps))
        order = range(len(latents))
        return self._frames(torch.stack([frames[row] for row in order])), [entries[row] for row in order]

    def _decode(self, x: torch.Tensor, maps: list[torch.Tensor | str | None], start: bool) -> torch.Tensor:
        """One group of rows; replaces the entries of ``maps`` (its tensors are left alone)."""
        if not (start and self.compresses_time):
            return self.decoder(x, feat_cache=maps, feat_idx=[0], first_chunk=start)
        first = self.decoder(x[:, :, :1], feat_cache=maps, feat_idx=[0], first_chunk=True)
        if x.shape[2] == 1:
            return first
        return torch.cat((first, self.decoder(x[:, :, 1:], feat_cache=maps, feat_idx=[0])), 2)

    def _frames(self, decoded: torch.Tensor) -> torch.Tensor:
        if self.vae.config.patch_size is not None:
            decoded = unpatchify(decoded, self.vae.config.patch_size)
        return decoded.float().clamp(-1, 1).add(1).div(2).transpose(1, 2)


def _stack(features: Sequence[Features], memory: int) -> list[torch.Tensor | str | None]:
    if not features:
        return [None] * memory
    if len(features) == 1:
        return list(features[0].maps)
    columns = zip(*(entry.maps for entry in features), strict=True)
    return [torch.cat(column) if isinstance(column[0], torch.Tensor) else column[0] for column in columns]


def _row(entry: torch.Tensor | str | None, place: int) -> torch.Tensor | str | None:
    # A copy, if there are others: a candidate's features are freed without those of its batch.
    return entry[place : place + 1].clone() if isinstance(entry, torch.Tensor) and len(entry) > 1 else entry


class _LastTap(torch.nn.Module):
    """A causal 3-D convolution whose earlier taps are zero, on single frames (n, c, 1, h, w)."""

    def __init__(self, convolution: WanCausalConv3d) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(convolution.weight[:, :, -1].clone(), requires_grad=False)
        self.bias = convolution.bias
        wide, _, high, *_ = map(int, convolution._padding)
        self.padding = (high, wide)

    def forward(self, x: torch.Tensor, cache_x: None = None) -> torch.Tensor:
        return F.conv2d(x.squeeze(2), self.weight, self.bias, padding=self.padding).unsqueeze(2)


def framewise(coder: torch.nn.Module) -> torch.nn.Module:
    """The encoder or decoder for lone frames (n, c, 1, h, w), before which there is nothing: with 2-D convolutions in
    place of causal ones. It shares all other weights."""
    shared = {id(parameter): parameter for parameter in coder.parameters()}
    changed = copy.deepcopy(coder, shared)  # type: ignore[arg-type]
    for module in list(changed.modules()):
        for name, child in module.named_children():
            if isinstance(child, WanCausalConv3d):
                setattr(module, name, _LastTap(child))
    return changed
