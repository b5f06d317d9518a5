"""How well a candidate will show the prompt, read from an estimate of it after few denoising steps (paper 04, TTSnap).

One network for each number of steps. All start from a reward of finished frames, the frame reward or the clip reward,
and learn to give an estimate the score that it gives the finished chunk: ``recipes/rewards/noise_aware.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.budget import Cost
from prunus.errors import ModelError, SettingError
from prunus.rewards.clip import ClipReward
from prunus.rewards.frame import FrameReward
from prunus.rewards.network_folder import architecture
from prunus.rewards.network_reward import NetworkReward
from prunus.roles import Reward, View
from prunus.score import Score


def kind_of(folder: Path) -> type[NetworkReward]:
    """The class of the reward in a folder. Raises ModelError."""
    return ClipReward if architecture(folder) == ClipReward.kind.__name__ else FrameReward


class NoiseAwareReward(Reward):
    """Scores estimates by the network for their number of steps; ``snapshots`` maps that number to a reward.

    ``sampler`` is the spec of the sampler whose estimates they were trained on (None: not known).
    Contents are pairs (frames, steps). Raises SettingError for a number of steps that no network was trained for: the
    published code then takes the plain reward in silence.
    """

    name = "noise-aware-reward"
    view = View(1, progress=True)
    range = "unbounded"

    def __init__(
        self, snapshots: Mapping[int, NetworkReward], *, sampler: dict | None = None, folder: Path | None = None
    ) -> None:
        self.snapshots, self.sampler, self.folder = dict(snapshots), sampler, folder

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", chunk_frames: int = 3) -> NoiseAwareReward:
        """Read a folder with a reward's folder for each number of steps, step-1, ..., and a sampler.json.

        Raises ModelError.
        """
        folder = Path(folder)
        parts = {int(p.name.removeprefix("step-")): p for p in folder.glob("step-*")}
        if not parts:
            raise ModelError(f"{folder} holds no step-1, step-2, ...; a noise-aware reward has a folder for each step")
        networks = {s: kind_of(p).load(p, device, chunk_frames=chunk_frames) for s, p in sorted(parts.items())}
        try:
            sampler = json.loads((folder / "sampler.json").read_text())
        except FileNotFoundError:
            sampler = None
        except ValueError as error:
            raise ModelError(f"{folder / 'sampler.json'} is damaged: {error}") from error
        return cls(networks, sampler=sampler, folder=folder)

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score | float]:
        rows: dict[int, list[int]] = {}
        for i, (_, steps) in enumerate(contents):
            rows.setdefault(steps, []).append(i)
        if unknown := sorted(set(rows) - set(self.snapshots)):
            raise SettingError(
                f"{self.name!r} cannot read estimates after {unknown[0]} steps; it was trained for "
                f"{', '.join(map(str, self.snapshots))}. Prune after one of these"
            )
        scores: dict[int, Score | float] = {}
        for steps, some in rows.items():
            found = self.snapshots[steps].score([contents[i][0] for i in some], [prompts[i] for i in some])
            scores |= dict(zip(some, found, strict=True))
        return [scores[i] for i in range(len(contents))]

    def cost(self, units: Sequence[int]) -> Cost:
        return next(iter(self.snapshots.values())).cost(units)

    def spec(self) -> dict:
        return {"name": self.name, "folder": str(self.folder)}
