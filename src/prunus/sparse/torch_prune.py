"""Masks to and from ``torch.nn.utils.prune``, which keeps ``weight_orig`` and ``weight_mask`` on each module."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

from prunus.errors import FileError, ModelError
from prunus.sparse.masks import Masks, prunable


def to_torch_prune(masks: Masks, model: nn.Module) -> None:
    """Hang the masks on ``model``'s modules as torch's own; the pruned values are kept in ``weight_orig``."""
    for name, weight in masks.weights(model).items():
        module, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(module), parameter, masks[name].to(weight.device))


def from_torch_prune(model: nn.Module) -> Masks:
    """The masks that hang on ``model``'s modules; prunable weights without one are wholly kept.

    Their names are those of the plain model, without ``_orig``. Raises ModelError if nothing hangs there.
    """
    buffers = dict(model.named_buffers())
    found = {}
    for name, weight in prunable(model).items():
        plain = name.removesuffix("_orig")
        mask = buffers.get(f"{plain}_mask") if plain != name else None
        found[plain] = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    if not any(name.endswith("_orig") for name in prunable(model)):
        raise ModelError(f"no module of {type(model).__name__} is pruned by torch.nn.utils.prune")
    return Masks(found)


def save_torch_prune(masks: Masks, model: nn.Module, path: Path) -> None:
    """Write the state of ``model`` as torch's own pruning has it (``..._orig`` and ``..._mask``), as safetensors.

    ``load_state_dict`` reads it into a model that is pruned there alike. The model is not changed. Raises FileError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights = masks.weights(model)
    state: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if name in weights:
            state[f"{name}_orig"], state[f"{name}_mask"] = value, masks[name].to(value.dtype)
        else:
            state[name] = value
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_torch_prune(path: Path) -> Masks:
    """The masks of a safetensors file with the state of a model that torch.nn.utils.prune has pruned. FileError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = {
                name.removesuffix("_mask"): file.get_tensor(name) != 0
                for name in file.keys()
                if name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in file.keys()
            }
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path} cannot be read as safetensors: {error}") from error
    if not found:
        raise FileError(f"{path} holds no masks of torch.nn.utils.prune: no ..._mask beside a ..._orig")
    return Masks(found)
