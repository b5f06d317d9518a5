"""A local transformers folder for sequence classification over pictures and text, as a reward.

Any architecture of ``AutoModelForSequenceClassification`` that takes ``pixel_values``, such as Gemma 3, Qwen 3.5 or
ModernVBERT, with its processor and chat template. The frames are shown as pictures, in order, before the text (not as
the video input that a few processors also have).

The head's outputs become numbers as the folder's ``config.json`` says: one output, or ``problem_type`` "regression",
is taken as it is; "multi_label_classification" through a sigmoid; else through a softmax over the labels.

On the command line, a module in the current folder loads it, and --reward names it:

    # mine.py
    from prunus.rewards import TransformersReward
    good = TransformersReward.load("folder", label="good")

    prunus video "a red circle moving right" --method beam --reward mine:good
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import Self

from prunus.budget import Cost
from prunus.errors import ModelError, require
from prunus.rewards.classifier_folder import line, load_classifier
from prunus.rewards.pictures import pictures
from prunus.roles import Reward, View
from prunus.score import Score


class TransformersReward(Reward):
    """Frames and prompt to a label's number; contents are float (f, 3, h, w) in [0, 1], of any lengths.

    label: which output is the value, by name or index; a head with one output needs none. The others are the score's
    parts. text: what stands behind the pictures; {prompt} stands for the prompt. frames: how many evenly spaced frames
    it sees at most. batch: candidates in one forward. units: how many of the last units it is shown, None: the whole
    candidate. chunk_frames and size (height, width): the frames of a unit for which FLOPs are counted.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        label: str | int | None = None,
        text: str = "{prompt}",
        frames: int = 8,
        batch: int = 8,
        units: int | None = None,
        chunk_frames: int = 3,
        size: tuple[int, int] = (64, 64),
        name: str = "transformers-reward",
        folder: Path | None = None,
    ) -> None:
        for field, value in {"frames": frames, "batch": batch, "chunk_frames": chunk_frames}.items():
            require(value >= 1, field, value, "at least 1")
        require("{prompt}" in text, "text", text, "a text with {prompt} in it")
        self.model, self.processor, self.text, self.frames, self.batch = model.eval(), processor, text, frames, batch
        self.labels = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        self.index = self._index(label)
        kind = getattr(model.config, "problem_type", None)
        raw = len(self.labels) == 1 or kind == "regression"
        self.activation = "none" if raw else "sigmoid" if kind == "multi_label_classification" else "softmax"
        self.range = "unbounded" if raw else "probability"
        self.name, self.view, self.folder = name, View(units), folder
        self.chunk_frames, self.size = chunk_frames, size
        self.flops = lru_cache(self._flops)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", **settings: Any) -> Self:
        """Read a folder, from this machine only, safetensors only; ``settings`` are the class's. Raises ModelError."""
        from transformers import AutoModelForSequenceClassification, AutoProcessor

        folder = Path(folder)
        model = load_classifier(AutoModelForSequenceClassification, folder, "sequence")
        if "pixel_values" not in inspect.signature(model.forward).parameters:
            raise ModelError(f"{folder} is a {type(model).__name__}, which reads no pictures")
        try:
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise ModelError(f"{folder} has no processor that can be loaded: {line(error)}") from error
        if getattr(processor, "image_processor", None) is None or not getattr(processor, "chat_template", None):
            raise ModelError(
                f"{folder} has no processor for pictures with a chat template, which says where they stand in the "
                "text; save the model's own processor there"
            )
        text = model.config.get_text_config()
        if text.pad_token_id is None:  # without it the head cannot tell where a padded text ends
            text.pad_token_id = processor.tokenizer.pad_token_id
        if text.pad_token_id is None:
            raise ModelError(f"{folder} names no padding token; set pad_token_id in config.json")
        model = model.to(device)
        return cls(model.float() if device == "cpu" else model, processor, folder=folder, **settings)

    @torch.no_grad()
    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        shown = [pictures(content, self.frames, f"reward {self.name!r}") for content in contents]
        rows: list[list[float]] = []
        for at in range(0, len(shown), self.batch):
            rows += self._evaluate(shown[at : at + self.batch], prompts[at : at + self.batch]).tolist()
        named = len(self.labels) > 1
        return [Score(row[self.index], dict(zip(self.labels, row)) if named else {}) for row in rows]

    def _evaluate(self, shown: Sequence[Sequence[Any]], prompts: Sequence[str]) -> torch.Tensor:
        """Numbers (n, labels) of n candidates' pictures."""
        texts = [
            self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
            for images, prompt in zip(shown, prompts, strict=True)
            for content in [[{"type": "image"}] * len(images)
                            + [{"type": "text", "text": self.text.replace("{prompt}", prompt)}]]
        ]  # fmt: skip
        inputs = self.processor(text=texts, images=[list(s) for s in shown], padding=True, return_tensors="pt")
        logits = self.model(**inputs.to(self.model.device, self.model.dtype)).logits.float()
        if self.activation == "softmax":
            return logits.softmax(-1)
        return logits.sigmoid() if self.activation == "sigmoid" else logits

    def cost(self, units: Sequence[int]) -> Cost:
        """FLOPs, a multiply-add as two, for frames of ``size`` and a short prompt."""
        return Cost(flops=sum(self.flops(min(self.frames, n * self.chunk_frames)) for n in units))

    @torch.no_grad()
    def _flops(self, frames: int) -> int:
        blank = pictures(torch.zeros(frames, 3, *self.size), None, self.name)
        with FlopCounterMode(display=False) as counter:
            self._evaluate([blank], ["a red circle moving right"])
        return counter.get_total_flops()

    def _index(self, label: str | int | None) -> int:
        if label is None and len(self.labels) == 1:
            return 0
        if isinstance(label, str) and label in self.labels:
            return self.labels.index(label)
        known = isinstance(label, int) and 0 <= label < len(self.labels)
        require(known, "label", label, f"one of {', '.join(map(repr, self.labels))}, or an index of them")
        return int(label)  # type: ignore[arg-type]

    def spec(self) -> dict:
        return {
            "name": self.name,
            "folder": str(self.folder),
            "label": self.labels[self.index],
            "text": self.text,
            "frames": self.frames,
            "units": self.view.units,
            "chunk_frames": self.chunk_frames,
            "size": list(self.size),
        }
