"""A local transformers folder with a classification head, read so that no weight of it is silently random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.errors import ModelError


def load_classifier(auto: Any, folder: Path, purpose: str) -> Any:
    """The model of a folder by the class ``auto``; safetensors only. Raises ModelError."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; name a transformers folder for {purpose} classification")
    try:
        model, info = auto.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # each library under it has its own
        raise ModelError(f"{folder} cannot be loaded for {purpose} classification: {line(error)}") from error
    if lost := sorted({*info["missing_keys"], *(str(k) for k in info["mismatched_keys"])}):
        raise ModelError(
            f"{folder} lacks weights of a {type(model).__name__}: {', '.join(lost[:5])}; they would be random. "
            f"Name a folder that was trained and saved with its head for {purpose} classification"
        )
    return model


def line(error: Exception) -> str:
    """What a library's error says, on one line."""
    return " ".join(str(error).split())[:300]
