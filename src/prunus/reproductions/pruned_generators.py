"""Smaller video generators for ``pruned_video``: by several importances, at equal removal, healed or not.

The reward of reward-aware importance is the world's judge on short plain videos of *train* prompts, the same prompts
and seeds for every unit. Feed-forward channels are asked about in bands of equal rank by Taylor's score, since one
generation for each channel cannot be paid for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prunus.errors import SettingError
from prunus.reproductions.long_videos import write_json
from prunus.sparse import Masks, Recipe, train
from prunus.sparse.allocation import Uniform
from prunus.sparse.importance import Magnitude, Random, RewardDrop, Scores, Taylor
from prunus.sparse.journal import Journal
from prunus.sparse.models.wan import Wan, bands
from prunus.sparse.scope import Units
from prunus.sparse.training import cosine

BANDS = 8  # of channels in a layer
IMPORTANCES = ("reward", "taylor", "magnitude", "random-0", "random-1")


@dataclass(frozen=True)
class Removal:
    """Keep ``kept`` of the ``units`` of each layer (channels), or of the network (layers)."""

    units: str
    kept: int
    of: int

    @property
    def name(self) -> str:
        return f"{self.kept} of {self.of} {self.units}"


REMOVALS = (
    Removal("channels", 540, 720),
    Removal("channels", 360, 720),
    Removal("channels", 180, 720),
    Removal("layers", 5, 6),
    Removal("layers", 4, 6),
)
"""Of the packaged model."""


@dataclass(frozen=True, eq=False)
class Workshop:
    """Makes smaller generators of ``wan`` and keeps the scores that took long in ``folder``."""

    wan: Wan
    folder: Path
    reward: Callable[[nn.Module], float]

    @cached_property
    def dense(self) -> nn.Module:
        return self.wan.build()

    @cached_property
    def masks(self) -> Masks:
        return Masks.of(self.dense, self.wan.exclude())

    def scope(self, importance: str, units: str) -> Units:
        """What is pruned as one: bands of channels by their reward, else single channels."""
        whole = self.wan.units(units, self.masks)
        if importance != "reward":
            return whole
        if units == "layers":
            return Units(whole.groups, "mean")
        return bands(self.masks, whole.scores(self.scores("taylor", units)), BANDS)

    def scores(self, importance: str, units: str) -> Scores:
        name, _, seed = importance.partition("-")
        if name == "magnitude":
            return Magnitude().scores(self.dense, self.masks)
        if name == "random":
            return Random(int(seed)).scores(self.dense, self.masks)
        path = self.folder / (f"reward-{units}.safetensors" if name == "reward" else f"{name}.safetensors")
        if not path.exists():
            used = RewardDrop(self.reward, self.scope(importance, units)) if name == "reward" else Taylor()
            found = used.scores(self.dense, self.masks, self.wan.task)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({n: s.contiguous() for n, s in found.items()}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        return load_file(path)

    def removed(self, importance: str, removal: Removal) -> nn.Module:
        """The dense model without the units that this importance finds least worth."""
        if importance not in IMPORTANCES:
            raise SettingError(f"importance {importance!r} is unknown; take one of {', '.join(IMPORTANCES)}")
        scores, scope = self.scores(importance, removal.units), self.scope(importance, removal.units)
        masks = scope.select(scores, self.masks, removal.kept / removal.of, Uniform())
        return self.wan.remove(self.dense, masks)

    def heal(self, model: nn.Module, steps: int, rate: float, journal: Path | None = None) -> nn.Module:
        """Train in place for ``steps`` more by the model's own loss, AdamW, with a cosine from ``rate`` to nothing."""
        options = {"betas": (0.9, 0.97), "weight_decay": 0.01}
        recipe = Recipe(steps, rate, torch.optim.AdamW, cosine, options, journal=Journal(journal, every=25))
        train(model, self.wan.task, recipe)
        return model


def remembered(path: Path, about: dict, make: Callable[[], dict]) -> dict:
    """What ``make`` gives, from the file if it was made before. SettingError if that was of other settings."""
    if path.exists():
        saved = json.loads(path.read_text())
        if saved["about"] != about:
            raise SettingError(f"{path} is of other settings ({saved['about']}); give another --out")
        return saved["found"]
    found = make()
    write_json(path, {"about": about, "found": found})
    return found
