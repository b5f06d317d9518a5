"""The two small networks behind the pocket rewards: they look for each phrase of the prompt in each frame.

A prompt is a set of phrases, split at "and" and at punctuation; a phrase is a bag of words; a word that the vocabulary
lacks is ``<unk>`` and adds nothing. In every frame each phrase attends to the cells of a convolutional grid and brings
back what it found and where (the mean coordinates of its attention), so that colour, shape and place are bound to one
phrase:

    slot[t, p] = MLP(attended features, attended place, phrase p)      slot[t, -1] = MLP(mean and maximum of all cells)

``FrameNetwork`` scores an image by its slots alone. ``ClipNetwork`` sees each frame's change since the frame before as
three more colours, because a sprite's step of two pixels is less than a cell of the grid; it lets each slot attend over
time, to its value and its change, and scores the pooled result. Dimensions: n contents, p phrases, f frames, d width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

UNKNOWN = "<unk>"


def phrases(prompt: str) -> list[list[str]]:
    """The words of each phrase; a prompt without words is one unknown word."""
    parts = re.split(r"\band\b|[,.;]", prompt.lower())
    return [words for part in parts if (words := re.findall(r"\w+", part))] or [[UNKNOWN]]


class PromptEncoder(nn.Module):
    """Prompts to phrase vectors (n, p, d), zero where a prompt has fewer, and which are there (n, p)."""

    def __init__(self, vocabulary: Sequence[str], width: int) -> None:
        super().__init__()
        self.index = {word: i for i, word in enumerate([UNKNOWN, *vocabulary])}
        self.words = nn.Embedding(len(self.index), width)
        nn.init.zeros_(self.words.weight[0].detach())  # an unknown word says nothing
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        read = [phrases(p) for p in prompts]
        there = torch.zeros(len(read), max(map(len, read)), dtype=torch.bool)
        bags = torch.zeros(*there.shape, len(self.index))
        for i, prompt in enumerate(read):
            there[i, : len(prompt)] = True
            for j, words in enumerate(prompt):
                for word in words:
                    bags[i, j, self.index.get(word, 0)] += 1
        device = self.words.weight.device
        there = there.to(device)
        return self.mix(bags.to(device) @ self.words.weight) * there[..., None], there


class FrameReader(nn.Module):
    """Frames (f, colours, height, width) and their phrases (f, p, d) to slots (f, p + 1, d), the last the whole."""

    def __init__(self, width: int, channels: Sequence[int], heads: int, colours: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([colours, *channels[:-1]], channels, strict=True)):
            # In place, because writing another copy of the first, large maps would take as long as convolving them.
            layers += [nn.Conv2d(before, after, 4 if i == 0 else 3, 2 if i < 3 else 1, 1), nn.ReLU(inplace=True)]
        self.grid = nn.Sequential(*layers)
        self.heads = heads
        self.ask, self.key, self.value = (nn.Linear(n, width) for n in (width, channels[-1], channels[-1]))
        self.found = nn.Sequential(nn.Linear(2 * width + 2 * heads, width), nn.SiLU(), nn.Linear(width, width))
        self.whole = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, frames: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        # Channels last is what makes small convolutions fast on a CPU.
        grid = self.grid(frames.contiguous(memory_format=torch.channels_last).mul(4).sub_(1))
        y, x = (torch.linspace(-1, 1, n, device=grid.device) for n in grid.shape[-2:])
        place = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], -1)  # (cells, 2)
        cells = grid.flatten(2).transpose(1, 2)
        key, value = (layer(cells).unflatten(2, (self.heads, -1)) for layer in (self.key, self.value))
        query = self.ask(asked).unflatten(2, (self.heads, -1))
        attention = torch.einsum("fphd,fchd->fphc", query, key).div(math.sqrt(key.shape[-1])).softmax(-1)
        what = torch.einsum("fphc,fchd->fphd", attention, value).flatten(2)
        found = self.found(torch.cat([what, (attention @ place).flatten(2), asked], -1))
        whole = self.whole(torch.cat([value.flatten(2).mean(1), value.flatten(2).amax(1)], -1))
        return torch.cat([found, whole[:, None]], 1)


class TimeLayer(nn.Module):
    """A pre-norm transformer layer over the frames of (rows, f, d); plain products, so that their FLOPs are counted."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.project(self.before(x)).chunk(3, -1)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        attention = (query @ key.mT / math.sqrt(key.shape[-1])).softmax(-1)
        x = x + self.out((attention @ value).transpose(1, 2).flatten(2))
        return x + self.feed(self.after(x))


