"""How well single frames show the prompt: the short reward of Stream-T1 (paper 01), where HPSv3 stands.

    S = mean over the frames of the new chunk of score(frame, prompt)

Each frame is scored alone, so motion is not seen. Scores have mean 0 and deviation 1 over the candidates that the
network was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from prunus.rewards.network_reward import NetworkReward
from prunus.rewards.networks import FrameNetwork
from prunus.roles import CHUNK
from prunus.score import Score


class FrameReward(NetworkReward):
    """Image and prompt to a score; a chunk's is the mean of its frames' (float32 (frames, 3, h, w) in [0, 1])."""

    name = "frame-reward"
    view = CHUNK
    kind = FrameNetwork

    @torch.no_grad()
    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        if not contents:
            return []
        return [Score(v) for v in self.evaluate([self.frames(c) for c in contents], prompts)[:, 0].tolist()]

    def evaluate(self, clips: Sequence[torch.Tensor], prompts: Sequence[str]) -> torch.Tensor:
        lengths = [len(clip) for clip in clips]
        repeated = [p for p, n in zip(prompts, lengths, strict=True) for _ in range(n)]
        scores = self.network(torch.cat(list(clips)), repeated)
        return torch.stack([s.mean(0) for s in scores.split(lengths)])
