"""An outcome reward: a transformers folder for sequence classification over text, read once for each solution.

Any text architecture of ``AutoModelForSequenceClassification``: one label (its sigmoid) or two (the second is right)
unless ``label`` says which. It gives one score of the whole text, also of one that is not finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Self

from prunus.budget import Cost
from prunus.errors import ModelError
from prunus.rewards.text_classifier import TextClassifier, load_text_classifier, padded
from prunus.roles import WHOLE


class OutcomeReward(TextClassifier):
    """Text and prompt to the probability that the solution is right. Settings are ``TextClassifier``'s."""

    view = WHOLE

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        label: str | int | None = None,
        prompt: str = "{prompt}\n",
        batch: int = 32,
        step_tokens: int = 24,
        prompt_tokens: int = 48,
        text_tokens: int = 256,
        name: str = "outcome-reward",
        folder: Path | None = None,
    ) -> None:
        super().__init__(
            model, tokenizer, label=label, prompt=prompt, batch=batch, step_tokens=step_tokens,
            prompt_tokens=prompt_tokens, text_tokens=text_tokens, name=name, folder=folder,
        )  # fmt: skip
        config = model.config.get_text_config()
        if config.pad_token_id is None:  # without it the head cannot tell where a padded text ends
            config.pad_token_id = tokenizer.pad_token_id
        if config.pad_token_id is None:
            raise ModelError(f"{folder or name} names no padding token; set pad_token_id in config.json")
        self.padding = config.pad_token_id

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", dtype: str | None = None, **settings: Any) -> Self:
        """Read a folder, from this machine only, safetensors only; ``settings`` are the class's. Raises ModelError.

        dtype: None is float32 on a CPU, and the folder's own elsewhere.
        """
        from transformers import AutoModelForSequenceClassification

        auto = AutoModelForSequenceClassification
        model, tokenizer = load_text_classifier(auto, Path(folder), device, dtype, "sequence")
        return cls(model, tokenizer, folder=Path(folder), **settings)

    def _ids(self, content: str, prompt: str) -> list[int]:
        ids = self.prompt_ids(prompt) + self.tokens(content)
        self.check_length(len(ids), prompt)
        return ids

    @torch.no_grad()
    def score(self, contents: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """One probability for each text. Raises PromptError for one that is too long."""
        rows = [self._ids(c, p) for c, p in zip(contents, prompts, strict=True)]
        scores = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # alike in length, so that little is padding
        for at in range(0, len(order), self.batch):
            chosen = order[at : at + self.batch]
            ids = padded([rows[i] for i in chosen], self.padding)
            mask = padded([[1] * len(rows[i]) for i in chosen])
            logits = self.model(input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device)).logits
            for i, score in zip(chosen, self.probability(logits).tolist(), strict=True):
                scores[i] = score
        return scores

    def took(self, contents: Sequence[str], prompts: Sequence[str], read: Sequence[int]) -> Cost:
        lengths = [len(self._ids(c, p)) for c, p in zip(contents, prompts, strict=True)]
        return sum((self.price(0, n) for n in lengths), Cost())
