"""A client of servers that score texts on vLLM's routes: what the reward clients for them share.

Several candidates are sent in a request. One that the server refuses (a text that is too long for its model) is sent
again candidate by candidate, so that only the culprit fails; a server that is away, or that answers what is not an
answer, ends the search, whose tree is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prunus.errors import ServerError
from prunus.http import Server
from prunus.roles import Failed

REFUSALS = (400, 413, 422)  # of what was sent; others are about who sent it, or about the server


class RewardServer:
    """``url`` is the server's root, with or without /v1. ``extra``: fields that are sent with every request."""

    def __init__(self, url: str, model: str | None, who: str, extra: Mapping[str, Any], **connection: Any) -> None:
        self.server = Server(url.rstrip("/").removesuffix("/v1"), who, **connection)
        self.fixed = {**({} if model is None else {"model": model}), **extra}

    def ask(
        self,
        path: str,
        groups: Sequence[Sequence[int]],
        body: Callable[[Sequence[int]], dict[str, Any]],
        read: Callable[[Any, Sequence[int]], Mapping[int, Any]],
    ) -> dict[int, Any]:
        """What each row is given: the rows of a group are sent together as ``body`` says, ``read`` reads the answer.

        A row that the server refuses is Failed. Raises ServerError.
        """
        found: dict[int, Any] = {}
        again: list[Sequence[int]] = []
        answers = self.server.post_each(path, [{**self.fixed, **body(group)} for group in groups])
        for group, answer in zip(groups, answers, strict=True):
            if not isinstance(answer, ServerError):
                found |= read(answer, group)
            elif answer.status not in REFUSALS:
                raise answer
            elif len(group) > 1:
                again += [[row] for row in group]
            else:
                found[group[0]] = Failed(str(answer).removeprefix(f"{self.server.who}: "))
        return found | self.ask(path, again, body, read) if again else found

    def listed(self, answer: Any, name: str, count: int) -> list[dict[str, Any]]:
        """The entries of an answer in the order of what was sent, by their index. Raises ServerError."""
        entries = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self.server.error(f'answered {str(answer)[:100]}; it must answer {{"{name}": [...]}}')
        by_index = {entry.get("index"): entry for entry in entries if type(entry.get("index")) is int}
        if len(entries) != count or sorted(by_index) != list(range(count)):
            raise self.server.error(
                f"returned {len(entries)} entries with the indices {sorted(by_index)[:8]} for {count} candidates; it "
                "must return one for each"
            )
        return [by_index[i] for i in range(count)]

    def number(self, given: Any) -> float:
        """A score; null is NaN, which fails its candidate. Raises ServerError for what is neither."""
        if given is None:
            return float("nan")
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            raise self.server.error(f"gave the score {str(given)[:100]}; a score is a number or null")
        try:
            return float(given)
        except OverflowError:  # an integer beyond all floats
            return float("inf")


def chunks(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]
