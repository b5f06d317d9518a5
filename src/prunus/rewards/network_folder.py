"""A reward network as a folder: ``config.json`` and ``model.safetensors`` in half precision. Nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save

from prunus.errors import FileError, ModelError
from prunus.rewards.networks import RewardNetwork

CONFIG, WEIGHTS = "config.json", "model.safetensors"

Network = TypeVar("Network", bound=RewardNetwork)


def save_network(network: RewardNetwork, folder: str | Path) -> None:
    """Write both files, each whole or not at all. Raises FileError."""
    folder = Path(folder)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in network.state_dict().items()}
    config = {"architecture": type(network).__name__, **network.config}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not save_file, whose files only their owner may read: a package's are for everyone.
        (folder / f"{WEIGHTS}.tmp").write_bytes(save(weights, {"format": "pt"}))
        (folder / f"{CONFIG}.tmp").write_text(json.dumps(config, indent=2) + "\n")
        for name in (WEIGHTS, CONFIG):
            os.replace(folder / f"{name}.tmp", folder / name)
    except OSError as error:
        raise FileError(
            f"cannot save the network in {folder}: {error.strerror or error}; name another folder"
        ) from error


def architecture(folder: str | Path) -> str | None:
    """The class of the network in a folder. Raises ModelError that names what is missing or damaged."""
    return _config(Path(folder)).get("architecture")


def _config(folder: Path) -> dict[str, Any]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}; a reward's folder holds {CONFIG} and {WEIGHTS}")
    try:
        return dict(json.loads((folder / CONFIG).read_text()))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG} is damaged ({error}); fetch it again") from error


def load_network(kind: type[Network], folder: str | Path, device: str = "cpu") -> Network:
    """Read a network of this kind, ready to score. Raises ModelError that names what is missing or damaged."""
    folder = Path(folder)
    config = _config(folder)
    found = config.pop("architecture", None)
    if found != kind.__name__:
        raise ModelError(f"{folder / CONFIG} describes a {found}; this reward needs a {kind.__name__}")
    try:
        network = kind(**config)
    except Exception as error:  # whatever a wrong value leads to
        raise ModelError(f"{folder / CONFIG} cannot be used: {error}; fetch it again") from error
    try:
        weights = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    except Exception as error:  # safetensors has its own kind
        raise ModelError(f"{folder / WEIGHTS} is damaged ({error}); fetch it again") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{folder / WEIGHTS} does not fit {CONFIG}: {reason}; fetch both again") from error
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ModelError(f"{folder / WEIGHTS} holds values that are NaN or infinite; fetch it again")
    return network.to(device).eval().requires_grad_(False)
