"""A reward whose scores are blurred, to see what a search makes of a worse judge at the same cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.budget import Cost
from prunus.errors import require
from prunus.roles import Reward
from prunus.score import Score
from prunus.tree import seed_of

EDGE = 1e-6


class NoisyReward(Reward):
    """``inner``'s values with normal noise of deviation ``sigma`` added to their logits; they are probabilities.

    The noise depends on the prompt and the text alone: a text that is scored again has the same. Parts are left out.
    """

    range = "probability"

    def __init__(self, inner: Reward, sigma: float) -> None:
        require(sigma >= 0, "sigma", sigma, "at least 0")
        require(inner.range == "probability", "inner.range", inner.range, "probability")
        self.inner, self.sigma, self.name, self.view, self.reads_on = (
            inner,
            sigma,
            inner.name,
            inner.view,
            inner.reads_on,
        )

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score | float]:
        return [
            s if s is None else self._blurred(s, c, p)
            for s, c, p in zip(self.inner.score(contents, prompts), contents, prompts, strict=True)
        ]

    def _blurred(self, score: Score | float, content: Any, prompt: str) -> float:
        value = score.value if isinstance(score, Score) else score
        held = min(max(value, EDGE), 1 - EDGE)
        noise = np.random.default_rng(seed_of("noise", prompt, str(content))).standard_normal()
        return 1 / (1 + math.exp(-(math.log(held / (1 - held)) + self.sigma * noise)))

    def cost(self, units: Sequence[int]) -> Cost:
        return self.inner.cost(units)

    def took(self, contents: Sequence[Any], prompts: Sequence[str], read: Sequence[int]) -> Cost | None:
        return self.inner.took(contents, prompts, read)

    def spec(self) -> dict:
        return {**self.inner.spec(), "sigma": self.sigma}
