"""How well a clip shows the prompt: the long reward of Stream-T1 (paper 01), where VideoAlign stands.

Its parts are VideoAlign's: ``visual`` (visual quality), ``motion`` (motion quality) and ``text`` (text alignment); its
value is ``overall``, which is learned for itself and is not their sum. It reads the last W chunks, W = 10 in Stream-T1.
Each part has mean 0 and deviation 1 over the candidates that the network was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from prunus.errors import require
from prunus.rewards.network_reward import NetworkReward
from prunus.rewards.networks import ClipNetwork, RewardNetwork
from prunus.roles import View
from prunus.score import Score


class ClipReward(NetworkReward):
    """Clip and prompt to a score with parts; clips are float32 (frames, 3, h, w) in [0, 1], of any lengths.

    ``units`` is how many of the last chunks it is shown, None the whole clip. A second clip reward of one search needs
    a ``name`` of its own.
    """

    kind = ClipNetwork

    def __init__(
        self, network: RewardNetwork, *, units: int | None = 10, name: str = "clip-reward", **settings: Any
    ) -> None:
        super().__init__(network, **settings)
        require(units is None or units >= 1, "units", units, "at least 1, or None for the whole clip")
        self.name, self.view = name, View(units)

    @torch.no_grad()
    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        if not contents:
            return []
        rows = self.evaluate([self.frames(c) for c in contents], prompts).tolist()
        return [Score(row[0], dict(zip(self.network.outputs[1:], row[1:], strict=True))) for row in rows]

    def evaluate(self, clips: Sequence[torch.Tensor], prompts: Sequence[str]) -> torch.Tensor:
        return self.network(clips, prompts)

    def spec(self) -> dict:
        return {**super().spec(), "units": self.view.units}
