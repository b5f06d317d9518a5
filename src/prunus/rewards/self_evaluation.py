"""Self-evaluation: the generator itself says whether starting over would give a better answer (paper 52, 2410.02725).

    s(x, y) = P_{y' ~ policy(x)}[R(y') <= R(y)]     win or tie against one fresh sample

A question (one special token will do) is read after what has been written, and of the logits that follow only the
answers' count: s = P(no) / (P(no) + P(yes)), where several spellings of an answer are added up. Nothing of it stays:
the candidate's own state is not changed. The language model is frozen, so its answers stay as good as they were; what
is trained, if anything, is a ``Head`` that reads s off the logits, s = sigmoid(w . logits + b) (the paper trains the
whole model on yes and no).

Labels: ``win_or_tie`` among samples of one prompt. On prompts that are never or always solved all samples tie, s = 1,
and no more are drawn; a reward that is not rounded has no ties, and loses that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prunus.budget import Cost
from prunus.errors import FileError, ModelError, require
from prunus.roles import Reward, View

if TYPE_CHECKING:
    import torch


WITH_STATE = View(None, state=True)


class LooksAhead(Protocol):
    """A generator that can be asked what would follow."""

    def logits_after(self, states: Sequence[Any], tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits (n, vocabulary) after each of these states and then these tokens; no state is changed."""

    def look_cost(self, states: Sequence[Any], tokens: Sequence[Sequence[int]]) -> Cost:
        """What that takes, with what of these states has not been read yet."""


@dataclass(frozen=True, eq=False)
class Head:
    """A linear read-out of the logits: ``weight`` (vocabulary), ``bias`` ()."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """s (n,) for logits (n, vocabulary)."""
        if logits.shape[-1] != len(self.weight):
            raise ModelError(f"the head reads {len(self.weight)} logits, the model has {logits.shape[-1]}")
        return (logits.float() @ self.weight + self.bias).sigmoid()

    @classmethod
    def fit(cls, logits: torch.Tensor, labels: Sequence[float], decay: float = 1e-2) -> Head:
        """Logistic regression of ``labels`` (n, from 0 to 1) on ``logits`` (n, vocabulary), which are standardised for
        it; ``decay`` weighs the squared norm of the weights."""
        import torch

        y, x = torch.tensor(labels, dtype=torch.float64), logits.double()
        require(len(y) == len(x) > 0, "labels", len(y), f"one for each of the {len(x)} rows of logits")
        mean, spread = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
        x = (x - mean) / spread
        parameters = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            said = x @ parameters[:-1] + parameters[-1]
            value = (
                torch.nn.functional.binary_cross_entropy_with_logits(said, y) + decay * parameters[:-1].square().sum()
            )
            value.backward()
            return value

        optimiser.step(loss)
        weight = parameters.detach()[:-1] / spread
        return cls(weight.float(), (parameters.detach()[-1] - weight @ mean).float())

    def save(self, file: str | Path) -> None:
        from safetensors.torch import save_file

        try:
            save_file({"weight": self.weight.contiguous(), "bias": self.bias.reshape(1)}, file)
        except OSError as error:
            raise FileError(f"{file} cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, file: str | Path) -> Head:
        """Raises FileError."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            arrays = load_file(file)
            return cls(arrays["weight"], arrays["bias"].reshape(()))
        except (OSError, SafetensorError, KeyError) as error:
            raise FileError(f"{file} is no head of a self-evaluation: {error}") from error


@dataclass(frozen=True, eq=False)
class SelfEvaluation(Reward):
    """``question``: ids of the tokens that are appended; ``no`` and ``yes``: ids of the answers to "would a restart be
    better?", or a ``head`` in their place. ``price``: what one evaluation takes at most, which a budget keeps in
    reserve (None: one forward of the question)."""

    generator: LooksAhead
    question: tuple[int, ...]
    no: tuple[int, ...] = ()
    yes: tuple[int, ...] = ()
    head: Head | None = None
    price: Cost | None = None
    name: str = "self-evaluation"
    view: View = WITH_STATE
    range: str = "probability"

    def __post_init__(self) -> None:
        require(len(self.question) > 0, "question", self.question, "the id of at least one token")
        answers = len(self.no) > 0 and len(self.yes) > 0 and not set(self.no) & set(self.yes)
        require(self.head is not None or answers, "no, yes", (self.no, self.yes), "ids of two answers, or give a head")

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[float]:
        logits = self.logits([state for _, state in contents])
        if self.head is not None:
            return self.head(logits).tolist()
        no, yes = (logits[:, list(ids)].float().logsumexp(-1) for ids in (self.no, self.yes))
        return (no - yes).sigmoid().tolist()

    def logits(self, states: Sequence[Any]) -> torch.Tensor:
        """What a head is fitted on, (n, vocabulary)."""
        return self.generator.logits_after(states, [self.question] * len(states))

    def cost(self, units: Sequence[int]) -> Cost:
        return (self.price or Cost(1, len(self.question))) * len(units)

    def took(self, contents: Sequence[Any], prompts: Sequence[str], read: Sequence[int]) -> Cost:
        """What evaluating these took; how much of them was evaluated before makes no difference."""
        return self.generator.look_cost([state for _, state in contents], [self.question] * len(contents))

    def spec(self) -> dict:
        answers = {"no": list(self.no), "yes": list(self.yes)} if self.head is None else {"head": len(self.head.weight)}
        return {"name": self.name, "question": list(self.question), **answers}


def win_or_tie(rewards: Sequence[float], tie: float = 0.0) -> list[float]:
    """s of each of a prompt's samples against the others: the share that are better by no more than ``tie``."""
    require(len(rewards) >= 2, "rewards", rewards, "those of two samples or more")
    return [
        sum(other <= own + tie for j, other in enumerate(rewards) if j != i) / (len(rewards) - 1)
        for i, own in enumerate(rewards)
    ]
