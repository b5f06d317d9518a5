"""Rewards behind vLLM's routes: ``/score``, ``/rerank`` (also under ``/v1``) and ``/pooling``.

    POST /v1/score    {"model", "text_1" | "queries", "text_2" | "documents"}
                   -> {"data": [{"index", "object": "score", "score"}], "usage"}
    POST /v1/rerank   {"model", "query", "documents", "top_n"}
                   -> {"results": [{"index", "document": {"text"}, "relevance_score"}]}, the best first
    POST /pooling     {"model", "input": text or texts}, or {"model", "messages"} with the prompt and the solution
                   -> {"data": [{"index", "object": "pooling", "data": [[p_bad, p_good], ...]}]}

The first text is a prompt, the second one a solution of it: one with one, one with each of many, or as many with as
many. ``/pooling`` is for rewards that score steps: a row at each step separator in the text, as vLLM's step pooler
gives, also at one that ends the prompt; of messages, at each in the solution. A score that the reward does not give is
null, and ranked last. ``model`` may be left out if one reward is served.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from prunus.errors import SettingError
from prunus.rewards.step_reward import StepReward
from prunus.roles import Reward
from prunus.server import fields
from prunus.server.body import body, while_connected
from prunus.server.errors import Refusal
from prunus.server.metrics import Metric
from prunus.server.model_thread import ModelThread
from prunus.server.quotas import charge
from prunus.server.reward_batches import Rated, RewardBatches, Text
from prunus.server.settings import Limits

CHANGING = ("truncate_prompt_tokens", "use_activation", "activation", "softmax", "dimensions", "instruction", "items",
            "data_1", "data_2", "data", "chat_template", "normalize")  # fmt: skip
"""Fields of vLLM that would change the meaning of an answer, and are not known here."""
KNOWN = ("model", "text_1", "text_2", "queries", "query", "documents", "top_n", "input", "messages", "task",
         "encoding_format")  # fmt: skip


class RewardPart:
    """The rewards of a server. ``rewards`` are loaded by ``start``; other parts may use them then.

    alone: there are no language models, and ``/v1/models`` lists the rewards.
    """

    def __init__(
        self, loaders: Mapping[str, Callable[[], Reward]], models: ModelThread, limits: Limits, alone: bool = False
    ) -> None:
        self.loaders, self.models, self.limits, self.alone = dict(loaders), models, limits, alone
        self.rewards: dict[str, Reward] = {}
        self.batches: dict[str, RewardBatches] = {}
        self.draining = False

    # ---- a part ------------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        routes = {"/score": self.score, "/v1/score": self.score, "/rerank": self.rerank, "/v1/rerank": self.rerank,
                  "/pooling": self.pooling}  # fmt: skip
        listed = [Route("/v1/models", self.listing)] if self.alone else []
        return [*listed, *(Route(path, endpoint, methods=["POST"]) for path, endpoint in routes.items())]

    def ready(self) -> bool:
        return len(self.rewards) == len(self.loaders) and not self.draining

    async def start(self) -> None:
        for name, load in self.loaders.items():
            reward = await self.models.run(load)
            if not (reward.view.state or reward.view.progress):
                self.batches[name] = RewardBatches(name, reward, self.models, self.limits.rows)
            elif self.alone:
                raise SettingError(f"reward {name!r} reads the generator's state; it can only be used by searches")
            self.rewards[name] = reward

    async def drain(self, seconds: float) -> None:
        self.draining = True
        await asyncio.gather(*(batches.drain(seconds) for batches in self.batches.values()))

    def metrics(self) -> Iterable[Metric]:
        def each(name: str, kind: str, about: str, value: Callable[[RewardBatches], float]) -> Metric:
            return Metric(name, kind, about, [({"reward": n}, value(b)) for n, b in self.batches.items()])

        yield each("prunus_reward_texts_total", "counter", "Texts scored for clients.", lambda b: b.spent.texts)
        yield each("prunus_reward_batches_total", "counter", "Calls of the reward.", lambda b: b.spent.batches)
        yield each("prunus_reward_tokens_total", "counter", "Tokens read, if it tells.", lambda b: b.spent.tokens)
        yield each("prunus_reward_waiting_texts", "gauge", "Texts that wait to be scored.", lambda b: b.waiting)
        yield Metric(
            "prunus_reward_seconds_total", "counter", "Seconds of scoring, and of requests' waiting for it.",
            [
                ({"reward": n, "part": part}, seconds)
                for n, b in self.batches.items()
                for part, seconds in (("score", b.spent.scoring), ("wait", b.spent.waiting))
            ],
        )  # fmt: skip

    # ---- endpoints ---------------------------------------------------------------------------------------------------

    async def listing(self, request: Request) -> Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "prunus"} for name in self.rewards]
        return JSONResponse({"object": "list", "data": data})

    async def score(self, request: Request) -> Response:
        sent, name = await self._sent(request)
        first = next((f for f in ("text_1", "queries", "query") if f in sent), "text_1")
        second = next((f for f in ("text_2", "documents") if f in sent), "text_2")
        prompts, contents = self._texts(sent, first), self._texts(sent, second)
        rated, usage = await self._rate(request, name, self._pairs(prompts, contents, second))
        data = [{"index": i, "object": "score", "score": _number(r.value)} for i, r in enumerate(rated)]
        return _answer(sent, "score", name, {"object": "list", "data": data, "usage": usage})

    async def rerank(self, request: Request) -> Response:
        sent, name = await self._sent(request)
        prompt = fields.text(sent, "query", self.limits.text_characters)
        contents = self._texts(sent, "documents")
        top = fields.integer(sent, "top_n", 0, 0, 2**31) or len(contents)
        rated, usage = await self._rate(request, name, self._pairs([prompt], contents, "documents"))
        scores = [_number(r.value) for r in rated]
        order = sorted(range(len(scores)), key=lambda i: (scores[i] is None, -(scores[i] or 0.0)))
        results = [{"index": i, "document": {"text": contents[i]}, "relevance_score": scores[i]} for i in order[:top]]
        return _answer(sent, "rerank", name, {"results": results, "usage": usage})

    async def pooling(self, request: Request) -> Response:
        sent, name = await self._sent(request)
        if not isinstance(self.rewards[name], StepReward):
            raise Refusal(400, f"{name} scores whole texts, not steps; ask /v1/score", param="model", code="no_steps")
        if fields.text({"task": "token_classify", **sent}, "task", 64) != "token_classify":
            raise fields.wrong("task", "token_classify")
        if fields.text({"encoding_format": "float", **sent}, "encoding_format", 64) != "float":
            raise fields.wrong("encoding_format", "float")
        texts = [self._turns(sent["messages"])] if "messages" in sent else self._inputs(sent)
        rated, usage = await self._rate(request, name, texts)
        data = [{"index": i, "object": "pooling", "data": [[1.0 - p, p] for p in r.steps]} for i, r in enumerate(rated)]
        return _answer(sent, "pool", name, {"object": "list", "data": data, "usage": usage})

    # ---- what is sent ------------------------------------------------------------------------------------------------

    async def _sent(self, request: Request) -> tuple[dict[str, Any], str]:
        """The body, and the reward that it asks for."""
        sent = await body(request)
        if changing := [name for name in CHANGING if sent.get(name) is not None]:
            raise Refusal(400, f"{changing[0]} is not supported", param=changing[0], code="unsupported_field")
        if sent.get("model") is None and len(self.batches) == 1:
            return sent, next(iter(self.batches))
        return sent, fields.one_of(sent, "model", list(self.batches))

    def _texts(self, sent: dict[str, Any], name: str) -> list[str]:
        """Texts; a document may also be written {"text": ...}, as other servers of this route take it."""
        value = sent.get(name)
        if isinstance(value, list) and name == "documents":
            value = [v["text"] if isinstance(v, dict) and v.keys() == {"text"} else v for v in value]
        return fields.texts({name: value}, name, self.limits.pairs, self.limits.text_characters)

    def _pairs(self, prompts: list[str], contents: list[str], name: str) -> list[Text]:
        if len(prompts) not in (1, len(contents)):
            raise fields.wrong(
                name, f"as many texts as there are first ones, {len(prompts)}, or there must be one first text; here "
                f"are {len(contents)}"
            )  # fmt: skip
        prompts = prompts * len(contents) if len(prompts) == 1 else prompts
        self._check_characters(sum(map(len, prompts)) + sum(map(len, contents)), name)
        return [Text(content, prompt) for content, prompt in zip(contents, prompts, strict=True)]

    def _inputs(self, sent: dict[str, Any]) -> list[Text]:
        texts = self._texts(sent, "input")
        self._check_characters(sum(map(len, texts)), "input")
        return [Text(text, None) for text in texts]

    def _turns(self, messages: Any) -> Text:
        """A user's message and the assistant's."""
        roles = [m.get("role") if isinstance(m, dict) else None for m in messages] if isinstance(messages, list) else []
        if roles != ["user", "assistant"]:
            raise fields.wrong("messages", "the user's, the prompt, and the assistant's, the solution")
        prompt, content = (
            fields.check_text(m.get("content"), "messages", self.limits.text_characters) for m in messages
        )
        return Text(content, prompt)

    def _check_characters(self, total: int, name: str) -> None:
        most = self.limits.score_characters
        if total > most:
            raise fields.wrong(
                name, f"fewer or shorter: all pairs have {total} characters, at most {most}", "above_limit"
            )

    async def _rate(self, request: Request, name: str, texts: list[Text]) -> tuple[list[Rated], dict[str, int]]:
        seconds = self.limits.seconds
        work = asyncio.wait_for(self.batches[name].score(texts), seconds)
        try:
            rated = await while_connected(request, work)
        except asyncio.TimeoutError:
            raise Refusal(
                408, f"the answer was not ready within {seconds:g} seconds", code="timeout", retry_after=seconds
            ) from None
        tokens = sum(r.tokens for r in rated)
        charge(request, tokens)
        return rated, {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}


def _answer(sent: dict[str, Any], kind: str, name: str, made: dict[str, Any]) -> JSONResponse:
    whole = {"id": f"{kind}-{secrets.token_hex(16)}", "created": int(time.time()), "model": name, **made}
    return JSONResponse(whole, headers=fields.ignored(sent, KNOWN))


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None
