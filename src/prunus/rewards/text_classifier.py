"""What the step reward and the outcome reward share: a model over text, the label that they read, and its price."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunus.budget import Cost
from prunus.errors import ModelError, PromptError, require
from prunus.generators.text_model import DTYPES
from prunus.rewards.classifier_folder import line, load_classifier
from prunus.roles import Reward


def load_text_classifier(auto: Any, folder: Path, device: str, dtype: str | None, purpose: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a local transformers folder by the class ``auto``. Raises ModelError.

    dtype: None is float32 on a CPU, and the folder's own elsewhere.
    """
    from transformers import AutoTokenizer

    model = load_classifier(auto, folder, purpose)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ModelError(f"{folder} has no tokenizer that can be loaded: {line(error)}") from error
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"dtype {dtype!r} is not known; take one of {', '.join(DTYPES)}")
    dtype = dtype or ("float32" if device == "cpu" else None)
    return model.to(device, getattr(torch, dtype) if dtype else None), tokenizer


class TextClassifier(Reward):
    """A reward that is the probability of one label of a classification model over text.

    label: its name or index. None is the second of two labels (TRL's True), or the only one of a model with one, whose
    output goes through a sigmoid. prompt: what stands before the solution; {prompt} stands for the prompt. batch:
    candidates in one forward. step_tokens, prompt_tokens and text_tokens: how long a step, a prompt and both with all
    steps are at most, for what a search keeps in reserve.
    """

    range = "probability"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        label: str | int | None,
        prompt: str,
        batch: int,
        step_tokens: int,
        prompt_tokens: int,
        text_tokens: int,
        name: str,
        folder: Path | None,
    ) -> None:
        self.batch, self.step_tokens = batch, step_tokens
        self.prompt_tokens, self.text_tokens = prompt_tokens, text_tokens
        for field in ("batch", "step_tokens", "prompt_tokens", "text_tokens"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "at least 1")
        require("{prompt}" in prompt, "prompt", prompt, "a text with {prompt} in it")
        self.model, self.tokenizer, self.prompt, self.name, self.folder = model.eval(), tokenizer, prompt, name, folder
        self.labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        self.label = self._index(label)
        self.longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._prices: tuple[float, float] | None = None

    def _index(self, label: str | int | None) -> int:
        if label is None:
            if len(self.labels) > 2:
                named = ", ".join(map(repr, self.labels))
                raise ModelError(f"the model has {len(self.labels)} labels, {named}; say by label= which means right")
            return len(self.labels) - 1
        if isinstance(label, str) and label in self.labels:
            return self.labels.index(label)
        known = isinstance(label, int) and 0 <= label < len(self.labels)
        require(known, "label", label, f"one of {', '.join(map(repr, self.labels))}, or an index of them")
        return int(label)

    def probability(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (..., labels) to the label's probability (...)."""
        logits = logits.float()
        return logits[..., 0].sigmoid() if len(self.labels) == 1 else logits.softmax(-1)[..., self.label]

    def tokens(self, text: str) -> list[int]:
        """A piece of text alone, without tokens that the tokenizer would put around it."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @property
    def begin(self) -> list[int]:
        """The token that begins a text, if there is one."""
        begin = self.tokenizer.bos_token_id
        return [] if begin is None else [begin]

    def prompt_ids(self, prompt: str) -> list[int]:
        return self.begin + self.tokens(self.prompt.replace("{prompt}", prompt))

    def check_length(self, length: int, prompt: str) -> None:
        """Raises PromptError for a text that is longer than the model's positions."""
        if self.longest is not None and length > self.longest:
            raise PromptError(
                f"reward {self.name!r} reads at most {self.longest} tokens, and a solution of {prompt[:60]!r} has "
                f"{length}; shorten the prompt or the solutions, or take a model for longer texts"
            )

    def flops(self, before: int, new: int) -> int:
        """FLOPs, a multiply-add as two, of reading ``new`` tokens after ``before`` that are held; padding not counted.

        A token takes the same everywhere but in attention, which looks at all tokens of the text.
        """
        if self._prices is None:
            short, long = self._measured(8), self._measured(16)
            attention = (long - 2 * short) / (16**2 - 2 * 8**2)
            self._prices = short / 8 - 8 * attention, attention
        alone, pair = self._prices
        return round(new * alone + new * (before + new) * pair)

    @torch.no_grad()
    def _measured(self, length: int) -> int:
        ids = torch.ones(1, length, dtype=torch.long, device=self.model.device)
        # Fused attention on a CPU would not be counted.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        return counter.get_total_flops()

    def price(self, before: int, new: int) -> Cost:
        return Cost(tokens=new, flops=self.flops(before, new))

    def cost(self, units: Sequence[int]) -> Cost:
        """The most that reading so many units takes, at the end of a text of ``text_tokens``."""
        lengths = [min(self.text_tokens, self.prompt_tokens + n * self.step_tokens) for n in units]
        return sum((self.price(self.text_tokens - length, length) for length in lengths), Cost())

    def spec(self) -> dict:
        return {
            "name": self.name,
            "folder": str(self.folder),
            "label": self.labels[self.label],
            "prompt": self.prompt,
            "step_tokens": self.step_tokens,
            "prompt_tokens": self.prompt_tokens,
            "text_tokens": self.text_tokens,
        }


def padded(rows: Sequence[Sequence[int]], value: int = 0) -> torch.Tensor:
    """Rows of integers as (n, longest), padded on the right."""
    out = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out
