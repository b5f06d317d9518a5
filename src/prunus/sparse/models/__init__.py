"""Models that users bring, with their data: a causal language model's folder, a Wan folder, or ``pkg.mod:build``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunus.errors import ModelError, SettingError, require
from prunus.sparse.models.model import UNIT_KINDS, Prunable
from prunus.sparse.models.replay import restore

__all__ = ["UNIT_KINDS", "Prunable", "load", "restore"]

REMEDY = (
    "name a transformers folder of a causal language model, a diffusers folder with a WanTransformer3DModel, or "
    "package.module:build, a function that makes a torch model"
)


def load(model: str | Path, data: Sequence[str | Path] = (), **settings: Any) -> Prunable:
    """The model at ``model`` with its ``data``; ``settings`` are those of its class.

    - a transformers folder whose config names a ``...ForCausalLM``: data are JSONL files, see ``causal_lm.CausalLM``;
    - a diffusers folder with a ``WanTransformer3DModel``, see ``wan``;
    - ``package.module:build``: data are one ``package.module:loaders``, see ``plain.Plain``.

    Raises ModelError for what is none of them, SettingError for a setting that its class does not have.
    """
    path = Path(model)
    _check_device(settings.get("device", "cpu"))
    if ":" in str(model) and not path.exists():
        from prunus.sparse.models.plain import Plain

        return _made(Plain.load, model, data, settings)
    if not path.is_dir():
        raise ModelError(f"{model} is no folder and no import path; {REMEDY}")
    if _is_wan(path):
        from prunus.sparse.models import wan

        return _made(wan.load, model, data, settings)
    config = _json(path / "config.json")
    architectures = config.get("architectures") or ["none"]
    if not str(architectures[0]).endswith("ForCausalLM"):
        raise ModelError(f"{path} holds {', '.join(map(str, architectures))}, which cannot be pruned here; {REMEDY}")
    from prunus.sparse.models.causal_lm import CausalLM

    return _made(CausalLM.load, model, data, settings)


def _check_device(device: Any) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:  # a torch without it asserts
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingError(f"device {device!r} cannot be used: {line}; take cpu, or one that this torch has") from error


def _made(maker: Any, model: str | Path, data: Sequence[str | Path], settings: dict[str, Any]) -> Prunable:
    known = list(inspect.signature(maker).parameters)[2:]
    require(settings.keys() <= set(known), "settings", sorted(settings.keys() - set(known)), f"of {', '.join(known)}")
    return maker(model, data, **settings)


def _is_wan(folder: Path) -> bool:
    if (folder / "model_index.json").exists():
        return True
    for place in (folder / "transformer", folder):
        if (place / "config.json").exists() and _json(place / "config.json").get("_class_name"):
            return _json(place / "config.json")["_class_name"] == "WanTransformer3DModel"
    return False


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}, not a model's configuration; {REMEDY}")
    return found
