"""Text as a task for language models: JSONL files, split, packed into rows of equal length, and scored.

A line is an object with ``text``, or with ``prompt`` and ``completion``, whose prompt is read and not scored. Each
document ends with the tokenizer's end of text. Documents are packed whole, several a row, and do not see each other:
their positions begin at 0 again, from which transformers makes the mask. What is longer than a row is cut into rows.
The loss is in nats a scored token; a document's first token is not scored, for nothing comes before it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.errors import FileError, SettingError, require
from prunus.sparse.task import Evaluation, Examples, evaluating, mixed_seed

IGNORED = -100
Document = tuple[list[int], int]
"""Its tokens, and how many of them at its beginning are not scored (at least the first)."""


@dataclass(frozen=True)
class Packed:
    """Rows of documents: tokens, their positions in their document, and what is to be predicted *at* each place (the
    token itself, or ``IGNORED``). Each (rows, length)."""

    tokens: Tensor
    positions: Tensor
    targets: Tensor

    def __getitem__(self, rows: Any) -> Packed:
        return Packed(self.tokens[rows], self.positions[rows], self.targets[rows])

    def __len__(self) -> int:
        return len(self.tokens)


def pack(documents: Sequence[Document], length: int, padding: int = 0) -> Packed:
    """Documents in order into rows of ``length``; a row is closed when the next document does not fit."""
    pieces = [
        (tokens[at : at + length], max(1, unscored - at))
        for tokens, unscored in documents
        for at in range(0, len(tokens), length)
    ]
    rows: list[list[tuple[list[int], int]]] = []
    room = 0
    for piece in pieces:
        if len(piece[0]) > room:
            rows.append([])
            room = length
        rows[-1].append(piece)
        room -= len(piece[0])
    tokens = torch.full((len(rows), length), padding)
    positions, targets = torch.zeros_like(tokens), torch.full_like(tokens, IGNORED)
    for i, row in enumerate(rows):
        at = 0
        for piece_tokens, unscored in row:
            end = at + len(piece_tokens)
            tokens[i, at:end] = torch.tensor(piece_tokens)
            positions[i, at:end] = torch.arange(end - at)
            targets[i, at + unscored : end] = tokens[i, at + unscored : end]
            at = end
        positions[i, at:] = torch.arange(length - at)  # padding is a document of its own
    return Packed(tokens, positions, targets)


@dataclass(frozen=True, eq=False)
class Texts:
    """The task: ``evaluate`` gives nats a token as the loss, and minus the perplexity as the score."""

    train: Packed
    validation: Packed
    test: Packed
    batch_size: int = 8
    measures: ClassVar[str] = "minus the perplexity"
    _order: Examples = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            require(len(getattr(self, name)) > 0, name, 0, "at least one row of text")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        rows = torch.arange(len(self.train))
        pair = (rows, rows)
        order = Examples(pair, pair, pair, batch_size=min(self.batch_size, len(rows)))
        object.__setattr__(self, "_order", order)

    @property
    def example(self) -> Tensor:
        """The tokens of one row, (1, length)."""
        return self.train.tokens[:1]

    def batch(self, order: int, step: int) -> Packed:
        return self.train[self._order.batch(order, step)[0].to(self.train.tokens.device)]

    def loss(self, model: Callable[..., Any], batch: Packed) -> Tensor:
        total, count = _nats(model, batch)
        return total / count

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        require(split in ("validation", "test"), "split", split, "validation or test")
        rows: Packed = getattr(self, split)
        with evaluating(model):
            parts = [_nats(model, rows[at : at + self.batch_size]) for at in range(0, len(rows), self.batch_size)]
        loss = float(sum(t.double() for t, _ in parts) / sum(n for _, n in parts))
        return Evaluation(loss, -math.exp(loss) if loss < 700 else -math.inf)


def _nats(model: Callable[..., Any], batch: Packed) -> tuple[Tensor, Tensor]:
    """The sum of -log p over the scored tokens, and how many they are (at least 1, so that none is a loss of 0)."""
    logits = model(batch.tokens, position_ids=batch.positions, use_cache=False).logits
    targets = batch.targets[:, 1:]
    total = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total, (targets != IGNORED).sum().clamp(min=1)


# ---- files -----------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> list[tuple[str, str]]:
    """(what is read only, what is scored) of each line. Raises FileError that names the line and what is allowed."""
    try:
        lines = path.read_text().split("\n")  # not splitlines: JSON may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read as text: {getattr(error, 'strerror', None) or error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileError(f"{path}, line {number}, is not JSON ({error}); write one JSON object a line") from error
        row = row if isinstance(row, dict) else {}
        if isinstance(row.get("text"), str):
            pair = ("", row["text"])
        elif isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
            pair = (row["prompt"], row["completion"])
        else:
            raise FileError(
                f"{path}, line {number}, has {', '.join(row) or 'no fields'}; a line needs a text in the field 'text', "
                "or in both 'prompt' and 'completion'"
            )
        if pair[1]:
            found.append(pair)
    if not found:
        raise FileError(f"{path} has no text in it")
    return found


def documents(pairs: Sequence[tuple[str, str]], tokenizer: Any) -> list[Document]:
    """Tokens of each text, with the end of text behind them; a prompt and its completion are tokenised apart."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    found = []
    for prompt, text in pairs:
        asked = list(tokenizer(prompt).input_ids) if prompt else []
        if len(asked) > 1 and asked[-1:] == end:
            asked = asked[:-1]
        answered = list(tokenizer(text, add_special_tokens=not prompt).input_ids)
        answered += end if answered[-1:] != end else []
        found.append((asked + answered, max(1, len(asked))))
    return found


def split_texts(
    files: Sequence[str | Path], shares: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[list[tuple[str, str]], ...]:
    """Training, validation and test: three files, or one that is shuffled by ``seed`` and shared out.

    Raises FileError, SettingError.
    """
    if len(files) == 3:
        return tuple(read_jsonl(Path(file)) for file in files)
    require(len(files) == 1, "data", [str(f) for f in files], "one JSONL file, or three: training, validation, test")
    good = len(shares) == 3 and all(share > 0 for share in shares) and abs(sum(shares) - 1) < 1e-9
    require(good, "shares", tuple(shares), "three positive numbers that sum to 1: training, validation, test")
    pairs = read_jsonl(Path(files[0]))
    if len(pairs) < 3:
        raise SettingError(f"{files[0]} has {len(pairs)} texts; three at least are needed to train, validate and test")
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(mixed_seed(seed))).tolist()
    held = [max(1, round(share * len(pairs))) for share in shares[1:]]
    cuts = [len(pairs) - sum(held), len(pairs) - held[1]]
    parts = order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]
    return tuple([pairs[i] for i in part] for part in parts)
