"""What an OpenAI-compatible server can do for a judge, found out by asking: log-probabilities, images, ``n``.

A red and a blue picture are shown and "Is this picture red?" is asked. Servers differ in how many log-probabilities
they give (the protocol allows 20, some allow 5, some give none), some ignore ``n``, and some drop images without a
word: their answers to red and blue are then the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunus.errors import ServerError

if TYPE_CHECKING:
    from prunus.rewards.vlm_judge import VLMJudge

TOPS = (20, 5, 0)
QUESTION = "Is this picture red? Answer only Yes or No."
SEEN = 1e-4  # a judge that sees the picture differs by more between red and blue


@dataclass(frozen=True)
class Ability:
    """top: how many log-probabilities of a token it gives, 0: none. several: it gives several answers to a request."""

    top: int
    several: bool = False


def probe(judge: VLMJudge) -> Ability:
    """Ask the judge's server. Raises ServerError if it cannot judge."""
    from PIL import Image

    from prunus.rewards.vlm_judge import likeliest

    red, blue = (judge.request([Image.new("RGB", (64, 64), c)], QUESTION) for c in ("red", "blue"))
    top = _log_probabilities(judge, red)
    if top:
        masses = [judge.masses(choices) for choices in judge.ask([{**r, **likeliest(top)} for r in (red, blue)])]
        if not all(map(sum, masses)):
            raise judge.server.error(
                f"says neither Yes nor No when it is asked: {QUESTION} Its first token is something else; turn "
                "thinking off (extra), or name another model"
            )
        reds, blues = (yes / (yes + no) for yes, no in masses)
        if abs(reds - blues) < SEEN:
            raise judge.server.error(
                f"answers alike, P(Yes) = {reds:.6f}, whether a picture is red or blue; it does not look at images: "
                "serve a vision-language model, with its image part"
            )
        return Ability(top)
    if not judge.samples:
        raise judge.server.error(
            "gives no log-probabilities; set samples, for example to 16, to score by the share of Yes among so many "
            "sampled answers"
        )
    try:
        return Ability(0, len(judge.ask([{**red, "max_tokens": 1, "n": 2}])[0]) == 2)
    except ServerError as error:
        if not _refused(error):
            raise
        return Ability(0)


def _log_probabilities(judge: VLMJudge, request: dict) -> int:
    """How many log-probabilities the server gives. Raises ServerError if it refuses every way of asking."""
    from prunus.rewards.vlm_judge import likeliest

    refusal = None
    for top in TOPS:
        try:
            choice = judge.ask([{**request, **likeliest(top)}])[0][0]
        except ServerError as error:
            if not _refused(error):
                raise
            refusal = refusal or error
        else:
            given = choice.get("logprobs")
            if not top or (isinstance(given, dict) and given.get("content")):
                return top
    assert refusal is not None
    text = {**request, "messages": [{"role": "user", "content": QUESTION}], **likeliest(0)}
    try:
        judge.ask([text])
    except ServerError:
        raise refusal from None
    raise judge.server.error(
        "answers questions without pictures only; serve a vision-language model, with its image part. Of a picture it "
        f"says: {refusal}"
    ) from refusal


def _refused(error: ServerError) -> bool:
    return error.status is not None and 400 <= error.status < 500 and error.status != 429
