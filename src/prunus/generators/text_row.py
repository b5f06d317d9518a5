"""One candidate of a text generator: its state, and a row of a batch while it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunus.budget import Cost
from prunus.generators.detokenizer import Detokenizer
from prunus.generators.sampling import Stream
from prunus.generators.text_how import TextHow
from prunus.roles import Ask, Grown

if TYPE_CHECKING:
    from prunus.generators.text import TextGenerator


@dataclass(eq=False)
class TextState:
    """A partial answer as its children need it: an immutable value, but for what is read at most once.

    ``writer`` is the generator that began it, whose settings it keeps in whatever batch it grows. ``pending`` tokens
    were written, or are the prompt, and not read yet. ``logits`` (vocabulary) are those of the next token, known when
    there are none. ``text`` is the end of what was written, as long as the longest stop string.
    ``unpaid`` tokens of the context were read for other prompts, and are paid for again when the pending ones are read.
    """

    writer: TextGenerator
    context: Any
    pending: tuple[int, ...]
    detokenizer: Detokenizer
    most: int  # tokens that the answer may have
    count: int = 0  # that it has
    text: str = ""
    logits: torch.Tensor | None = None
    unpaid: int = 0

    def tensors(self) -> Iterator[torch.Tensor]:
        yield from self.context.tensors()
        if self.logits is not None:
            yield self.logits

    @property
    def length(self) -> int:
        """Tokens so far, the prompt included."""
        return self.context.length + len(self.pending)


class TextRow:
    """One ask on its way: what it has written of its step so far, and why it ended."""

    def __init__(self, ask: Ask, read: Cost) -> None:
        self.ask, self.read = ask, read
        self.parent: TextState = ask.parent.state
        self.generator = generator = self.parent.writer
        self.depth = ask.parent.depth + ask.parent.boundary
        assert isinstance(ask.how, TextHow)
        self.temperature = generator.sampling.temperature if ask.how.temperature is None else ask.how.temperature
        self.most = generator.most(ask)
        self.stream = Stream(ask.seed, ask.path)

    def begin(self) -> None:
        """At the end of the parent, whose step this goes on with if it is not complete."""
        unit = {} if self.ask.parent.boundary else self.ask.parent.unit
        self.tokens: list[int] = list(unit["tokens"].tolist()) if unit else []
        self.scores: list[float] = list(unit["log_probabilities"].tolist()) if unit else []
        self.text: str = unit["text"] if unit else ""
        self.before = self.parent.text if not unit else ""
        self.detokenizer = self.parent.detokenizer.copy()
        self.now, self.reason = 0, ""
        self.context: Any = None

    def uniform(self) -> float:
        return self.stream.at(self.parent.count + self.now)

    def take(self, token: int, score: float) -> None:
        """One more token; sets ``reason`` if it is the last for now."""
        self.tokens.append(token)
        self.scores.append(score)
        self.now += 1
        generator, total = self.generator, self.parent.count + self.now
        if token in generator.model.ends:
            self.reason = "end"
        else:
            new = self.detokenizer.add(token)
            self.text += new
            if self._stopped(len(new)):
                self.reason = "end"
                return
            if total == self.parent.most:
                self.reason = "length"
            elif len(self.tokens) == generator.max_step or generator.step.reached(self.text, len(self.tokens)):
                self.reason = "length" if self.depth == generator.max_steps else "step"
            elif self.now == self.most:
                self.reason = "partial"
        if self.reason in ("end", "length"):
            self.text += self.detokenizer.rest()

    def _stopped(self, new: int) -> bool:
        """Whether a stop string came with the last ``new`` characters; it is cut off, as far as it is in this step."""
        stop, text = self.generator.stop, self.before + self.text
        if not stop or not new:
            return False
        found = [at for s in stop if (at := text.find(s, max(0, len(text) - new - len(s) + 1))) >= 0]
        if found:
            self.text = text[len(self.before) : max(len(self.before), min(found))]
        return bool(found)

    def grown(self) -> Grown:
        parent, generator = self.parent, self.generator
        unit = {
            "tokens": np.array(self.tokens, dtype=np.int64),
            "log_probabilities": np.array(self.scores, dtype=np.float32),
            "text": self.text,
            "reason": self.reason,
        }
        tail = generator.tail(self.before + self.text)
        state = TextState(
            generator, self.context, (self.tokens[-1],), self.detokenizer, parent.most, parent.count + self.now, tail
        )
        return Grown(
            unit,
            state,
            done=self.reason in ("end", "length"),
            boundary=self.reason != "partial",
            log_probability=float(sum(self.scores)),
            cost=self.read + generator.write_cost(parent.length, self.now - 1),
        )


def draw(logits: torch.Tensor, rows: Sequence[TextRow]) -> tuple[torch.Tensor, torch.Tensor]:
    """A token and its log-probability for each row; those whose tokens are cut off alike are drawn together."""
    alike: dict[tuple[float, int], list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault((row.generator.sampling.top_p, row.generator.sampling.top_k), []).append(i)
    drawn = []
    for group in alike.values():
        some = [rows[i] for i in group]
        at = logits if len(alike) == 1 else logits[group]
        drawn.append(some[0].generator.sampling.draw(at, [r.uniform() for r in some], [r.temperature for r in some]))
    if len(drawn) == 1:
        return drawn[0]
    order = torch.tensor([i for group in alike.values() for i in group], device=logits.device).argsort()
    return torch.cat([tokens for tokens, _ in drawn])[order], torch.cat([scores for _, scores in drawn])[order]
