"""Answers in OpenAI's shapes, for chats and for completions, whole or in chunks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.server.engine import Running
from prunus.server.request import Asked
from prunus.server.usage import best_leaves, kept_tokens, length, report
from prunus.tree import Node

FINISHES = {"end": "stop", "length": "length"}


@dataclass
class Shape:
    """The envelope of one answer."""

    asked: Asked
    chat: bool
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(16)}"

    def whole(self, found: Sequence[Found], trees: Sequence[str]) -> dict[str, Any]:
        choices = [self._choice(i, *one) for i, one in enumerate(texts(found))]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage(self.asked, found, trees)}

    def chunk(self, index: int, text: str, finish: str | None = None, first: bool = False) -> dict[str, Any]:
        """A piece of one choice's text."""
        if self.chat:
            delta: dict[str, Any] = {"role": "assistant", "content": text} if first else {"content": text}
            choice: dict[str, Any] = {"index": index, "delta": {} if finish and not text else delta}
        else:
            choice = {"index": index, "text": text}
        return self._chunk([{**choice, "logprobs": None, "finish_reason": finish}])

    def last(self, found: Sequence[Found], trees: Sequence[str]) -> dict[str, Any]:
        """The chunk that tells the usage and has no choice."""
        return {**self._chunk([]), "usage": usage(self.asked, found, trees)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": choices}
        return {**chunk, "usage": None} if self.asked.include_usage else chunk

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.asked.name}

    def _choice(self, index: int, text: str, finish: str) -> dict[str, Any]:
        if self.chat:
            said: dict[str, Any] = {"message": {"role": "assistant", "content": text, "refusal": None}}
        else:
            said = {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}


@dataclass(frozen=True)
class Found:
    """A finished search and the candidates of it that are returned."""

    running: Running
    leaves: tuple[Node, ...]

    @classmethod
    def of(cls, running: Running, asked: Asked) -> Found:
        assert running.tree is not None
        # Samples may be alike; of a search the same text twice would be one answer less.
        leaves = best_leaves(running.tree, running.job.strategy, asked.n, distinct=asked.choice is not None)
        return cls(running, tuple(leaves))


def texts(found: Sequence[Found]) -> list[tuple[str, str]]:
    """(text, why it ended) of all answers, the prompts' in order."""
    return [
        (str(one.running.job.generator.output(leaf)), FINISHES.get(leaf.unit["reason"], "stop"))
        for one in found
        for leaf in one.leaves
    ]


def usage(asked: Asked, found: Sequence[Found], trees: Sequence[str]) -> dict[str, Any]:
    """OpenAI's three numbers, of the prompts and the answers that are returned, and ``prunus``: all that was spent."""
    if asked.model.remote:  # what its server billed
        prompt = found[0].running.job.generator.usage.prompt  # type: ignore[attr-defined]
    else:
        prompt = sum(asked.prompt_tokens)
    completion = sum(length(leaf) for one in found for leaf in one.leaves)
    own: dict[str, Any] = {}
    for one in found:
        assert one.running.tree is not None
        own = _added(own, report(one.running.tree, one.leaves, one.running.waited))
    own["strategy"] = asked.choice.name if asked.choice else "plain"
    own["reward"], own["seed"] = asked.reward, asked.seed
    if asked.reward is not None:
        own["scores"] = [_score(leaf, name) for one in found for name in one.running.job.rewards for leaf in one.leaves]
    if trees:
        own["trees"] = list(trees)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prunus": own,
    }


def kept(found: Sequence[Found]) -> int:
    return sum(kept_tokens(one.leaves) for one in found)


def _score(leaf: Node, reward: str) -> float | None:
    return leaf.scores[reward].value if reward in leaf.scores else None


def _added(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Two reports as one."""
    if not a:
        return dict(b)
    return {key: _added(a[key], b[key]) if isinstance(b[key], dict) else a[key] + b[key] for key in b}
