"""A causal language model whose candidates do not share their prefixes: every row has its own copy of the cache.

For sliding windows and recurrent layers, whose caches are not blocks of keys. The same calls as ``SharedPrefixes``.
Rows are run together if they have read as many tokens; then none is padded, which recurrent layers could not bear.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Copy:
    """The cache of one candidate, in transformers' own class; None before the first token."""

    cache: Any = None
    length: int = 0

    def tensors(self) -> Iterator[torch.Tensor]:
        found: list[torch.Tensor] = []

        def note(several: list[torch.Tensor]) -> torch.Tensor:
            found.append(several[0])
            return several[0]

        if self.cache is not None:
            _mapped(note, [self.cache])
        yield from found


def _mapped(change: Callable[[list[torch.Tensor]], torch.Tensor], caches: Sequence[Any]) -> Any:
    """A cache whose tensors with a batch are ``change`` of the same tensors of all ``caches``."""

    def walk(values: list[Any]) -> Any:
        first = values[0]
        if isinstance(first, torch.Tensor):
            return change(values) if first.dim() > 1 else first
        if isinstance(first, dict):
            return {key: walk([value[key] for value in values]) for key in first}
        if isinstance(first, list | tuple):
            return type(first)(walk(list(items)) for items in zip(*values, strict=True))
        if type(first).__module__.startswith("transformers") and hasattr(first, "__dict__"):
            new = copy.copy(first)
            new.__dict__ = walk([vars(value) for value in values])
            return new
        return first

    return walk(list(caches))


def joined(caches: Sequence[Any]) -> Any:
    """One cache whose rows are those of ``caches``, a copy."""
    return _mapped(torch.cat, caches)


def chosen(cache: Any, rows: Sequence[int]) -> Any:
    """A cache of these rows, a copy."""
    return _mapped(lambda several: several[0][torch.tensor(list(rows), device=several[0].device)], [cache])


class CopiedRows:
    """Any causal language model that takes ``past_key_values`` or ``cache_params``."""

    def __init__(self, network: Any) -> None:
        import inspect

        self.network, self.empty = network, Copy()
        fields = inspect.signature(network.forward).parameters
        self._cache = "cache_params" if "cache_params" in fields else "past_key_values"
        self._positions = "position_ids" in fields

    @torch.no_grad()
    def forward(self, cache: Any, length: int, tokens: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """The cache, which is changed, and the logits (n, vocabulary) after new ``tokens`` (n, t) of its rows."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.network.config) if cache is None else cache
        options = {self._cache: cache}
        if self._positions:
            options["position_ids"] = torch.arange(length, length + tokens.shape[1], device=tokens.device)[None]
        out = self.network(tokens, use_cache=True, logits_to_keep=1, **options)
        return cache, out.logits[:, -1]

    def forwards(self, tokens: int, context: int) -> int:
        """In how many forwards tokens are read: some recurrent layers take up their state for single tokens only."""
        return tokens if context else 1

    def read(self, contexts: Sequence[Copy], tokens: Sequence[Sequence[int]]) -> tuple[list[Copy], torch.Tensor]:
        """The contexts with each one's new tokens, and the logits (n, vocabulary) of what follows."""
        alike: dict[tuple[int, int], list[int]] = {}
        for i, (context, new) in enumerate(zip(contexts, tokens, strict=True)):
            alike.setdefault((context.length, len(new)), []).append(i)
        grown: list[Copy] = [self.empty] * len(contexts)
        logits: list[torch.Tensor] = [torch.empty(0)] * len(contexts)
        for (length, count), rows in alike.items():
            cache = joined([contexts[i].cache for i in rows]) if length else None
            batch = torch.tensor([tokens[i] for i in rows], device=self.network.device)
            at = length
            for new in batch.split(1 if self.forwards(count, length) > 1 else count, dim=1):
                cache, out = self.forward(cache, at, new)
                at += new.shape[1]
            for row, i in enumerate(rows):
                grown[i], logits[i] = Copy(chosen(cache, [row]), length + count), out[row]
        return grown, torch.stack(logits)

    def write(self, contexts: Sequence[Copy]) -> CopiedWriting:
        """Candidates that go on from these contexts together, one token at a time."""
        return CopiedWriting(self, contexts)


class CopiedWriting:
    """A batch of candidates on their way: a cache for each length of context. Rows leave with ``keep``."""

    def __init__(self, model: CopiedRows, contexts: Sequence[Copy]) -> None:
        self.model, self.contexts, self.written = model, list(contexts), 0
        alike: dict[int, list[int]] = {}
        for row, context in enumerate(contexts):
            alike.setdefault(context.length, []).append(row)
        self.groups = [(rows, joined([contexts[row].cache for row in rows])) for rows in alike.values()]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token (n,) of each row: the logits (n, vocabulary) of what follows."""
        logits: list[torch.Tensor] = [tokens] * len(tokens)
        for rows, cache in self.groups:
            length = self.contexts[rows[0]].length + self.written
            _, out = self.model.forward(cache, length, tokens[rows].unsqueeze(-1))
            for i, row in enumerate(rows):
                logits[row] = out[i]
        self.written += 1
        return torch.stack(logits)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        place = {row: i for i, row in enumerate(rows)}
        self.contexts = [self.contexts[row] for row in rows]
        groups = []
        for members, cache in self.groups:
            left = [i for i, row in enumerate(members) if row in place]
            if left:
                cache = cache if len(left) == len(members) else chosen(cache, left)
                groups.append(([place[members[i]] for i in left], cache))
        self.groups = groups

    def context(self, row: int) -> Copy:
        """The row's context with what has been read of it since."""
        if not self.written:
            return self.contexts[row]
        rows, cache = next(group for group in self.groups if row in group[0])
        return Copy(chosen(cache, [rows.index(row)]), self.contexts[row].length + self.written)
