"""A plain model that was made smaller, written and made again: what was removed is said step by step, and replayed.

``pruning.json`` holds the steps (the kept rows of each layer, the dropped blocks) and the shapes of an example input,
along which torch-pruning finds what hangs together. ``restore`` replays them on the user's own class and loads the
weights. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import FileError, ModelError, PrunusError
from prunus.sparse.masks import Masks
from prunus.sparse.methods.layer_lottery import drop_blocks
from prunus.sparse.removal import remove_channels

FORMAT = "prunus-plain-1"


def restore(build: Callable[[], nn.Module], folder: str | Path) -> nn.Module:
    """The exported model, as ``build`` makes it, made smaller as ``pruning.json`` says, with the saved weights.

    Raises FileError for a folder that is missing or damaged, ModelError if ``build`` makes another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    place = Path(folder) / "pruning.json"
    try:
        said = json.loads(place.read_text())
        if said.get("format") != FORMAT:
            raise FileError(f"{place} has format {said.get('format')!r}; this version reads {FORMAT!r}")
        model = _replayed(build, said)
        load_model(model, str(Path(folder) / "model.safetensors"))
    except RuntimeError as error:
        raise ModelError(f"{folder} was made from another network than build makes: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, PrunusError):
            raise
        raise FileError(
            f"{folder} cannot be read ({type(error).__name__}: {error}); name an exported folder"
        ) from error
    return model


def built(maker: Callable[[], Any]) -> nn.Module:
    try:
        made = maker()
    except Exception as error:  # the user's own code
        raise ModelError(f"build() fails: {type(error).__name__}: {error}; it must need no arguments") from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"build() gives a {type(made).__name__}; it must give a torch.nn.Module")
    return made


def _replayed(build: Callable[[], nn.Module], said: dict[str, Any]) -> nn.Module:
    """What ``build`` makes, made smaller by the same steps."""
    model = built(build).cpu()
    for step in said["steps"]:
        if "dropped" in step:
            model = drop_blocks(model, step["dropped"])
            continue
        masks, weights = {}, dict(model.named_parameters())
        for layer, rows in step["kept"].items():
            name = f"{layer}.weight" if layer else "weight"
            if name not in weights or not 0 <= min(rows, default=-1) <= max(rows) < len(weights[name]):
                raise ModelError(f"pruning.json keeps rows of {name} that the model of build() does not have")
            masks[name] = torch.zeros(weights[name].shape, dtype=torch.bool)
            masks[name][rows] = True
        model = remove_channels(model, Masks(masks), _example(said["example"]))
    return model.eval()


def check_replays(build: Callable[[], nn.Module], said: dict[str, Any], model: nn.Module) -> None:
    """ModelError before anything is written, if the steps do not lead from ``build`` to ``model``."""
    found, wanted = ({n: tuple(v.shape) for n, v in m.state_dict().items()} for m in (_replayed(build, said), model))
    if odd := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
        raise ModelError(
            f"{odd[0]} is {wanted.get(odd[0], 'missing')} in the model and {found.get(odd[0], 'missing')} in what "
            "build() makes after the same removals; only what remove (or drop_blocks) made smaller can be exported"
        )


def shapes(example: Any) -> Any:
    """An example input as JSON: the shapes and types of its tensors."""
    if isinstance(example, Tensor):
        return {"shape": list(example.shape), "dtype": str(example.dtype).removeprefix("torch.")}
    if isinstance(example, tuple | list):
        return [shapes(part) for part in example]
    if isinstance(example, dict):
        return {"inputs": {name: shapes(part) for name, part in example.items()}}
    raise ModelError(
        f"the model's input holds a {type(example).__name__}; tensors, lists and dicts of them can be written"
    )


def _example(shapes: Any) -> Any:
    if isinstance(shapes, list):
        return tuple(_example(part) for part in shapes)
    if "inputs" in shapes:
        return {name: _example(part) for name, part in shapes["inputs"].items()}
    return torch.zeros(shapes["shape"], dtype=getattr(torch, shapes["dtype"]))
