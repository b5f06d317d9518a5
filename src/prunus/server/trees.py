"""Trees that clients asked for, and those that a stop broke off: private files, deleted when their time is over.

Each has a folder of its own under a random 128-bit id, with the tree as ``Tree.save`` writes it and ``about.json``,
which says whose it is and until when it is kept. The id alone opens nothing: the key that it was made for must ask.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunus.errors import FileError
from prunus.server.usage import tokens_of
from prunus.tree import Tree

ID = re.compile(r"tree-[0-9a-f]{32}")
MOST = 4096  # trees; the oldest are deleted first


class Trees:
    """``folder`` None: a temporary one, deleted by ``close``. Raises FileError."""

    def __init__(self, folder: Path | None, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self.seconds, self.clock, self.passing = seconds, clock, folder is None
        try:
            if folder is None:
                folder = Path(tempfile.mkdtemp(prefix="prunus-trees-"))
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise FileError(f"trees cannot be kept in {folder}: {error.strerror}; choose another folder") from error
        self.folder = folder

    @staticmethod
    def new_id() -> str:
        return f"tree-{secrets.token_hex(16)}"

    def save(self, tree: Tree, owner: str, id: str) -> None:
        """Raises FileError."""
        place = self.folder / id
        try:
            place.mkdir(mode=0o700)
            about = place / "about.json"
            with open(os.open(about, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump({"owner": owner, "until": self.clock() + self.seconds}, file)
            tree.save(place)
            for path in place.iterdir():
                path.chmod(0o600)
        except OSError as error:
            raise FileError(f"the tree {id} cannot be saved: {error.strerror}") from error

    def load(self, id: str, owner: str) -> Tree | None:
        """The tree of this id if it is this owner's and its time is not over. Raises FileError if it is damaged."""
        if not ID.fullmatch(id):
            return None
        about = self._about(self.folder / id)
        if about is None or about.get("owner") != owner or about.get("until", 0) <= self.clock():
            return None
        return Tree.load(self.folder / id)

    def delete(self, id: str, owner: str) -> bool:
        """Whether there was such a tree of this owner."""
        if not ID.fullmatch(id) or (self._about(self.folder / id) or {}).get("owner") != owner:
            return False
        shutil.rmtree(self.folder / id, ignore_errors=True)
        return True

    def sweep(self) -> int:
        """Delete what is over, and the oldest of more than ``MOST``; says how many are left."""
        ends: list[tuple[float, Path]] = []
        for place in self.folder.glob("tree-*"):
            about = self._about(place)
            until = about.get("until", 0.0) if about else _modified(place) + self.seconds  # half a tree too
            ends.append((until, place))
        ends.sort(reverse=True)
        kept = [place for until, place in ends[:MOST] if until > self.clock()]
        for _, place in ends[len(kept) :]:
            shutil.rmtree(place, ignore_errors=True)
        return len(kept)

    def close(self) -> None:
        if self.passing:
            shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _about(place: Path) -> dict[str, Any] | None:
        try:
            about = json.loads((place / "about.json").read_text())
        except (OSError, ValueError):
            return None
        return about if isinstance(about, dict) else None


def _modified(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0


def shown(tree: Tree) -> dict[str, Any]:
    """A tree as JSON for a client: every candidate's text, scores and fate."""
    return {
        "prompt": str(tree.prompt),
        "seed": tree.seed,
        "strategy": tree.spec.get("strategy"),
        "rewards": list(tree.rewards),
        "spent": tree.spent.as_dict(),
        "result": tree.result.id if tree.result else None,
        "error": tree.error,
        "nodes": [
            {
                "id": node.id,
                "parent": node.parent.id if node.parent else None,
                "depth": node.depth,
                "status": node.status.value,
                "reason": node.reason,
                "text": node.unit.get("text") if isinstance(node.unit, dict) else None,
                "tokens": tokens_of(node),
                "log_probability": node.log_probability,
                "scores": {name: {"value": s.value, "parts": dict(s.parts)} for name, s in node.scores.items()},
            }
            for node in tree.nodes
        ],
    }
