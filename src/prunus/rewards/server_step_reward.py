"""A process reward behind vLLM's ``/pooling`` route: of vLLM, or of ``prunus serve --reward``.

The prompt and the steps, each ended by the separator, are sent as one text, and rows [p_bad, p_good] come back: one for
each separator in the text (a step pooler), or one for each of its tokens, of which those at the separators are taken.
What comes in another number fails its candidate: which row were whose could only be guessed.

    # mine.py
    from prunus.rewards import ServerStepReward
    steps = ServerStepReward("http://127.0.0.1:8000", model="prm")

    prunus solve '(7+5)*3-4=?' --strategy beam --reward mine:steps
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.errors import ModelError, require
from prunus.rewards.reward_server import RewardServer, chunks
from prunus.rewards.step_reward import steps_of, summary
from prunus.roles import WHOLE, Failed, Reward
from prunus.score import Score


@dataclass(frozen=True)
class Laid:
    """A candidate as it is sent. ends: where in ``text`` each step's separator ends; whole: the last is complete."""

    prompt: str
    solution: str
    text: str
    ends: tuple[int, ...]
    whole: bool


class ServerStepReward(Reward):
    """Steps and prompt to the probability that the last step, and all before it, are right.

    Contents and scores are as ``StepReward``'s, and so are the numbers if that is what the server runs. A step that is
    not finished is scored with the separator behind it, since only there a server gives a score.

    url: the server's root. model: as the server names it; None if it has only one. separator: what ends a step. layout:
    the text, with {prompt} and {steps} in it. chat: send the two as a user's and an assistant's message instead, laid
    out by the server; separators are then expected in the assistant's only. good: which column of a row is the right
    one. tokenizer: for a server that gives a row for each token, the folder of its model's tokenizer, with which those
    at the separators are found. batch: candidates in a request. extra: more fields of a request. ``connection``: key,
    time_limit, retries, back_off and concurrency of ``prunus.http.Server``.

    A candidate that the server refuses, or answers by too many or too few rows, fails; the others go on. Only seconds
    are charged to the budget. Raises ServerError if the server does not answer as it should.
    """

    view = WHOLE
    range = "probability"
    remote = True

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        separator: str = "\n",
        layout: str = "{prompt}\n{steps}",
        chat: bool = False,
        good: int = -1,
        tokenizer: str | None = None,
        batch: int = 16,
        extra: Mapping[str, Any] | None = None,
        name: str = "step-server",
        **connection: Any,
    ) -> None:
        require(separator != "", "separator", separator, "a text")
        parts = [layout.count(part) for part in ("{prompt}", "{steps}")]
        require(parts == [1, 1], "layout", layout, "a text with {prompt} and {steps} in it, once each")
        require(batch >= 1, "batch", batch, "at least 1")
        require(
            not (chat and tokenizer), "tokenizer", tokenizer, "None with chat: the server's layout is not known here"
        )
        self.name, self.model, self.separator, self.layout, self.chat = name, model, separator, layout, chat
        self.good, self.batch, self.tokenizer_name = good, batch, tokenizer
        self.tokenizer = None if tokenizer is None else _tokenizer(tokenizer)
        self.client = RewardServer(url, model, f"reward {name!r}", extra or {}, **connection)

    def score(self, contents: Sequence[str], prompts: Sequence[str]) -> list[Score | Failed | None]:  # type: ignore[override]
        """One score for each text; a text without a step has none."""
        laid = [self._lay(c, str(p)) for c, p in zip(contents, prompts, strict=True)]
        asked = [row for row, one in enumerate(laid) if one.ends]
        if self.chat:  # one conversation a request
            found = self.client.ask(
                "/pooling", chunks(asked, 1), lambda g: {"messages": _turns(laid[g[0]])}, self._read
            )
        else:
            groups = chunks(asked, self.batch)
            found = self.client.ask("/pooling", groups, lambda g: {"input": [laid[i].text for i in g]}, self._read)
        return [self._score(found[row], one) if row in found else None for row, one in enumerate(laid)]

    def _lay(self, content: str, prompt: str) -> Laid:
        steps, whole = steps_of(content, self.separator)
        pieces = [step + self.separator for step in steps]
        before, _, after = self.layout.partition("{steps}")
        before, after = (text.replace("{prompt}", prompt) for text in (before, after))
        if self.chat:
            before = after = ""
        ends, at = [], len(before)
        for piece in pieces:
            at += len(piece)
            ends.append(at)
        solution = "".join(pieces)
        return Laid(prompt, solution, before + solution + after, tuple(ends), whole)

    def _read(self, answer: Any, group: Sequence[int]) -> dict[int, Any]:
        """The rows of each candidate, not looked at yet."""
        return {row: e.get("data") for row, e in zip(group, self.client.listed(answer, "data", len(group)))}

    def _score(self, rows: Any, laid: Laid) -> Score | Failed | None:
        if isinstance(rows, Failed):
            return rows
        if not isinstance(rows, list):
            raise self.client.server.error(f"gave {str(rows)[:100]} where rows of numbers must be")
        at = self._rows_of_steps(len(rows), laid)
        if isinstance(at, Failed):
            return at
        scores = [self._probability(rows[i]) for i in at]
        if odd := [score for score in scores if not 0 <= score <= 1]:
            return Failed(f"the server gave {odd[0]:g}, which is no probability; it must be served with its activation")
        return summary(scores, laid.whole)

    def _rows_of_steps(self, count: int, laid: Laid) -> list[int] | Failed:
        """Which of so many rows are those of the steps."""
        separators = _ends(laid.text, self.separator)
        if count == len(separators):
            return [sum(end <= step for end in separators) - 1 for step in laid.ends]
        expected = f"{len(separators)} separators"
        if self.tokenizer is not None:
            tokens = self.tokenizer(laid.text, return_offsets_mapping=True)["offset_mapping"]
            if count == len(tokens):
                holding = [[i for i, (a, b) in enumerate(tokens) if a < step <= b] for step in laid.ends]
                return [rows[-1] for rows in holding] if all(holding) else Failed("no token holds a separator's end")
            expected += f" and {len(tokens)} tokens"
        hint = "" if self.tokenizer or count < len(separators) else "; if it gives one for each token, give tokenizer"
        return Failed(f"the server gave {count} rows for {expected}{hint}")

    def _probability(self, row: Any) -> float:
        """The right column of a row; a row of one number may stand without brackets."""
        columns = row if isinstance(row, list) else [row]
        if not -len(columns) <= self.good < len(columns):
            raise self.client.server.error(f"gave the row {str(row)[:100]}, which has no column good = {self.good}")
        return self.client.number(columns[self.good])

    def spec(self) -> dict:
        return {
            "name": self.name,
            "url": self.client.server.address,
            "model": self.model,
            "separator": self.separator,
            "layout": None if self.chat else self.layout,
            "good": self.good,
            "tokenizer": self.tokenizer_name,
            "batch": self.batch,
        }


def _turns(laid: Laid) -> list[dict[str, str]]:
    return [{"role": "user", "content": laid.prompt}, {"role": "assistant", "content": laid.solution}]


def _ends(text: str, separator: str) -> list[int]:
    """Where each separator in a text ends."""
    ends, at = [], text.find(separator)
    while at >= 0:
        ends.append(at + len(separator))
        at = text.find(separator, ends[-1])
    return ends


def _tokenizer(folder: str) -> Any:
    """Raises ModelError for one that does not tell where its tokens stand."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise ModelError(f"{folder} has no tokenizer that can be loaded: {error}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {folder} does not tell where its tokens stand; it needs a tokenizer.json")
    return tokenizer
