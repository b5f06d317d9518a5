"""What an OpenAI-compatible server can do for a generator, found out by asking.

Servers differ in whether they give log-probabilities, take ``n``, call the limit ``max_tokens`` (some chat models want
``max_completion_tokens``), and go on with a message that an assistant has begun. Most begin a new one instead. So a
greedy answer is cut in two, the first half is given back as the assistant's, and what comes must be the second half.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from prunus.errors import ServerError
from prunus.generators.openai_answer import Choice

if TYPE_CHECKING:
    from prunus.generators.openai_client import Client

QUESTIONS = (
    "Write the numbers from one to twenty as words, one a line.",
    "Write the letters of the alphabet, one a line.",
    "List ten animals, one a line.",
    "What is 3 + 4 * 5? Work it out step by step.",
)
ANSWER = 48  # tokens of a probe's answer
TELLING = 4  # characters in which two answers must agree to be the same


@dataclass(frozen=True)
class Ability:
    """limit: the name of the field with the most tokens. log_probabilities: given. several: gives ``n`` choices."""

    limit: str = "max_tokens"
    log_probabilities: bool = True
    several: bool = True


def probe(client: Client) -> Ability:
    """Ask the server for a few tokens in every way until one is not refused. Raises ServerError if all are."""
    refusal = None
    limits = ("max_tokens", "max_completion_tokens") if client.chat else ("max_tokens",)
    for ability in (
        Ability(*way) for way in product(limits, (True, False), (True, False) if client.share else (False,))
    ):
        body = client.body(QUESTIONS[0], "", 2, 1.0, ability=ability)
        try:
            choices = client.post({**body, "n": 2} if ability.several else body)
        except ServerError as error:
            if error.status == 404:
                raise client.server.error(
                    f"has no such address, or no model {client.model!r}; most urls end in /v1, and some servers "
                    f"know only chat={not client.chat}. It {str(error).rpartition(' answered ')[2]}", 404
                ) from None  # fmt: skip
            if not refused(error):
                raise
            refusal = refusal or error
        else:
            logs = ability.log_probabilities and all(c.tokens for c in choices if c.text)
            return Ability(ability.limit, logs, ability.several and len(choices) == 2)
    assert refusal is not None
    raise refusal


def continues(client: Client) -> bool:
    """Whether the server goes on with an assistant's message, exactly: white space at its end must not be lost."""
    for question in QUESTIONS:
        whole = _greedy(client, question, "").text
        middle = len(whole) // 2
        cut = next((at + 1 for mark in ("\n", " ") if (at := whole.find(mark, middle)) >= 0), middle)
        head, tail = whole[:cut], whole[cut:]
        if len(tail) < TELLING or not head or _agree(tail, whole):
            continue  # a new answer would look the same
        if _agree(_greedy(client, question, head).text, tail):
            return True
    return False


def refused(error: ServerError) -> bool:
    """Whether a request failed for what it asked, not for the moment at which it came."""
    return error.status is not None and 400 <= error.status < 500 and error.status not in (401, 403, 404, 429)


def _greedy(client: Client, question: str, begun: str) -> Choice:
    return client.post(client.body(question, begun, ANSWER, 0.0))[0]


def _agree(some: str, other: str) -> bool:
    length = min(len(some), len(other))
    return length >= TELLING and some[:length] == other[:length]
