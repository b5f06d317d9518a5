"""Flow matching in a few steps: x = (1 - sigma) x0 + sigma noise; the network predicts the velocity v = noise - x0.

Each step estimates x0 = x - sigma v and goes on to the next noise level s. Two ways:

fresh noise  x = (1 - s) x0 + s eps, eps drawn anew: what few-step models are distilled for (paper 01)
Euler        x + (s - sigma) v: the noise that the estimate implies is kept, so early estimates foretell the last one

The last step ends with its estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from prunus.errors import require


def shifted(timesteps: Sequence[float], shift: float) -> tuple[float, ...]:
    """Noise levels of timesteps in (0, 1000]: s = t / 1000, warped to shift s / (1 + (shift - 1) s)."""
    levels = [t / 1000 for t in timesteps]
    return tuple(shift * s / (1 + (shift - 1) * s) for s in levels)


@dataclass(frozen=True)
class FlowSampler:
    """``sigmas`` are the noise levels of the steps, falling from at most 1."""

    sigmas: tuple[float, ...]
    fresh_noise: bool = True

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.sigmas, (*self.sigmas[1:], 0.0)))
        require(len(self.sigmas) > 0 and self.sigmas[0] <= 1 and falling, "sigmas", self.sigmas, "falling, in (0, 1]")

    def spec(self) -> dict:
        return {"sigmas": list(self.sigmas), "fresh_noise": self.fresh_noise}

    def draws(self, steps: int) -> int:
        """How many draws the first ``steps`` of a row's steps take."""
        return min(steps, len(self.sigmas) - 1) if self.fresh_noise else 0

    def step(
        self, x: torch.Tensor, velocity: torch.Tensor, steps: Sequence[int], streams: Sequence[torch.Generator]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """After one step of x (n, ...): the next noisy x, and the estimates x0. Row i is at step ``steps[i]``.

        Fresh noise comes from the row's own stream, on the CPU. A row at its last step gets its estimate as both.
        """
        after = (*self.sigmas[1:], 0.0)
        x0 = x - _column([self.sigmas[i] for i in steps], x) * velocity
        if not self.fresh_noise:
            return x + _column([after[i] - self.sigmas[i] for i in steps], x) * velocity, x0
        last = len(self.sigmas) - 1
        noise = torch.stack(
            [
                torch.randn(x.shape[1:], generator=stream) if i < last else torch.zeros(x.shape[1:])
                for i, stream in zip(steps, streams, strict=True)
            ]
        ).to(x.device)
        return _column([1 - after[i] for i in steps], x) * x0 + _column([after[i] for i in steps], x) * noise, x0


def _column(values: Sequence[float], x: torch.Tensor) -> torch.Tensor:
    """Numbers (n,) that multiply the rows of x (n, ...)."""
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, *[1] * (x.ndim - 1))
