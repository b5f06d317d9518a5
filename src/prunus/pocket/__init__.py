"""Tiny trained models of real architectures, so that every command works offline. Each folder has a model card."""

from __future__ import annotations

from pathlib import Path

from prunus.errors import ModelError


def path(name: str) -> Path:
    """The folder of a pocket model, for example ``video``. Raises ModelError for an unknown one."""
    root = Path(__file__).parent
    known = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("_"))
    if name not in known:
        raise ModelError(f"pocket model {name!r} does not exist; there are {', '.join(known)}")
    return root / name
