"""The folder of a run: made with the first whole round of the search, never over another run's unless forced."""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from prunus.errors import FileError, PrunusError

IMAGES = ("image.png", "plain.png", "side-by-side.png")
VIDEOS = ("video.mp4", "plain.mp4", "side-by-side.mp4")
FILES = (
    "run.json",
    "result.json",
    "tree.json",
    "units-*.safetensors",
    *VIDEOS,
    *IMAGES,
    "contact-sheet.png",
    "report.html",
    "rows.jsonl",
    "curves.png",
)
KINDS = {"video": "a video", "image": "an image", "solve": "solutions", "sparsify": "a pruned network"}
"""What a folder holds, by the command that made it."""


def read_run(folder: Path, command: str) -> dict[str, Any]:
    """``run.json`` of a folder that this command made. Raises FileError if the folder holds no such run."""
    path = folder / "run.json"
    try:
        data = json.loads(path.read_text())
        if (kind := data.get("kind", "video")) != command:
            raise FileError(f"{folder} holds {KINDS[kind]}; name a folder of prunus {command}")
        return data
    except FileNotFoundError:
        raise FileError(f"{folder} holds no run ({path.name} is missing); name a folder of prunus {command}") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise FileError(f"{path} is damaged ({error}); the run cannot go on") from error


@dataclass(frozen=True)
class Job:
    """All that a run needs to be made again, or to go on: ``run.json``."""

    prompts: list[str]
    method: str
    settings: dict[str, Any]
    frames: int
    seed: int
    model: str
    budget: str | None = None
    rewards: list[str] = field(default_factory=list)
    device: str = "cpu"
    dtype: str = "float32"
    folders: bool = False
    """Whether each prompt has its own sub-folder."""
    version: str = ""
    euler_steps: int | None = None

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Raises FileError if the folder holds no run."""
        data = {"euler_steps": None} | read_run(folder, "video")  # runs of before there was a choice
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls)})
        except (KeyError, TypeError) as error:
            raise FileError(f"{folder / 'run.json'} is damaged ({error}); the run cannot go on") from error

    def folder_of(self, out: Path, index: int) -> Path:
        if not self.folders:
            return out
        slug = re.sub(r"[^a-z0-9]+", "-", self.prompts[index].lower())[:48].strip("-")
        return out / f"{index + 1:03d}-{slug}"


class Interrupted(PrunusError):
    """Ctrl-C; the message says how to go on."""

    exit_code = 130


class Output:
    """A folder to write a run into. Entering it checks that it can be written; ``claim`` writes ``run.json``.

    Until it is claimed nothing of an older run is touched, and what was made is removed again. While one process is in
    it, others are refused.
    """

    def __init__(self, folder: Path | None, force: bool = False, resumed: bool = False, kind: str = "video") -> None:
        self.folder, self.force, self.claimed, self.kind = folder or Path(), force, resumed, kind
        self._fresh = folder is None
        self._made: list[Path] = []
        self._lock: int | None = None

    def __enter__(self) -> Output:
        try:
            if self._fresh:
                self._make_next()
            elif self.folder.is_dir():
                self._lock = _lock(self.folder)
                if any(self.folder.iterdir()) and not (self.force or self.claimed):
                    raise FileError(self._taken())
                tempfile.TemporaryFile(dir=self.folder).close()
            else:
                self._make(self.folder)
            if self._lock is None:
                self._lock = _lock(self.folder)
        except FileError:
            self._unlock()
            raise
        except OSError as error:
            self._undo()
            self._unlock()
            reason = "it is not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
            raise FileError(f"the folder {self.folder} cannot be written ({reason}); give another --out") from None
        return self

    def _make_next(self) -> None:
        """The next folder of this kind in runs/, which no other process has made."""
        number = 1
        while True:
            self.folder = Path("runs") / f"{self.kind}-{number:03d}"
            try:
                return self._make(self.folder)
            except FileExistsError:
                if not self.folder.exists():
                    raise  # runs is a file
                number += 1

    def _make(self, folder: Path) -> None:
        """Make a folder, and those above it. Raises FileExistsError if it is there, or if one of them is a file."""
        for one in reversed((folder, *folder.parents)):
            if one == folder or not one.exists():
                one.mkdir()
                self._made.append(one)

    def _taken(self) -> str:
        if not (self.folder / "result.json").exists():
            for command in ("video", "solve", "sparsify"):
                with suppress(FileError):
                    read_run(self.folder, command)
                    return (
                        f"{self.folder} holds a run that was interrupted; finish it with prunus {command} --resume "
                        f"{self.folder}, give another --out, or replace it with --force"
                    )
        return f"{self.folder} is not empty; give another --out, or replace what is there with --force"

    def claim(self, job: Job | dict[str, Any]) -> None:
        """The first round is whole: take the folder for this run, a job of videos or what describes another kind."""
        if self.claimed:
            return
        new = [self.folder]
        if isinstance(job, Job):
            new = [job.folder_of(self.folder, i) for i in range(len(job.prompts))]
        for folder in dict.fromkeys([*self._older(), *new]):
            try:
                for file in (file for pattern in FILES for file in folder.glob(pattern)):
                    file.unlink()
                if folder != self.folder and folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            except OSError as error:
                raise FileError(f"{folder} cannot be replaced: {error.strerror}; give another --out") from None
        write_json(self.folder / "run.json", asdict(job) if isinstance(job, Job) else job)
        self.claimed = True

    def _older(self) -> list[Path]:
        """The folders of the run that is replaced."""
        try:
            older = Job.load(self.folder)
        except FileError:
            return []
        return [older.folder_of(self.folder, i) for i in range(len(older.prompts))]

    def _undo(self) -> None:
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                return  # someone else put something there

    def __exit__(self, *_: object) -> None:
        if not self.claimed:
            self._undo()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(folder: Path) -> int | None:
    """Keep other processes out of a folder until the descriptor is closed, or this process ends in whatever way."""
    try:
        import fcntl
    except ImportError:
        return None  # Windows
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FileError(
            f"another process is writing into {folder}; wait until it has ended, or give another --out"
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(data, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
