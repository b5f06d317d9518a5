"""Text: grows an answer step by step with a frozen causal language model.

One unit is a step: the text up to a separator, a regular expression or a number of tokens, see ``steps``. All nodes of
all prompts grow in one batch; what they have in common is held and read once, see ``shared_prefixes``. The last token
of a step is read when the step is first grown from, so that a candidate that is pruned never pays for it, and so is the
prompt: tokens read are never more than the prompt's once and those that were written.

A draw depends on (seed, path, position in the answer) alone, see ``sampling``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from prunus.budget import Cost
from prunus.errors import ModelError, require
from prunus.generators.detokenizer import Detokenizer
from prunus.generators.kv_cache import unique_bytes
from prunus.generators.sampling import Sampling
from prunus.generators.steps import Step, StepEnd
from prunus.generators.template import Template
from prunus.generators.text_how import TextHow, stop_texts
from prunus.generators.text_model import TextModel
from prunus.generators.text_row import TextRow, TextState, draw
from prunus.generators.written import Written
from prunus.roles import Ask, Generator, Grown, How, View
from prunus.tree import Node

MAX_TOKENS = 512
"""The longest answer where neither the caller nor the folder's generation config says."""

Item = TypeVar("Item")


class TextGenerator(Generator):
    """Answers to prompts, as ``Written``; a unit is {"tokens", "log_probabilities", "text", "reason"}.

    ``reason`` is why the unit ends there: ``step``, ``end`` (an end-of-text token or a stop string), ``length`` (the
    longest answer; it is done but was cut), or ``partial`` (inside its step; what continues it has all of the step).
    The end-of-text token and a stop string are not in the text. Log-probabilities are the model's at temperature 1.
    """

    how: ClassVar[type[How]] = TextHow

    def __init__(
        self,
        model: TextModel,
        step: Step = "\n",
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        stop: Sequence[str] | None = None,
        max_tokens: int | None = None,
        max_step: int | None = None,
        max_steps: int | None = None,
        chat: bool | None = None,
        template: str = "{prompt}",
        max_batch_tokens: int = 8192,
    ) -> None:
        """What is None is as the folder's generation config says.

        ``max_tokens`` of an answer and ``max_step`` tokens of a step are limits; so is ``max_steps``. A budget holds in
        reserve what they allow, so tight ones let it grow more candidates. ``chat``: as a turn of a chat; None: if the
        tokenizer has a chat template. ``template`` is what the model reads for a prompt, such as worked examples or an
        instruction around ``{prompt}``; rewards are shown the prompt alone. ``max_batch_tokens`` is the most tokens of
        one forward; it is halved when memory runs out. Raises SettingError for a value that is not allowed.
        """
        config = model.network.generation_config
        self.model, self.name = model, "text"
        self.sampling = Sampling.of_folder(config, temperature=temperature, top_p=top_p, top_k=top_k)
        self.step = StepEnd(step)
        strings = config.stop_strings if stop is None else stop
        self.stop = stop_texts((strings,) if isinstance(strings, str) else strings or ())
        limits = {"max_tokens": max_tokens, "max_step": max_step, "max_steps": max_steps}
        for field, value in {**limits, "max_batch_tokens": max_batch_tokens}.items():
            require(value is None or value >= 1, field, value, "at least 1")
        self._max_tokens, self._total = max_tokens, None
        if max_tokens is None and (max_new := config.max_new_tokens) is not None:
            self._max_tokens = max_new
        elif max_tokens is None:
            self._total = config.max_length  # of prompt and answer
        bounds = [b for b in (max_step, self.step.tokens) if b is not None]
        self.max_step, self.max_steps = min(bounds, default=None), max_steps
        self.chat, self.template, self.max_batch_tokens = chat, Template(template, model, chat), max_batch_tokens

    @classmethod
    def load(
        cls, name: str | Path, step: Step = "\n", device: str = "cpu", dtype: str = "float32", **settings: Any
    ) -> TextGenerator:
        """Load a transformers folder, hub id or GGUF file; ``settings`` are the class's. Raises ModelError."""
        return cls(TextModel.load(name, device, dtype), step, **settings)

    @property
    def family(self) -> Hashable:
        """Those that share a model, whatever else they are set to: a candidate keeps the settings it began with."""
        return (TextGenerator, id(self.model))

    @property
    def longest(self) -> int:
        """Tokens that an answer may have, unless the prompt leaves no room for them."""
        return self._max_tokens or self._total or MAX_TOKENS

    def adjusted(
        self, *, stop: Sequence[str] | None = None, max_tokens: int | None = None, **sampling: Any
    ) -> TextGenerator:
        """One that shares the model, with other settings: also temperature, top_p and top_k. Raises SettingError."""
        other = copy(self)
        other.sampling = replace(self.sampling, **sampling)
        if stop is not None:
            other.stop = stop_texts(stop)
        if max_tokens is not None:
            require(max_tokens >= 1, "max_tokens", max_tokens, "at least 1")
            other._max_tokens = max_tokens
        return other

    # ---- growing -----------------------------------------------------------------------------------------------

    def begin(self, prompt: str) -> TextState:
        """Raises PromptError for characters that the tokenizer cannot write and for a prompt beyond the context."""
        tokens = self.template.encode(prompt, self.chat)
        most = self._max_tokens or (self._total - len(tokens) if self._total else MAX_TOKENS)
        if self.model.positions is not None:
            most = min(most, self.model.positions - len(tokens))
        context, count = self.template.begin(tokens)
        detokenizer = Detokenizer(self.model.decode, tokens)
        return TextState(self, context, tuple(tokens[count:]), detokenizer, max(1, most), unpaid=count)

    @torch.no_grad()
    def grow(self, asks: Sequence[Ask]) -> list[Grown]:
        # The earliest child pays for what its parent has not read, whatever the order of rows.
        payer: dict[TextState, tuple[int, ...]] = {}
        for ask in asks:
            if ask.parent.state.pending:
                payer[ask.parent.state] = min(ask.path, payer.get(ask.parent.state, ask.path))
        prices = {state: self._read_cost(state) for state in payer}
        self._in_batches(list(payer), lambda state: len(state.pending), self._read)
        rows = []
        for ask in asks:
            pays = payer.get(ask.parent.state) == ask.path
            rows.append(TextRow(ask, prices[ask.parent.state] if pays else Cost()))
        # Siblings stand together, so that what they share is read in one go.
        first: dict[TextState, int] = {}
        for row in rows:
            first.setdefault(row.parent, len(first))
        self._in_batches(sorted(rows, key=lambda row: first[row.parent]), lambda row: 1, self._write)
        return [row.grown() for row in rows]

    def _in_batches(self, items: Sequence[Item], tokens: Callable[[Item], int], run: Callable) -> None:
        """Run items in batches of at most ``max_batch_tokens``; one for which memory runs out is halved."""
        left = list(items)
        while left:
            end, total = 1, tokens(left[0])
            while end < len(left) and total + tokens(left[end]) <= self.max_batch_tokens:
                total += tokens(left[end])
                end += 1
            try:
                run(left[:end])
                left = left[end:]
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if end == 1:
                    raise ModelError(
                        f"memory ran out for a single candidate of {self.model.name}; shorten the prompt or the answer "
                        "(max_tokens), or take a smaller dtype or model"
                    ) from error
                self.max_batch_tokens = max(1, total // 2)

    def _read(self, states: Sequence[TextState], but: int = 0) -> None:
        """Read the pending tokens of these states, but for the last ``but``."""
        ends = [len(state.pending) - but for state in states]
        tokens = [state.pending[:end] for state, end in zip(states, ends, strict=True)]
        contexts, logits = self.model.engine.read([state.context for state in states], tokens)  # type: ignore[arg-type]
        for state, end, context, row in zip(states, ends, contexts, logits, strict=True):
            state.context, state.pending, state.unpaid = context, state.pending[end:], 0
            state.logits = None if state.pending else row.clone()

    def _write(self, rows: Sequence[TextRow]) -> None:
        for row in rows:
            row.begin()  # anew, should memory have run out before
        writing = self.model.engine.write([row.parent.context for row in rows])
        logits = torch.stack([row.parent.logits for row in rows])  # type: ignore[misc]
        live = list(rows)
        while True:
            tokens, scores = draw(logits, live)
            for row, token, score in zip(live, tokens.tolist(), scores.tolist(), strict=True):
                row.take(token, score)
            on = [i for i, row in enumerate(live) if not row.reason]
            if len(on) < len(live):
                for i, row in enumerate(live):
                    if row.reason:
                        row.context = writing.context(i)
                if not on:
                    return
                writing.keep(on)
                tokens, live = tokens[on], [live[i] for i in on]
            logits = writing.step(tokens)

    # ---- costs -------------------------------------------------------------------------------------------------

    def _read_cost(self, state: TextState, but: int = 0) -> Cost:
        """What reading a state's pending tokens takes, but for the last ``but``."""
        return self._run_cost(state.context.length - state.unpaid, state.unpaid + len(state.pending) - but)

    def _run_cost(self, length: int, tokens: int) -> Cost:
        """What reading a run of ``tokens`` tokens takes, after ``length`` others."""
        forwards = self.model.engine.forwards(tokens, length)
        return Cost(forwards, tokens, self.model.flops(tokens, length, 1)) if tokens > 0 else Cost()

    def write_cost(self, length: int, tokens: int) -> Cost:
        """What reading ``tokens`` tokens one by one takes, after ``length`` others."""
        return Cost(tokens, tokens, self.model.flops(tokens, length, tokens)) if tokens > 0 else Cost()

    def most(self, ask: Ask) -> int:
        """Tokens that this ask may write."""
        assert isinstance(ask.how, TextHow)
        state, parent = ask.parent.state, ask.parent
        inside = 0 if parent.boundary else len(parent.unit["tokens"])
        limits = (state.most - state.count, self.max_step and self.max_step - inside, ask.how.steps)
        return min(limit for limit in limits if limit is not None)

    def _left(self, node: Node) -> int:
        """Tokens that may be written after this node, to the candidate's end."""
        left = node.state.most - node.state.count
        if self.max_step and self.max_steps:
            inside = 0 if node.boundary else self.max_step - len(node.unit["tokens"])
            left = min(left, (self.max_steps - node.depth) * self.max_step + inside)
        return left

    def cost(self, asks: Sequence[Ask]) -> Cost:
        """At most: a step may end sooner than at its limit."""
        reading = sum(map(self._read_cost, {ask.parent.state for ask in asks}), Cost())
        return sum((self.write_cost(ask.parent.state.length, self.most(ask) - 1) for ask in asks), reading)

    def finish_cost(self, ask: Ask) -> Cost:
        return self.write_cost(ask.parent.state.length, self._left(ask.parent) - 1)

    def units_left(self, node: Node) -> int:
        left = node.state.most - node.state.count
        return left if self.max_steps is None else min(left, self.max_steps - node.depth)

    def state_bytes(self, states: Sequence[TextState]) -> int:
        return unique_bytes(states)

    # ---- showing -----------------------------------------------------------------------------------------------

    def render(self, nodes: Sequence[Node], view: View) -> list[Any]:
        shown = [
            Written([n.unit["text"] for n in node.units(view.units)], node.parent is None or _whole(node))
            for node in nodes
        ]
        if not view.progress:
            return shown
        return [(text, len(node.unit["tokens"])) for text, node in zip(shown, nodes, strict=True)]

    @torch.no_grad()
    def logits_after(self, states: Sequence[TextState], tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits (n, vocabulary) of what would follow these states and then these tokens; no state is changed.

        For rewards that ask the model itself (``View(state=True)``); ``look_cost`` is what it takes.
        """
        rows = [(*state.pending, *new) for state, new in zip(states, tokens, strict=True)]
        found: list[torch.Tensor] = []
        self._in_batches(
            list(zip((state.context for state in states), rows, strict=True)),
            lambda item: len(item[1]),
            lambda items: found.extend(self.model.engine.read(*zip(*items, strict=True))[1]),
        )
        return torch.stack(found)

    def look_cost(self, states: Sequence[TextState], tokens: Sequence[Sequence[int]]) -> Cost:
        """What ``logits_after`` takes."""
        runs = ((s.context.length, len(s.pending) + len(new)) for s, new in zip(states, tokens, strict=True))
        return sum((self._run_cost(*run) for run in runs), Cost())

    # ---- going on ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def restore(self, nodes: Sequence[Node], prompt: str) -> list[tuple[TextState, Cost]]:
        """Read the lineages again, what nodes share once, all that begins at one depth in one go."""
        states = {node: self.begin(prompt) for node in nodes if node.parent is None}
        costs = [Cost()] * len(nodes)
        lineages = [node.units() for node in nodes]

        def read(wanted: Mapping[TextState, int], but: int = 0) -> None:
            for state, payer in wanted.items():
                costs[payer] += self._read_cost(state, but)
            unread = [state for state in wanted if len(state.pending) > but]
            self._in_batches(unread, lambda state: len(state.pending), lambda some: self._read(some, but))

        for depth in range(max(map(len, lineages))):
            level = {units[depth]: i for i, units in reversed(list(enumerate(lineages))) if len(units) > depth}
            parents: dict[TextState, int] = {}
            for node, payer in level.items():
                assert node.fork is not None
                if node.fork not in states:  # the root, which is not grown again
                    states[node.fork] = self.begin(prompt)
                parents[states[node.fork]] = min(payer, parents.get(states[node.fork], payer))
            read(parents)
            for node in level:
                states[node] = self._restored(states[node.fork], node.unit)  # type: ignore[index]
            read({states[node]: payer for node, payer in level.items()}, but=1)
        read({states[node]: i for i, node in enumerate(nodes) if node.children and node.boundary})
        return [(states[node], cost) for node, cost in zip(nodes, costs, strict=True)]

    def _restored(self, parent: TextState, unit: dict[str, Any]) -> TextState:
        """The state after a unit, none of whose tokens has been read."""
        tokens, detokenizer = unit["tokens"].tolist(), parent.detokenizer.copy()
        for token in tokens:
            if token not in self.model.ends:
                detokenizer.add(token)
        text = self.tail(parent.text + unit["text"])
        return TextState(
            self, parent.context, tuple(tokens), detokenizer, parent.most, parent.count + len(tokens), text
        )

    def tail(self, text: str) -> str:
        """The end of a text in which a stop string may have begun."""
        longest = max(map(len, self.stop), default=1)
        return text[len(text) - longest + 1 :] if len(text) >= longest else text

    def spec(self) -> dict:
        return {
            "name": self.name,
            "model": self.model.name,
            "step": self.step.spec(),
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "top_k": self.sampling.top_k,
            "stop": list(self.stop),
            "max_tokens": self._max_tokens,
            "max_step": self.max_step,
            "max_steps": self.max_steps,
            "chat": self.chat,
            "template": self.template.text,
        }


def _whole(node: Node) -> bool:
    """Whether the last step is complete."""
    return node.boundary and node.unit["reason"] != "length"


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
