"""Texts of many requests, scored together.

A reward has one batch on the model thread at a time; what arrives meanwhile waits and makes the next one. Requests take
turns, a text each, so that a long one does not keep the others waiting. A request whose texts make a batch fail, fails
alone. One that is cancelled takes its waiting texts with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prunus.errors import SearchError
from prunus.rewards.step_reward import StepReward
from prunus.roles import Failed, Reward
from prunus.score import Score
from prunus.server.errors import Refusal
from prunus.server.model_thread import ModelThread

BATCH = 64  # texts in a call
DRAINING = Refusal(503, "the server is draining", code="draining", retry_after=5)


@dataclass(frozen=True)
class Text:
    """What is scored: a solution and its prompt, or a text that holds its prompt (None)."""

    content: str
    prompt: str | None


@dataclass(frozen=True)
class Rated:
    """value: NaN where the reward gives none. steps: at each separator, of a reward that scores steps. tokens: of the
    text and its prompt, if the reward tells."""

    value: float
    steps: tuple[float, ...] = ()
    tokens: int = 0


@dataclass(eq=False)
class _Request:
    texts: Sequence[Text]
    answer: asyncio.Future
    waiting: deque[int] = field(default_factory=deque)
    results: dict[int, Rated] = field(default_factory=dict)
    arrived: float = field(default_factory=time.monotonic)


@dataclass
class Spent:
    """What a reward has done since the server began."""

    texts: int = 0
    batches: int = 0
    tokens: int = 0
    scoring: float = 0.0  # seconds
    waiting: float = 0.0  # seconds of requests, until their last text was taken


class RewardBatches:
    """The queue of one reward, which clients know by ``name``; ``most`` texts may wait in it."""

    def __init__(self, name: str, reward: Reward, models: ModelThread, most: int, batch: int = BATCH) -> None:
        self.name, self.reward, self.most, self.batch = name, reward, most, batch
        self._run = asyncio.to_thread if reward.remote else models.run  # which another machine's need not wait for
        self.spent = Spent()
        self.closed = False
        self._requests: deque[_Request] = deque()
        self._unanswered: set[_Request] = set()
        self._worker: asyncio.Task | None = None

    @property
    def waiting(self) -> int:
        return sum(len(request.waiting) for request in self._requests)

    async def score(self, texts: Sequence[Text]) -> list[Rated]:
        """One result for each text, in order. Raises Refusal(429) if too many wait."""
        if self.closed:
            raise DRAINING
        if (waiting := self.waiting) + len(texts) > self.most:
            pace = self.spent.scoring / self.spent.texts if self.spent.texts else 0.0
            raise Refusal(
                429, f"{waiting} texts wait to be scored by {self.name}; at most {self.most} may",
                code="queue_full", retry_after=max(1.0, pace * waiting),
            )  # fmt: skip
        request = _Request(texts, asyncio.get_running_loop().create_future(), deque(range(len(texts))))
        self._requests.append(request)
        self._unanswered.add(request)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            await request.answer
        finally:
            request.waiting.clear()
            self._unanswered.discard(request)
        return [request.results[i] for i in range(len(texts))]

    async def drain(self, seconds: float) -> None:
        """Take no more; wait for what was taken."""
        self.closed = True
        ends = time.monotonic() + seconds
        while self._unanswered and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        for request in list(self._unanswered):
            _fail(request, DRAINING)

    async def _work(self) -> None:
        while rows := self._take():
            began = time.perf_counter()
            try:
                results: Sequence[Rated | Exception] = await self._run(self._call, [r.texts[i] for r, i in rows])
            except Exception:
                results = await self._one_by_one(rows)
            self.spent.scoring += time.perf_counter() - began
            self.spent.texts += len(rows)
            self.spent.batches += 1
            for (request, i), result in zip(rows, results, strict=True):
                if isinstance(result, Exception):
                    _fail(request, result)
                    continue
                self.spent.tokens += result.tokens
                request.results[i] = result
                if len(request.results) == len(request.texts) and not request.answer.done():
                    request.answer.set_result(None)

    def _take(self) -> list[tuple[_Request, int]]:
        """The next batch: a text of each request in turn. Requests without waiting texts leave."""
        rows: list[tuple[_Request, int]] = []
        while self._requests and len(rows) < self.batch:
            request = self._requests.popleft()
            if not request.waiting:
                continue
            rows.append((request, request.waiting.popleft()))
            if request.waiting:
                self._requests.append(request)
            else:
                self.spent.waiting += time.monotonic() - request.arrived
        return rows

    async def _one_by_one(self, rows: Sequence[tuple[_Request, int]]) -> list[Rated | Exception]:
        """A call for each request, so that only the culprit fails."""
        results: dict[tuple[_Request, int], Rated | Exception] = {}
        for request in dict.fromkeys(request for request, _ in rows):
            mine = [row for row in rows if row[0] is request]
            try:
                made: Sequence[Any] = await self._run(self._call, [request.texts[i] for _, i in mine])
            except Exception as error:
                made = [error] * len(mine)
            results |= dict(zip(mine, made, strict=True))
        return [results[row] for row in rows]

    def _call(self, texts: Sequence[Text]) -> list[Rated]:
        """On the model thread."""
        contents = [text.content for text in texts]
        if isinstance(self.reward, StepReward):
            found = self.reward.score_steps(contents, [text.prompt for text in texts])
            # A text that holds its prompt has a row at each separator, another one only at its steps'.
            steps = [tuple(s if text.prompt is None else s[1:]) for s, text in zip(found, texts, strict=True)]
            values = [s[-1] if s else float("nan") for s in steps]
        else:
            values = [_value(score) for score in self.reward.score(contents, [text.prompt or "" for text in texts])]
            steps = [()] * len(texts)
            if len(values) != len(texts):
                raise SearchError(f"reward {self.name!r} returned {len(values)} scores for {len(texts)} texts")
        return [Rated(v, s, self._tokens(text)) for v, s, text in zip(values, steps, texts, strict=True)]

    def _tokens(self, text: Text) -> int:
        prompts: list[Any] = [text.prompt]
        cost = self.reward.took([text.content], prompts, [0])
        return 0 if cost is None else int(cost.tokens)


def _value(score: Score | float | Failed | None) -> float:
    if isinstance(score, Score):
        return score.value
    return float("nan") if score is None or isinstance(score, Failed) else float(score)


def _fail(request: _Request, error: Exception) -> None:
    request.waiting.clear()
    if not request.answer.done():
        request.answer.set_exception(error)
