"""Masks as a safetensors file: one bool tensor a weight, and metadata that says what the file is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from prunus.errors import FileError, SettingError

FORMAT = "prunus-masks-1"


def save(masks: Mapping[str, Tensor], path: Path, note: Mapping[str, str]) -> None:
    """Write under another name and rename: a reader never sees half a file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if "format" in note or not all(isinstance(value, str) for value in note.values()):
        raise SettingError("a note of masks maps words to texts, and 'format' is taken")
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: mask.cpu().clone().contiguous() for name, mask in masks.items()}
        save_file(tensors, temporary, metadata={"format": FORMAT, "order": "\n".join(masks), **note})
        temporary.chmod(0o644)  # safetensors lets only its owner read a file
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot save the masks as {path}: {reason}; choose another place") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def load(path: Path) -> dict[str, Tensor]:
    """The masks in the model's order. Raises FileError for a file that is missing, damaged or something else."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise FileError(f"{path} holds no masks (its format is {metadata.get('format')!r}, not {FORMAT!r})")
            names = metadata["order"].split("\n")
            if set(names) != set(file.keys()):
                raise FileError(f"{path} is damaged: its list of weights and its tensors differ")
            masks = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise FileError(f"{path} does not exist; name a file that Masks.save has written") from None
    except (OSError, SafetensorError, KeyError) as error:
        raise FileError(f"{path} cannot be read as masks ({type(error).__name__}: {error})") from error
    if odd := [name for name, mask in masks.items() if mask.dtype != torch.bool]:
        raise FileError(f"{path} is damaged: the mask of {odd[0]} is {masks[odd[0]].dtype}, not bool")
    return masks
