"""A vision-language model behind an OpenAI-compatible server as a judge: how likely it answers Yes.

    S = P(Yes) / (P(Yes) + P(No))

over the first token of its answer, upper and lower case and leading spaces merged, as VQAScore (arXiv 2404.01291) does
with its question "Does this figure show ...?"; a token that is not among the likeliest ones that the server reports
counts as 0. A server without log-probabilities gets, if ``samples`` says so, the share of Yes among that many sampled
answers, whose standard error is sqrt(S (1 - S) / samples).

On the command line, a module in the current folder makes the judge, and --reward names it:

    # mine.py
    from prunus.rewards import VLMJudge
    judge = VLMJudge("http://127.0.0.1:8000/v1", "Qwen/Qwen2.5-VL-7B-Instruct", key="MY_API_KEY")

    prunus video "a red circle moving right" --method beam --reward mine:judge
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prunus.errors import require
from prunus.http import Server
from prunus.rewards.judge_probe import Ability, probe
from prunus.rewards.pictures import pictures, png
from prunus.roles import Reward, View
from prunus.score import Score

if TYPE_CHECKING:
    from PIL.Image import Image

QUESTION = 'These pictures are frames of one video, in order. Does it show "{prompt}"? Answer only Yes or No.'
SAMPLE_TOKENS = 8  # enough for a Yes behind spaces or marks


class VLMJudge(Reward):
    """P(Yes) of a question about a candidate's frames, float (f, 3, h, w) in [0, 1], of any lengths.

    url: the server's base, such as http://127.0.0.1:8000/v1. model: its name there. question: what is asked behind the
    frames; {prompt} stands for the prompt. frames: how many evenly spaced frames it sees at most, the first and the
    last among them, as PNG. samples: answers per candidate where the server gives no log-probabilities; 0: such a
    server is an error. extra: fields of every request, such as vLLM's
    ``{"chat_template_kwargs": {"enable_thinking": False}}`` for a model that would think first. units: how many of the
    last units it is shown, None: the whole candidate. ``connection``: key (the *name* of the environment variable with
    the API key), time_limit, retries, back_off and concurrency of ``prunus.http.Server``.

    Parts: ``yes`` and ``no``, their probabilities (or shares). What the server can do is asked once, before the first
    score (``judge_probe``). A candidate about which it says neither is scored NaN, so that it fails alone.

    What scoring costs the server is not known: no forwards, tokens or FLOPs are charged to the budget, only seconds.
    Scores are as reproducible as the server. Raises ServerError, which names the reward, if the server cannot judge or
    does not answer in time; the search's tree is kept and can go on.
    """

    range = "probability"
    remote = True

    def __init__(
        self,
        url: str,
        model: str,
        *,
        question: str = QUESTION,
        frames: int = 8,
        samples: int = 0,
        extra: Mapping[str, Any] | None = None,
        units: int | None = None,
        name: str = "vlm-judge",
        **connection: Any,
    ) -> None:
        require("{prompt}" in question, "question", question, "a text with {prompt} in it")
        require(frames >= 1, "frames", frames, "at least 1")
        require(samples >= 0, "samples", samples, "at least 0")
        self.name, self.view, self.model = name, View(units), model
        self.question, self.frames, self.samples, self.extra = question, frames, samples, dict(extra or {})
        self.server = Server(url, f"reward {name!r}", **connection)

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        if not contents:
            return []
        asked = [
            self.request(pictures(content, self.frames, self.server.who), self.question.replace("{prompt}", prompt))
            for content, prompt in zip(contents, prompts, strict=True)
        ]
        shares = self._likely(asked) if self.ability.top else self._sampled(asked)
        if not any(map(sum, shares)):
            raise self.server.error(
                f"said neither Yes nor No about any of {len(shares)} candidates; ask a question that is answered so "
                "(question), or turn thinking off (extra)"
            )
        return [Score(yes / (yes + no) if yes + no else math.nan, {"yes": yes, "no": no}) for yes, no in shares]

    @cached_property
    def ability(self) -> Ability:
        """What the server can do; asked once."""
        return probe(self)

    def request(self, shown: Sequence[Image], question: str) -> dict:
        """The body of a chat completion about these pictures."""
        images = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}} for file in png(shown)]
        message = {"role": "user", "content": [*images, {"type": "text", "text": question}]}
        # At temperature 1 log-probabilities are the model's own, whether or not a server scales them.
        return {"model": self.model, "messages": [message], "temperature": 1, **self.extra}

    def ask(self, requests: Sequence[dict]) -> list[list[dict]]:
        """The answers' ``choices``, a list for each request."""
        answers = self.server.post("/chat/completions", requests)
        for answer in answers:
            choices = answer.get("choices") if isinstance(answer, dict) else None
            if not isinstance(choices, list) or not choices or not all(isinstance(c, dict) for c in choices):
                raise self.server.error(f"answered {str(answer)[:100]}; a chat completion has a list of choices")
        return [answer["choices"] for answer in answers]

    def _likely(self, asked: Sequence[dict]) -> list[tuple[float, float]]:
        answers = self.ask([{**body, **likeliest(self.ability.top)} for body in asked])
        return [self.masses(choices) for choices in answers]

    def _sampled(self, asked: Sequence[dict]) -> list[tuple[float, float]]:
        if self.ability.several:
            ways = [{"n": self.samples}]
        else:
            ways = [{"seed": i} for i in range(self.samples)]
        answers = self.ask([{**body, "max_tokens": SAMPLE_TOKENS, **way} for body in asked for way in ways])
        texts = [[said(c) for choices in answers[i : i + len(ways)] for c in choices]
                 for i in range(0, len(answers), len(ways))]  # fmt: skip
        if wrong := [len(t) for t in texts if len(t) != self.samples]:
            raise self.server.error(f"returned {wrong[0]} answers where {self.samples} were asked for")
        return [(words.count("yes") / self.samples, words.count("no") / self.samples) for words in texts]

    def masses(self, choices: Sequence[dict]) -> tuple[float, float]:
        """Probabilities of yes and no as the first token. Raises ServerError for what are not log-probabilities."""
        mass = {"yes": 0.0, "no": 0.0}
        try:
            for likely in choices[0]["logprobs"]["content"][0]["top_logprobs"]:
                probability = math.exp(likely["logprob"])
                if not 0 <= probability <= 1.001:  # NaN is neither
                    raise ValueError(f"log-probability {likely['logprob']}")
                if (word := first_word(likely["token"])) in mass:
                    mass[word] += probability
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise self.server.error(
                f"gave {str(choices[0])[:200]} ({type(error).__name__}: {error}); log-probabilities are expected in "
                "logprobs.content[0].top_logprobs"
            ) from None
        return mass["yes"], mass["no"]

    def spec(self) -> dict:
        names = ("name", "model", "question", "frames", "samples", "extra")
        return {**{n: getattr(self, n) for n in names}, "url": self.server.address, "units": self.view.units}


def likeliest(top: int) -> dict:
    """Fields that ask for the log-probabilities of the first token's ``top`` likeliest values; 0: for none."""
    return {"max_tokens": 1, "logprobs": True, "top_logprobs": top} if top else {"max_tokens": 1}


def first_word(text: str) -> str:
    """``Yes.``, `` yes``, ``**YES**`` and a tokenizer's own ``Ġyes`` or ``▁yes`` are all ``yes``."""
    found = re.match(r"[\W_ĠĊ▁]*([^\W_]+)", text)
    return found[1].lower() if found else ""


def said(choice: dict) -> str:
    """The first word of an answer; empty if it has no text."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    return first_word(text) if isinstance(text, str) else ""
