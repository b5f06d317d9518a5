"""A reward of a whole video transformer, for reward-aware importance: how good are the videos that it makes?

    RewardDrop(PlainVideos(wan, prompts), Units(wan.units("layers", masks).groups, "mean"))

Plain generation, the same prompts and seeds for every model. The judge is of the folder's world; take prompts of its
train split, because what is chosen by a prompt cannot be measured on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunus.errors import require
from prunus.generators.streaming_video import StreamingVideo
from prunus.roles import FunctionReward
from prunus.search import search_many
from prunus.sparse.models.wan import Wan
from prunus.strategies import BestOfN
from prunus.worlds.sprites import judge

NOTHING = FunctionReward(lambda frames, prompt: 0.0, "none")  # a single candidate needs no reward
GROUP = 40  # videos that grow together


def judged(frames: Any, prompt: str) -> float:
    """What the exact judge of the sprites world says."""
    return judge(frames.numpy(), prompt).value


@dataclass(frozen=True)
class PlainVideos:
    """``(model)``: the mean of ``score(frames, prompt)`` over ``seeds`` plain videos of each prompt, ``frames`` long.

    Each video has a seed of its own, from ``seed`` on, so that no noise is common to all prompts. What is wrong with a
    video is mostly decided in its first chunk, so short ones tell most of it.
    """

    wan: Wan
    prompts: Sequence[str]
    frames: int = 6
    seeds: int = 1
    seed: int = 1000
    score: Callable[[Any, str], float] = judged

    def __post_init__(self) -> None:
        require(len(self.prompts) > 0, "prompts", self.prompts, "at least one")
        require(self.seeds >= 1, "seeds", self.seeds, "at least 1")

    def values(self, model: nn.Module) -> list[float]:
        """One for each video: all prompts with their first seeds, then all with their second ones, ..."""
        generator = StreamingVideo(self.wan.generator(model), self.frames)
        jobs = [prompt for _ in range(self.seeds) for prompt in self.prompts]
        values = []
        for at in range(0, len(jobs), GROUP):
            some = jobs[at : at + GROUP]
            seeds = range(self.seed + at, self.seed + at + len(some))
            trees = search_many(some, generator, [NOTHING], BestOfN(n=1), seeds=seeds)
            values += [self.score(tree.best().output, tree.prompt) for tree in trees]
        return values

    def __call__(self, model: nn.Module) -> float:
        values = self.values(model)
        return sum(values) / len(values)
