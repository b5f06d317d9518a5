"""Folders that are written whole or not at all: under another name beside their place, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prunus.errors import FileError


def check_place(out: Path) -> None:
    """FileError unless ``out`` is free: not there, or an empty folder. Long work asks this before it begins."""
    try:
        taken = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    except OSError as error:
        raise FileError(f"cannot write {out}: {error.strerror}; choose another place") from error
    if taken:
        raise FileError(f"{out} exists already; choose another place, or remove it first")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``out`` at the end of the ``with`` block, if nothing was raised in it.

    Raises FileError for a place that is taken or cannot be written, and for a full disk.
    """
    from safetensors import SafetensorError

    check_place(out)
    draft: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield draft
        draft.chmod(0o755)
        for file in draft.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors lets only its owner read a file
        os.replace(draft, out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot write {out}: {reason}; choose another place, or make room") from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def sizes(folder: Path) -> dict[str, int]:
    """A file's name in ``folder`` -> its bytes."""
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