class RewardNetwork(nn.Module):
    """What the two share. ``outputs`` names the columns of the scores (n, outputs).

    ``normalisation`` maps an output to the (mean, deviation) of raw scores that shall become 0 and 1.
    """

    outputs: ClassVar[tuple[str, ...]]
    colours: ClassVar[int] = 3

    def __init__(
        self,
        vocabulary: Sequence[str],
        width: int = 64,
        channels: Sequence[int] = (16, 32, 64, 64),
        heads: int = 4,
        normalisation: dict[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "vocabulary": list(vocabulary),
            "width": width,
            "channels": list(channels),
            "heads": heads,
            "normalisation": {name: [0.0, 1.0] for name in self.outputs} | (normalisation or {}),
        }
        self.prompts = PromptEncoder(vocabulary, width)
        self.reader = FrameReader(width, channels, heads, self.colours)
        self.judge = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, len(self.outputs)))

    def verdict(self, slots: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """Scores (n, outputs) of slots (n, p + 1, d): the mean over the prompt's phrases beside the whole."""
        mean = (slots[:, :-1] * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        raw = self.judge(torch.cat([mean, slots[:, -1]], -1))
        scales = torch.tensor([self.config["normalisation"][name] for name in self.outputs], device=raw.device)
        return (raw - scales[:, 0]) / scales[:, 1]


class FrameNetwork(RewardNetwork):
    """Images (n, 3, height, width) in [0, 1] and one prompt each to scores (n, 1)."""

    outputs = ("overall",)

    def forward(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        names = list(dict.fromkeys(prompts))  # frames of one clip share their prompt
        asked, there = self.prompts(names)
        row = torch.tensor([names.index(p) for p in prompts], device=images.device)
        return self.verdict(self.reader(images, asked[row]), there[row])


class ClipNetwork(RewardNetwork):
    """Clips of any lengths, each (f, 3, height, width) in [0, 1], and one prompt each to scores (n, 4)."""

    outputs = ("overall", "visual", "motion", "text")
    colours = 6

    def __init__(self, vocabulary: Sequence[str], layers: int = 2, **settings) -> None:
        super().__init__(vocabulary, **settings)
        self.config["layers"] = layers
        width, heads = self.config["width"], self.config["heads"]
        self.join = nn.Linear(2 * width, width)
        self.time = nn.ModuleList(TimeLayer(width, heads) for _ in range(layers))
        self.pool = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, clips: Sequence[torch.Tensor], prompts: Sequence[str]) -> torch.Tensor:
        asked, there = self.prompts(prompts)
        lengths = [len(clip) for clip in clips]
        owner = torch.repeat_interleave(torch.tensor(lengths, device=asked.device))
        # A change of half the range is as much as a colour of the whole: steps are what the clip reward is for.
        frames = torch.cat([torch.cat([c, 2 * torch.diff(c, dim=0, prepend=c[:1])], 1) for c in clips])
        first, place = _distinct(frames, [p for p, n in zip(prompts, lengths, strict=True) for _ in range(n)])
        slots = self.reader(frames[first], asked[owner[first]])[place].split(lengths)
        asked = torch.cat([asked, torch.zeros_like(asked[:, :1])], 1)  # the whole asks for nothing
        pooled = torch.empty_like(asked)
        for length in dict.fromkeys(lengths):
            rows = [i for i, n in enumerate(lengths) if n == length]
            pooled[rows] = self._over_time(torch.stack([slots[i] for i in rows]), asked[rows])
        return self.verdict(pooled, there)

    def _over_time(self, slots: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Slots (n, f, p + 1, d) of clips of one length to (n, p + 1, d)."""
        n, f, p, d = slots.shape
        change = torch.diff(slots, dim=1, prepend=slots[:, :1])
        x = self.join(torch.cat([slots, change], -1)) + _positions(f, d, slots.device)[:, None]
        x = x.transpose(1, 2).reshape(n * p, f, d)
        for layer in self.time:
            x = layer(x)
        x = x.unflatten(0, (n, p))
        return self.pool(torch.cat([x.mean(2), x.amax(2), asked], -1))


def _distinct(frames: torch.Tensor, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
    """Where each different frame stands first, and for every frame which of those it is.

    Siblings share all frames but the last ones; what they share is looked at once.
    """
    seen: dict[tuple[str, bytes], int] = {}
    first: list[int] = []
    place = []
    for i, (frame, prompt) in enumerate(zip(frames.cpu().numpy(), prompts, strict=True)):
        place.append(seen.setdefault((prompt, frame.tobytes()), len(first)))
        if place[-1] == len(first):
            first.append(i)
    return first, place


def _positions(frames: int, width: int, device: torch.device) -> torch.Tensor:
    """Sinusoidal positions (frames, width)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(200.0) / width))
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)
