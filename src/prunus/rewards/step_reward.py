"""A process reward: a transformers folder for token classification over text, read at the end of each step.

The text is laid out as TRL's trainer for process rewards does it: the prompt, then each step and the separator, every
piece tokenised alone so that none runs into its neighbour; a step's score is read at the last token of its separator.
An unfinished step has no separator and is read at its last token.

A causal model reads every step once: keys and values of the steps that it has read are kept by their text, and a
candidate's new step is read behind those of its ancestors (``prefix_states.py``). Scores are those of reading it whole.
A model that looks ahead (an encoder) reads every candidate whole.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Self

from prunus.budget import Cost
from prunus.errors import require
from prunus.generators.written import Written
from prunus.rewards.prefix_states import Key, PrefixStates, Segment, joined, split_states
from prunus.rewards.text_classifier import TextClassifier, load_text_classifier, padded
from prunus.roles import WHOLE
from prunus.score import Score


@dataclass
class _Row:
    """A text to read: what of it is held, and the pieces that are new; the last one may be an unfinished step."""

    held: list[Segment]
    keys: list[Key]
    pieces: list[list[int]]
    kept: int  # so many of the pieces are whole, and may be kept
    scores: list[float] = field(default_factory=list)  # of the new pieces

    @property
    def before(self) -> int:
        return sum(s.tokens for s in self.held)

    @property
    def ids(self) -> list[int]:
        return [t for piece in self.pieces for t in piece]


class StepReward(TextClassifier):
    """Steps and prompt to the probability that the last step, and all before it, are right.

    Contents are ``Written``; another string is cut into steps at the separator. The value is the last step's score; the
    parts ``min``, ``max``, ``mean``, ``product`` and ``sum`` are over whole steps, and ``partial`` is the score of an
    unfinished one, which then is the value too. A text without a step stays unscored.

    separator: what ends a step. cache_tokens: the most tokens whose states are kept; 0 reads every candidate whole.
    Other settings are ``TextClassifier``'s.
    """

    view = WHOLE

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        label: str | int | None = None,
        separator: str = "\n",
        prompt: str = "{prompt}\n",
        batch: int = 32,
        cache_tokens: int = 65_536,
        step_tokens: int = 24,
        prompt_tokens: int = 48,
        text_tokens: int = 256,
        name: str = "step-reward",
        folder: Path | None = None,
    ) -> None:
        super().__init__(
            model, tokenizer, label=label, prompt=prompt, batch=batch, step_tokens=step_tokens,
            prompt_tokens=prompt_tokens, text_tokens=text_tokens, name=name, folder=folder,
        )  # fmt: skip
        require(cache_tokens >= 0, "cache_tokens", cache_tokens, "at least 0")
        self.separator = separator
        self.separator_ids = self.tokens(separator)
        require(len(self.separator_ids) >= 1, "separator", separator, "a text that the tokenizer has tokens for")
        self.reads_on = cache_tokens > 0 and goes_on(model)
        self.states = PrefixStates(cache_tokens)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", dtype: str | None = None, **settings: Any) -> Self:
        """Read a folder, from this machine only, safetensors only; ``settings`` are the class's. Raises ModelError.

        dtype: None is float32 on a CPU, and the folder's own elsewhere.
        """
        from transformers import AutoModelForTokenClassification

        auto = AutoModelForTokenClassification
        model, tokenizer = load_text_classifier(auto, Path(folder), device, dtype, "token")
        return cls(model, tokenizer, folder=Path(folder), **settings)

    def score(self, contents: Sequence[str], prompts: Sequence[str]) -> list[Score | None]:  # type: ignore[override]
        """One score for each text. Raises PromptError for one that is too long."""
        texts = [self._pieces(c, p) for c, p in zip(contents, prompts, strict=True)]
        return [summary(scores[1:], whole) for scores, (_, _, whole) in zip(self._scores(texts), texts, strict=True)]

    def score_steps(self, contents: Sequence[str], prompts: Sequence[str | None]) -> list[list[float]]:
        """Of each text the score at its prompt's end, then at the end of each step.

        Where the prompt is None the text holds it already, and there is a score at each separator in it.
        """
        return self._scores([self._pieces(c, p) for c, p in zip(contents, prompts, strict=True)])

    def _scores(self, texts: Sequence[tuple[list[Key], list[list[int]], bool]]) -> list[list[float]]:
        if self.reads_on:  # siblings share at least their prompt: it is read once
            alone = {keys[0]: _Row([], keys[:1], pieces[:1], 1) for keys, pieces, _ in texts if pieces and pieces[0]}
            self._read([row for key, row in alone.items() if not self.states.longest([key])])
        rows = []
        for keys, pieces, _ in texts:
            held = self.states.longest(keys) if self.reads_on else []
            rows.append(_Row(held, keys[len(held) :], pieces[len(held) :], len(keys) - len(held)))
        self._read([row for row in rows if row.pieces])
        return [[s.score for s in row.held] + row.scores for row in rows]

    def _pieces(self, content: str, prompt: str | None) -> tuple[list[Key], list[list[int]], bool]:
        """(a key for the prompt and each whole step, tokens of these and of an unfinished step, is there none?)."""
        if prompt is None:
            steps, whole = content.split(self.separator)[:-1], True  # what follows the last separator has no score
        else:
            steps, whole = steps_of(content, self.separator)
        ends = steps if whole else steps[:-1]
        keys: list[Key] = [(prompt, *ends[:i]) for i in range(prompt is None, len(ends) + 1)]
        pieces = [self.tokens(s) + self.separator_ids for s in ends]
        if prompt is not None:
            pieces.insert(0, self.prompt_ids(prompt))
        elif pieces:
            pieces[0] = self.begin + pieces[0]
        if not whole:
            pieces.append(self.tokens(steps[-1]))
        self.check_length(sum(map(len, pieces)), content if prompt is None else prompt)
        return keys, pieces, whole

    @torch.no_grad()
    def _read(self, rows: Sequence[_Row]) -> None:
        """Give each row its pieces' scores, and keep the states of those that are whole."""
        order = sorted(rows, key=lambda row: len(row.ids))  # alike in length, so that little is padding
        for at in range(0, len(order), self.batch):
            chosen = order[at : at + self.batch]
            before = [row.before for row in chosen]
            ids = padded([row.ids for row in chosen])
            widest, new = max(before), ids.shape[1]
            mask = torch.zeros(len(chosen), widest + new, dtype=torch.long)
            for i, row in enumerate(chosen):  # states stand on the right of theirs, new tokens on the left
                mask[i, widest - before[i] : widest + len(row.ids)] = 1
            inputs = {"input_ids": ids, "attention_mask": mask}
            cache = None
            if self.reads_on:
                cache = joined([row.held for row in chosen], widest, len(chosen))
                inputs["position_ids"] = torch.tensor(before)[:, None] + torch.arange(new)
            device = self.model.device
            extra = {} if cache is None else {"past_key_values": cache, "use_cache": True}
            logits = self.model(**{k: v.to(device) for k, v in inputs.items()}, **extra).logits
            read = self.probability(logits).cpu()
            for i, row in enumerate(chosen):
                ends = [sum(map(len, row.pieces[: k + 1])) for k in range(len(row.pieces))]
                # An empty piece, an unfinished step of no tokens, is read where the one before it ended.
                last = row.held[-1].score if row.held else math.nan
                for end in ends:
                    last = float(read[i, end - 1]) if end else last
                    row.scores.append(last)
                if cache is not None:
                    cuts = [widest, *(widest + end for end in ends[: row.kept])]
                    for key, segment in zip(row.keys, split_states(cache, i, cuts, row.scores), strict=True):
                        self.states.keep(key, segment)

    def took(self, contents: Sequence[str], prompts: Sequence[str], read: Sequence[int]) -> Cost:
        """The tokens that were not read before; a causal model reads what candidates of a call share once."""
        total = Cost()
        seen: set[Key] = set()
        for content, prompt, units in zip(contents, prompts, read, strict=True):
            keys, pieces, _ = self._pieces(content, prompt)
            if not self.reads_on:
                total += self.price(0, sum(map(len, pieces)))
                continue
            before = 0
            for i, piece in enumerate(pieces):
                key = keys[i] if i < len(keys) else None
                if (units == 0 or i > units) and key not in seen:
                    total += self.price(before, len(piece))
                if key is not None:  # unfinished steps are read one by one
                    seen.add(key)
                before += len(piece)
        return total

    def spec(self) -> dict:
        return {**super().spec(), "separator": self.separator}


