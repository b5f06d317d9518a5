"""A process reward that looks things up: for each new step it retrieves evidence and says how likely the step is right
(paper 38, process reward agents, arXiv 2604.09482).

    search        retrieve or not: P(search) of the agent against a threshold; the paper's main results always do
    D_t           the k best documents for the new step; none without a search
    r_t           P(step t is right | question, steps up to t, D_t)

The agent is any object with the two read-outs below; the policy never sees the documents. A step's score has the parts
``searched`` (0 or 1), ``documents`` (how many were found) and ``unavailable`` (1 if the store failed: the step is then
scored without evidence). The query is the new step's text (a choice: what the paper asks its dense retriever is the
whole trace).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import numpy as np

from prunus.budget import Cost
from prunus.errors import PrunusError, require
from prunus.generators.written import Written
from prunus.roles import WHOLE, Reward, View
from prunus.score import Score


class Retriever(Protocol):
    def query(self, texts: Sequence[str], k: int) -> list[list[str]]:
        """The ``k`` best documents for each text."""


class StepAgent(Protocol):
    """Judges the last step of each trace."""

    def search_probability(self, questions: Sequence[str], traces: Sequence[Written]) -> Sequence[float]:
        """How likely evidence would help, before it is looked for."""

    def step_probability(
        self, questions: Sequence[str], traces: Sequence[Written], evidence: Sequence[Sequence[str]]
    ) -> Sequence[float]:
        """How likely the last step is right."""


@dataclass(frozen=True, eq=False)
class RetrievalReward(Reward):
    """``search`` is always, never, or the least P(search) at which evidence is looked for (0 is always). ``price``:
    what judging one step takes, at most; the store's work is not counted in forwards."""

    agent: StepAgent
    retriever: Retriever
    search: str | float = "always"
    k: int = 3
    price: Cost | None = None
    name: str = "retrieval"
    view: View = WHOLE
    range: str = "probability"

    def __post_init__(self) -> None:
        threshold = not isinstance(self.search, str) and 0 <= self.search <= 1
        require(threshold or self.search in ("always", "never"), "search", self.search, "always, never, or from 0 to 1")
        require(self.k >= 1, "k", self.k, "at least 1 document")

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        wanted = self._wanted(contents, prompts)
        found, unavailable = self._look_up([c.steps[-1] for c, w in zip(contents, wanted, strict=True) if w])
        documents = iter(found)
        evidence = [next(documents) if w else [] for w in wanted]
        chances = self.agent.step_probability(prompts, contents, evidence)
        return [
            Score(float(r), {"searched": float(w), "documents": float(len(d)), "unavailable": float(w and unavailable)})
            for r, w, d in zip(chances, wanted, evidence, strict=True)
        ]

    def _wanted(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[bool]:
        if isinstance(self.search, str):
            return [self.search == "always"] * len(contents)
        return [p >= self.search for p in self.agent.search_probability(prompts, contents)]

    def _look_up(self, queries: Sequence[str]) -> tuple[list[list[str]], bool]:
        """Documents for each query, each looked up once, and whether the store failed."""
        different = list(dict.fromkeys(queries))
        try:
            found = dict(zip(different, self.retriever.query(different, self.k) if different else [], strict=True))
        except PrunusError:
            return [[] for _ in queries], True
        return [found[q] for q in queries], False

    def cost(self, units: Sequence[int]) -> Cost:
        return (self.price or Cost(1)) * len(units)

    def spec(self) -> dict:
        return {"name": self.name, "agent": type(self.agent).__name__, "search": self.search, "k": self.k}


def margins(probability: np.ndarray) -> np.ndarray:
    """log p(right) - log p(wrong), of probabilities (n)."""
    return np.log(probability) - np.log1p(-probability)


def search_labels(with_documents: np.ndarray, without: np.ndarray, eps: float | None = None) -> np.ndarray:
    """1 where documents move the margin by more than ``eps`` (None: the median, which halves them), of margins (n).

    Shifts that equal eps get 0, so with ties fewer than half are 1.
    """
    shift = np.abs(without - with_documents)
    return (shift > (median(shift.tolist()) if eps is None else eps)).astype(float)
