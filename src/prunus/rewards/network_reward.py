"""What the frame reward and the clip reward share: a network, its folder, its price and the frames it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import Self

from prunus.budget import Cost
from prunus.errors import VideoError, require
from prunus.rewards.network_folder import load_network, save_network
from prunus.rewards.networks import RewardNetwork
from prunus.roles import Reward

SIZE = 64  # the frames that the FLOPs are counted for, in pixels


class NetworkReward(Reward):
    """A reward that is a network of class ``kind``. ``chunk_frames`` is how many frames a unit shows."""

    kind: ClassVar[type[RewardNetwork]]
    range = "unbounded"

    def __init__(self, network: RewardNetwork, *, chunk_frames: int = 3, folder: Path | None = None) -> None:
        require(chunk_frames >= 1, "chunk_frames", chunk_frames, "at least 1")
        self.network, self.chunk_frames, self.folder = network.eval(), chunk_frames, folder
        self.flops = lru_cache(self._flops)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", **settings: Any) -> Self:
        """Read a folder with config.json and model.safetensors; ``settings`` are the class's own. Raises ModelError."""
        return cls(load_network(cls.kind, folder, device), folder=Path(folder), **settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors, in half precision. Raises FileError."""
        save_network(self.network, folder)

    @property
    def device(self) -> torch.device:
        return self.network.prompts.words.weight.device

    def frames(self, content: Any) -> torch.Tensor:
        """A content as float frames (f, 3, h, w) on the network's device. Raises VideoError for anything else."""
        frames = torch.as_tensor(content)
        if frames.ndim != 4 or frames.shape[1] != 3 or len(frames) == 0 or not frames.is_floating_point():
            raise VideoError(
                f"content has shape {tuple(frames.shape)} and dtype {frames.dtype}; "
                f"{self.name!r} reads float frames (frames, 3, height, width) in [0, 1]"
            )
        return frames.to(self.device, torch.float32)

    def cost(self, units: Sequence[int]) -> Cost:
        """FLOPs, a multiply-add as two, for 64 x 64 frames and two phrases; what candidates share counts again."""
        return Cost(flops=sum(self.flops(n * self.chunk_frames) for n in units))

    def _flops(self, frames: int) -> int:
        """FLOPs of scoring one clip, counted on frames that differ."""
        clip = torch.arange(frames, dtype=torch.float32, device=self.device)[:, None, None, None]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.evaluate([clip.expand(-1, 3, SIZE, SIZE)], ["a and a"])
        return counter.get_total_flops()

    def evaluate(self, clips: Sequence[torch.Tensor], prompts: Sequence[str]) -> torch.Tensor:
        """Scores (n, outputs) of clips (f, 3, h, w), of any lengths, with one prompt each."""
        raise NotImplementedError

    def spec(self) -> dict:
        return {"name": self.name, "folder": str(self.folder), "chunk_frames": self.chunk_frames}