def steps_of(content: str, separator: str) -> tuple[list[str], bool]:
    """The steps of a text without what ends them, and whether the last one is complete."""
    if isinstance(content, Written):
        steps, whole = list(content.steps), content.whole
    else:
        steps, whole = content.removesuffix(separator).split(separator) if content else [], True
    return [step.removesuffix(separator) for step in steps], whole


def summary(scores: Sequence[float], whole: bool) -> Score | None:
    """The score of a text whose steps have these; ``whole``: the last step is complete."""
    if not scores:
        return None
    value, steps = scores[-1], scores if whole else scores[:-1]
    parts = {} if whole else {"partial": value}
    if steps:
        parts |= {
            "min": min(steps),
            "max": max(steps),
            "mean": math.fsum(steps) / len(steps),
            "product": math.prod(steps),
            "sum": math.fsum(steps),
        }
    return Score(value, parts)


@torch.no_grad()
def goes_on(model: Any) -> bool:
    """Whether a model is causal and goes on from keys and values that it is given: tried on four tokens."""
    from transformers import DynamicCache

    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return False
    ids = torch.tensor([[1, 2, 3, 2]], device=model.device) % model.config.get_text_config().vocab_size
    whole, cache = model(input_ids=ids).logits, DynamicCache()
    first = model(input_ids=ids[:, :2], past_key_values=cache, use_cache=True).logits
    if cache.get_seq_length() != 2:
        return False
    rest = model(
        input_ids=ids[:, 2:], past_key_values=cache, use_cache=True, attention_mask=torch.ones_like(ids)
    ).logits
    error = max(1e-3, 8 * torch.finfo(whole.dtype).eps)  # a model that looks ahead is off by about as much as it says
    return torch.allclose(torch.cat([first, rest], 1), whole, rtol=error, atol=error * float(whole.abs().max()))
