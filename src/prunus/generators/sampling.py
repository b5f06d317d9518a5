"""The next token: temperature, top-k, top-p, and random numbers that belong to a candidate, not to a batch.

A token is drawn by inverting the cumulative distribution at one uniform number, which depends on (seed, path, position)
alone: rows may stand in any batch in any order, and a step that was left unfinished goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from prunus.errors import require


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 leave all tokens.

    The order is transformers': temperature, the ``top_k`` most probable, then the fewest of them that hold ``top_p``.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1")
        require(self.top_k >= 0 and self.top_k == int(self.top_k), "top_k", self.top_k, "a count, 0 for all tokens")

    @classmethod
    def of_folder(cls, config: Any, **given: float | None) -> Sampling:
        """What a folder's generation config says, unless ``given`` says otherwise.

        ``do_sample: false`` is greedy. A config that does not mention it is sampled from, as a search needs candidates
        that differ (``generate`` would be greedy).
        """
        temperature = 0.0 if config.do_sample is False else config.temperature
        settings = {"temperature": temperature, "top_p": config.top_p, "top_k": config.top_k}
        settings |= {name: value for name, value in given.items() if value is not None}
        return cls(**{name: value for name, value in settings.items() if value is not None})

    def draw(
        self, logits: torch.Tensor, uniforms: Sequence[float], temperatures: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (n,) and their log-probabilities (n,) from logits (n, vocabulary), a number in [0, 1) for each row.

        Each row has its temperature. The log-probabilities are the model's own: at temperature 1, of all tokens.
        """
        logits = logits.float()
        tokens = logits.argmax(-1)
        if any(temperatures):
            heat = logits.new_tensor([t or 1.0 for t in temperatures]).unsqueeze(-1)
            u = torch.tensor(uniforms, dtype=_exact(logits), device=logits.device)
            drawn = invert(self.probabilities(logits / heat), u)
            tokens = torch.where(logits.new_tensor(temperatures) > 0, drawn, tokens)
        return tokens, logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """What is drawn from (n, vocabulary), for logits at temperature 1; not normalised after top-p."""
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, -1).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(-1)
        if self.top_p < 1:
            ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
            # A token stays if those before it do not hold top_p yet; the first always does.
            surplus = ordered.cumsum(-1) - ordered >= self.top_p
            probabilities = probabilities.masked_fill(surplus.scatter(-1, tokens, surplus), 0.0)
        return probabilities


def check_temperature(temperature: float) -> None:
    require(0 <= temperature < float("inf"), "temperature", temperature, "0 (greedy) or a positive number")


def _exact(x: torch.Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64  # Apple's GPUs have no float64


def invert(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The tokens (n,) at which the cumulative distribution (n, vocabulary) passes ``uniforms`` (n,) in [0, 1)."""
    cumulative = probabilities.cumsum(-1, dtype=uniforms.dtype)
    whole = cumulative[:, -1:].contiguous()
    passed = torch.searchsorted(cumulative, uniforms.unsqueeze(-1) * whole, right=True)
    last = torch.searchsorted(cumulative, whole)  # rounding may lead past the last token that has a chance
    return torch.minimum(passed, last).squeeze(-1)


class Stream:
    """The random numbers of one candidate."""

    def __init__(self, seed: int, path: tuple[int, ...]) -> None:
        self._hash = hashlib.blake2b(repr((seed, path)).encode(), digest_size=8)

    def at(self, position: int) -> float:
        """The number in [0, 1) for the token at this position, counted from the end of the prompt."""
        digest = self._hash.copy()
        digest.update(position.to_bytes(8, "big"))
        return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53
