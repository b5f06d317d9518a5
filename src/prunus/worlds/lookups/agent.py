"""The agent of this world: a tiny logistic model of what a step claims and of what the documents say.

It is trained as paper 38 trains its language model: on prefixes that a policy wrote, once with the documents that were
retrieved and once without. Right steps are its labels; evidence is wanted where it moves the margin by more than the
median shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from prunus.generators.written import Written
from prunus.rewards.retrieval import Retriever, margins, search_labels
from prunus.tree import seed_of
from prunus.worlds.lookups.table import Table, labels, read_fact


@dataclass(frozen=True, eq=False)
class LookupAgent:
    """``step`` (6) and ``search`` (2) are weights of the two read-outs. ``noise``: deviation of a normal number, fixed
    for each trace, that is added to the log-odds of a step."""

    step: np.ndarray
    search: np.ndarray
    noise: float = 0.0

    def search_probability(self, questions: Sequence[str], traces: Sequence[Written]) -> list[float]:
        return _chance(np.array([_blind(t) for t in traces]) @ self.search).tolist()

    def step_probability(
        self, questions: Sequence[str], traces: Sequence[Written], evidence: Sequence[Sequence[str]]
    ) -> list[float]:
        odds = np.array([_informed(t, d) for t, d in zip(traces, evidence, strict=True)]) @ self.step
        if self.noise:
            odds = odds + self.noise * np.array([_normal(q, t) for q, t in zip(questions, traces, strict=True)])
        return _chance(odds).tolist()

    @classmethod
    def fit(
        cls, traces: Sequence[tuple[str, Written]], table: Table, retriever: Retriever, k: int = 3, noise: float = 0.0
    ) -> LookupAgent:
        """Train on the prefixes of (question, whole trace)."""
        prefixes = [(q, Written(t.steps[: i + 1])) for q, t in traces for i in range(len(t.steps))]
        right = np.array([label for q, t in traces for label in labels(t.steps, q, table)], float)
        documents = retriever.query([t.steps[-1] for _, t in prefixes], k)
        informed = np.array([_informed(t, d) for (_, t), d in zip(prefixes, documents, strict=True)])
        without = np.array([_informed(t, []) for _, t in prefixes])
        step = logistic(np.concatenate([informed, without]), np.concatenate([right, right]))
        wanted = search_labels(margins(_chance(informed @ step)), margins(_chance(without @ step)))
        return cls(step, logistic(np.array([_blind(t) for _, t in prefixes]), wanted), noise)


def _blind(trace: Written) -> list[float]:
    """What is known of a step without documents: how late it is."""
    return [1.0, len(trace.steps) / 10]


def _informed(trace: Written, documents: Sequence[str]) -> list[float]:
    """That, and whether documents were given, one says the same, or one says something else of the same person."""
    claim, facts = read_fact(trace.steps[-1]), [f for f in map(read_fact, documents) if f]
    same = claim in facts
    other = claim is not None and any(a == claim[0] and b != claim[1] for a, b in facts)
    given, late = float(len(documents) > 0), len(trace.steps) / 10
    return [1.0, late, given, float(same), float(other), given * late]


def _normal(question: str, trace: Written) -> float:
    return NormalDist().inv_cdf((seed_of("agent", question, str(trace)) + 0.5) / 2**63)


def _chance(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def logistic(x: np.ndarray, y: np.ndarray, decay: float = 1e-3) -> np.ndarray:
    """Weights (d) of a logistic regression of ``y`` (n) on ``x`` (n, d), by Newton's method."""
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = _chance(x @ w)
        slope = x.T @ (p - y) / len(y) + decay * w
        curve = (x * (p * (1 - p))[:, None]).T @ x / len(y) + decay * np.eye(len(w))
        change = np.linalg.solve(curve, slope)
        w = w - change
        if np.abs(change).max() < 1e-9:
            break
    return w
