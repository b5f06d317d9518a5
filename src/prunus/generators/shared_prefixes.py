"""A transformers causal language model over shared prefixes: what many candidates have in common is held once.

    model = SharedPrefixes(network)                              # ModelError if its attention is not plain
    [context], logits = model.read([model.empty], [prompt])      # new tokens of several candidates, in one forward
    writing = model.write([context] * 4)                         # four go on from it, token by token
    logits = writing.step(tokens)
    child = writing.context(0)                                   # the context of the first, with what it has written

Rows of one call may have contexts of any lengths; nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from prunus.errors import ModelError
from prunus.generators.prefix_cache import Block, Context, pieces
from prunus.generators.text_attention import NAME, WORK, ReadWork, TextWork, WriteWork


class SharedPrefixes:
    """Installs the attention function on the network, which otherwise goes on as before."""

    def __init__(self, network: Any) -> None:
        """Raises ModelError, with the reason, for a network that this does not compute exactly; it is as before then.

        That is found out by trying: the network must say the same of a few tokens either way.
        """
        self.network, self.empty = network, Context()
        usual = network.config._attn_implementation
        kinds = set(getattr(network.config.get_text_config(), "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise ModelError(f"its layers are of the kinds {', '.join(sorted(kinds))}")
        try:
            self._try(usual)
        except Exception as error:  # each architecture fails in its own way
            network.set_attn_implementation(usual)
            reason = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            raise ModelError(reason) from error

    @torch.no_grad()
    def _try(self, usual: str) -> None:
        text = self.network.config.get_text_config()
        tokens = [i % text.vocab_size for i in range(5, 11)]
        expected = self.network(torch.tensor([tokens], device=self.network.device), use_cache=False).logits[0]
        self.network.set_attn_implementation(NAME)
        [context], first = self.read([self.empty], [tokens[:3]])
        writing = self.write([context])
        found = [first, *(writing.step(torch.tensor([t], device=self.network.device)) for t in tokens[3:])]
        if writing.work.layers != text.num_hidden_layers * 3:
            raise ModelError("not all of its layers attend through transformers' attention interface")
        expected = expected[2:].float()
        apart = (torch.cat(found).float() - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
        if not apart < (1e-3 if self.network.dtype == torch.float32 else 0.1):
            raise ModelError("its attention is not plain causal attention: the outputs differ")

    def forwards(self, tokens: int, context: int) -> int:
        """In how many forwards ``read`` reads the tokens of one candidate."""
        return 1

    @torch.no_grad()
    def read(self, contexts: Sequence[Context], tokens: Sequence[Sequence[int]]) -> tuple[list[Context], torch.Tensor]:
        """The contexts with each one's new tokens, and the logits (n, vocabulary) of what follows."""
        # Runs of one length stand together: they are attended in one go.
        order = sorted(range(len(tokens)), key=lambda i: (contexts[i].length > 0, len(tokens[i])))
        starts: dict[int, int] = {}
        groups: list[tuple[int, int, int, bool]] = []
        at = 0
        for i in order:
            run = (len(tokens[i]), contexts[i].length > 0)
            if groups and groups[-1][2:] == run:
                groups[-1] = (groups[-1][0], groups[-1][1] + 1, *run)
            else:
                groups.append((at, 1, *run))
            starts[i] = at
            at += len(tokens[i])
        spans = [range(starts[i], starts[i] + len(tokens[i])) for i in range(len(tokens))]
        flat = [t for i in order for t in tokens[i]]
        positions = [p for i in order for p in range(contexts[i].length, contexts[i].length + len(tokens[i]))]
        work = ReadWork(pieces(contexts, spans), groups)
        logits = self.forward(work, self._ints(flat), self._ints(positions), self._ints([s[-1] for s in spans]))
        grown = []
        for context, span in zip(contexts, spans, strict=True):
            here = slice(span.start, span.stop)
            # stack copies: a block owns its memory, so that it is freed without its batch.
            keys, values = (torch.stack([x[:, here] for x in kept]) for kept in (work.keys, work.values))
            grown.append(context.then(Block(keys, values)))
        return grown, logits

    def write(self, contexts: Sequence[Context]) -> Writing:
        """Candidates that go on from these contexts together, one token at a time."""
        return Writing(self, contexts)

    def forward(
        self, work: TextWork, tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Logits (n, vocabulary) after the ``wanted`` ones of ``tokens``, all of which stand in one sequence."""
        token = WORK.set(work)
        try:
            return self.network(
                tokens[None], position_ids=positions[None], use_cache=False, logits_to_keep=wanted
            ).logits[0]
        finally:
            WORK.reset(token)

    def _ints(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, device=self.network.device)


class Writing:
    """A batch of candidates on their way. Rows that are finished leave with ``keep``."""

    def __init__(self, model: SharedPrefixes, contexts: Sequence[Context]) -> None:
        self.model, self.contexts = model, list(contexts)
        alike: dict[int, list[int]] = {}
        for row, context in enumerate(contexts):
            alike.setdefault(id(context), []).append(row)
        self.work = WriteWork(pieces([contexts[rows[0]] for rows in alike.values()], list(alike.values())))

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one more token (n,) of each row: the logits (n, vocabulary) of what follows."""
        places = [context.length + self.work.written for context in self.contexts]
        everyone = torch.arange(len(places), device=tokens.device)
        logits = self.model.forward(self.work, tokens, self.model._ints(places), everyone)
        self.work.written += 1
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        self.contexts = [self.contexts[row] for row in rows]
        self.work.keep(rows)

    def context(self, row: int) -> Context:
        """The row's context with what has been read of it since."""
        count = self.work.written
        if not count:
            return self.contexts[row]
        keys, values = (
            torch.stack([layer[row, :, :count] for layer in kept]) for kept in (self.work.keys, self.work.values)
        )
        return self.contexts[row].then(Block(keys, values))
