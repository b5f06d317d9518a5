"""What an OpenAI-compatible server answers: choices, their tokens, and what is billed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

from prunus.http import Server

BYTES_OF_A_TOKEN = 4  # a guess, where a server tells neither usage nor tokens


@dataclass(frozen=True)
class Usage:
    """What a server billed: tokens of prompts (``cached`` are those of them that it had in a cache) and completions.

    ``requests`` were answered; ``unreported`` of them without a usage, whose completion tokens are then counted by
    their log-probabilities or guessed by their bytes, and whose prompts are missing here.
    """

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    unreported: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Choice:
    """One of the texts that a server answers with.

    finish: why it ended: stop, length, or what else the server says. tokens: their texts, with a log-probability each;
    empty where the server tells none. billed: its share of the completion tokens.
    """

    text: str
    finish: str
    tokens: tuple[str, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    billed: int = 0


def read(answer: Any, server: Server) -> tuple[list[Choice], Usage]:
    """The choices of a completion or chat completion. Raises ServerError for what is neither."""
    given = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(given, list) or not given or not all(isinstance(c, dict) for c in given):
        raise server.error(f"answered {str(answer)[:200]}; a completion has a list of choices")
    texts = [_text(choice, server) for choice in given]
    tokens = [_tokens(choice) for choice in given]
    usage = _usage(answer.get("usage"))
    if usage is None:
        billed = [len(t) or _guess(text) for text, (t, _) in zip(texts, tokens)]
        usage = Usage(1, completion=sum(billed), unreported=1)
    else:
        billed = share(usage.completion, [len(t) or len(text) + 1 for text, (t, _) in zip(texts, tokens)])
    finishes = [str(choice.get("finish_reason")) for choice in given]
    return [Choice(*c) for c in zip(texts, finishes, *zip(*tokens), billed)], usage


def share(total: int, weights: Sequence[int]) -> list[int]:
    """A whole number in shares that are whole too, as the weights are."""
    ends = [round(total * part / sum(weights)) for part in accumulate(weights)]
    return [end - start for start, end in zip([0, *ends], ends)]


def _text(choice: dict, server: Server) -> str:
    message = choice.get("message", choice)
    text = message.get("text" if message is choice else "content") if isinstance(message, dict) else 0
    if not isinstance(text, str | None):
        raise server.error(f"answered with the choice {str(choice)[:200]}, which has no text")
    return text or ""


def _tokens(choice: dict) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Texts and log-probabilities of the tokens, as chats or as completions have them; empty unless all are there."""
    given: Any = choice.get("logprobs")
    try:
        if given.get("content"):
            pairs = [(token["token"], token["logprob"]) for token in given["content"]]
        else:
            pairs = list(zip(given["tokens"], given["token_logprobs"], strict=True))
        texts, logs = tuple(str(t) for t, _ in pairs), tuple(float(p) for _, p in pairs)
    except (AttributeError, TypeError, LookupError, ValueError):
        return (), ()
    return (texts, logs) if all(math.isfinite(p) for p in logs) else ((), ())


def _usage(given: Any) -> Usage | None:
    if not isinstance(given, dict) or not _is_count(given.get("completion_tokens")):
        return None
    details = given.get("prompt_tokens_details")
    cached: Any = details.get("cached_tokens") if isinstance(details, dict) else 0
    prompt: Any = given.get("prompt_tokens")
    return Usage(1, prompt if _is_count(prompt) else 0, cached if _is_count(cached) else 0, given["completion_tokens"])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _guess(text: str) -> int:
    return max(1, math.ceil(len(text.encode()) / BYTES_OF_A_TOKEN))
