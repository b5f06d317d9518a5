"""An outcome reward behind vLLM's ``/v1/score`` or ``/v1/rerank`` route: of vLLM, or of ``prunus serve --reward``.

# mine.py
from prunus.rewards import ServerOutcomeReward
right = ServerOutcomeReward("http://127.0.0.1:8000", model="orm")

prunus solve '(7+5)*3-4=?' --strategy best-of-n --reward mine:right
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunus.errors import require
from prunus.rewards.reward_server import RewardServer, chunks
from prunus.roles import WHOLE, Failed, Reward

ROUTES = {"score": "/v1/score", "rerank": "/v1/rerank"}


class ServerOutcomeReward(Reward):
    """Text and prompt to the server's score of the pair, higher is better.

    url: the server's root. model: as the server names it; None if it has only one. route: score or rerank, which give
    the same numbers; some servers have only one of them. batch: candidates in a request; several requests are under way
    at a time. extra: more fields of a request. ``connection``: key, time_limit, retries, back_off and concurrency of
    ``prunus.http.Server``.

    A candidate that the server refuses, or gives null, fails; the others go on. What scoring costs the server is not
    known: no tokens or FLOPs are charged to the budget, only seconds. Raises ServerError, which names the reward, if
    the server does not answer as it should; the search's tree is kept and can go on.
    """

    view = WHOLE
    range = "unbounded"
    remote = True

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        route: str = "score",
        batch: int = 32,
        extra: Mapping[str, Any] | None = None,
        name: str = "outcome-server",
        **connection: Any,
    ) -> None:
        require(route in ROUTES, "route", route, "score or rerank")
        require(batch >= 1, "batch", batch, "at least 1")
        self.name, self.model, self.route, self.batch = name, model, route, batch
        self.client = RewardServer(url, model, f"reward {name!r}", extra or {}, **connection)

    def score(self, contents: Sequence[str], prompts: Sequence[str]) -> list[float | Failed]:  # type: ignore[override]
        """One score for each text."""
        of_prompt: dict[str, list[int]] = {}
        for row, prompt in enumerate(prompts):
            of_prompt.setdefault(str(prompt), []).append(row)
        groups = [group for rows in of_prompt.values() for group in chunks(rows, self.batch)]
        first, second, entries, number = (
            ("text_1", "text_2", "data", "score")
            if self.route == "score"
            else ("query", "documents", "results", "relevance_score")
        )

        def body(group: Sequence[int]) -> dict[str, Any]:
            return {first: str(prompts[group[0]]), second: [str(contents[row]) for row in group]}

        def read(answer: Any, group: Sequence[int]) -> dict[int, float]:
            listed = self.client.listed(answer, entries, len(group))
            return {row: self.client.number(entry.get(number, "none")) for row, entry in zip(group, listed)}

        found = self.client.ask(ROUTES[self.route], groups, body, read)
        return [found[row] for row in range(len(contents))]

    def spec(self) -> dict:
        return {
            "name": self.name,
            "url": self.client.server.address,
            "model": self.model,
            "route": self.route,
            "batch": self.batch,
        }
