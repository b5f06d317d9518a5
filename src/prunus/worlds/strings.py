"""The string task of paper 24 (arXiv 2410.08146): strings of 10 tokens in which a hidden sequence should occur.

Tokens are 0 to 14, 14 ends the string. A prompt is the hidden sequence, ``3 6 0 3 5`` in the paper; a string is right
if it holds it as a contiguous part. A policy of strength gamma: while the last k >= 1 tokens are the first k of the
hidden sequence, the token that goes on with it has weight gamma and each other 1; else all have the same weight.

All that such a policy will achieve depends on (matched tokens k, tokens left) alone, so its success is known exactly:

    V(k, 0) = [k = K]    V(K, left) = 1    V(k, left) = sum over t but the end of p(t | k) V(next(k, t), left - 1)

next(k, t) is the longest beginning of the hidden sequence that the string now ends with: after 3 6 0 3 a 6 leads back
to 2 matched tokens, not to 0.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from prunus.budget import Cost
from prunus.errors import PromptError, require
from prunus.roles import WHOLE, Ask, Generator, Grown, Reward, View
from prunus.tree import Node, seed_of

LENGTH, VOCABULARY, END = 10, 15, 14
PAPERS_PROMPT = "3 6 0 3 5"


def parse(prompt: str) -> tuple[int, ...]:
    """The hidden sequence. Raises PromptError."""
    words = prompt.split()
    if not words or not all(w.isascii() and w.isdigit() and int(w) < END for w in words) or len(words) > LENGTH:
        raise PromptError(f"{prompt!r} is no hidden sequence; write 1 to {LENGTH} tokens from 0 to {END - 1}")
    return tuple(map(int, words))


def sample(rng: random.Random) -> str:
    return " ".join(str(rng.randrange(END)) for _ in range(5))


def split(name: str, count: int) -> list[str]:
    """The first ``count`` prompts of a split, dev or report."""
    require(name in ("dev", "report"), "split", name, "dev or report")
    rng = random.Random(f"strings {name}")
    return [sample(rng) for _ in range(count)]


def judge(tokens: Sequence[int], prompt: str) -> float:
    """1 if the hidden sequence is a contiguous part of the string, else 0."""
    target, tokens = parse(prompt), tuple(tokens)
    return float(any(tokens[i : i + len(target)] == target for i in range(len(tokens))))


@lru_cache(maxsize=1024)
def automaton(target: tuple[int, ...]) -> np.ndarray:
    """next (K + 1, tokens): matched tokens after one more; a whole match stays."""
    table = np.full((len(target) + 1, VOCABULARY), len(target))
    for k in range(len(target)):
        for token in range(VOCABULARY):
            seen = (*target[:k], token)
            table[k, token] = max(m for m in range(k + 2) if m == 0 or seen[-m:] == target[:m])
    return table


@lru_cache(maxsize=1024)
def choices(target: tuple[int, ...], gamma: float) -> np.ndarray:
    """p (K + 1, tokens): what a policy of this strength writes next."""
    weights = np.ones((len(target) + 1, VOCABULARY))
    weights[range(1, len(target)), target[1:]] = gamma
    return weights / weights.sum(1, keepdims=True)


@lru_cache(maxsize=1024)
def success(target: tuple[int, ...], gamma: float) -> np.ndarray:
    """V (LENGTH + 1, K + 1): chance of a right string with so many tokens left and so many matched."""
    follows, p = automaton(target), choices(target, gamma)
    value = np.zeros((LENGTH + 1, len(target) + 1))
    value[:, -1] = 1
    for left in range(1, LENGTH + 1):
        for k in range(len(target)):
            value[left, k] = sum(p[k, t] * value[left - 1, follows[k, t]] for t in range(VOCABULARY) if t != END)
    return value


def matched(tokens: Sequence[int], target: tuple[int, ...]) -> int:
    k = 0
    for token in tokens:
        k = int(automaton(target)[k, token])
    return k


def value(tokens: Sequence[int], prompt: str, gamma: float) -> float:
    """The chance that a policy of this strength makes a right string of this beginning."""
    target = parse(prompt)
    left = 0 if tokens and tokens[-1] == END else LENGTH - len(tokens)
    return float(success(target, gamma)[left, matched(tokens, target)])


@dataclass(frozen=True)
class StringPolicy(Generator):
    """Writes strings, a token a unit; a token costs one forward and counts as one FLOP."""

    gamma: float = 5.0
    name: str = "string-policy"

    def begin(self, prompt: str) -> tuple[int, ...]:
        parse(prompt)
        return ()

    def grow(self, asks: Sequence[Ask]) -> list[Grown]:
        return [self._grow(ask) for ask in asks]

    def _grow(self, ask: Ask) -> Grown:
        before, target = ask.parent.state, parse(ask.prompt)
        p = choices(target, self.gamma)[matched(before, target)]
        drawn = seed_of(ask.seed, ask.prompt, ask.path) / 2**63
        token = min(int(np.searchsorted(p.cumsum(), drawn, side="right")), VOCABULARY - 1)
        tokens = (*before, token)
        done = token == END or len(tokens) == LENGTH
        return Grown({"token": token}, tokens, done, log_probability=float(np.log(p[token])), cost=Cost(1, 1, 1))

    def cost(self, asks: Sequence[Ask]) -> Cost:
        return Cost(1, 1, 1) * len(asks)

    def finish_cost(self, ask: Ask) -> Cost:
        return Cost(1, 1, 1) * (LENGTH - ask.parent.depth - 1)

    def units_left(self, node: Node) -> int:
        return LENGTH - node.depth

    def render(self, nodes: Sequence[Node], view: View) -> list[tuple[int, ...]]:
        return [tuple(n.unit["token"] for n in node.units(view.units)) for node in nodes]

    def restore(self, nodes: Sequence[Node], prompt: str) -> list[tuple[tuple[int, ...], Cost]]:
        return [(tokens, Cost()) for tokens in self.render(nodes, WHOLE)]

    def spec(self) -> dict:
        return {"name": self.name, "gamma": self.gamma}


@dataclass(frozen=True)
class StringValue(Reward):
    """The chance that a policy of strength ``gamma`` makes the string right: exact, or as a verifier that was trained
    on ``rollouts`` of each beginning would know it. A score counts as one forward and one FLOP."""

    gamma: float = 5.0
    rollouts: int | None = None
    name: str = "string-value"
    view: View = WHOLE
    range: str = "probability"

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[float]:
        return [self._score(tuple(tokens), prompt) for tokens, prompt in zip(contents, prompts, strict=True)]

    def _score(self, tokens: tuple[int, ...], prompt: str) -> float:
        chance = value(tokens, prompt, self.gamma)
        if self.rollouts is None:
            return chance
        rng = np.random.default_rng(seed_of(self.name, self.gamma, prompt, tokens))
        return float(rng.binomial(self.rollouts, min(chance, 1.0)) / self.rollouts)

    def cost(self, units: Sequence[int]) -> Cost:
        return Cost(1, 0, 1) * len(units)

    def spec(self) -> dict:
        return {"name": self.name, "gamma": self.gamma, "rollouts": self.rollouts}
