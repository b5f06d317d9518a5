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
KINDS = {"video": "a video", "image": "an image", "solve": "solutions"}
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

    Until it is claimed nothing of an older run is touched, and what was made is removed again.
    """

    def __init__(self, folder: Path | None, force: bool = False, resumed: bool = False, kind: str = "video") -> None:
        self.folder, self.force, self.claimed, self.kind = folder or Path(), force, resumed, kind
        self._fresh = folder is None
        self._made: list[Path] = []

    def __enter__(self) -> Output:
        try:
            if self._fresh:
                number = 1
                while (folder := Path("runs") / f"{self.kind}-{number:03d}").exists():
                    number += 1
                self.folder = folder
            if self.folder.is_dir():
                if any(self.folder.iterdir()) and not (self.force or self.claimed):
                    raise FileError(self._taken())
                tempfile.TemporaryFile(dir=self.folder).close()
            else:
                for folder in reversed((self.folder, *self.folder.parents)):
                    if not folder.exists() or folder == self.folder:  # a file of that name is refused by mkdir
                        folder.mkdir()
                        self._made.append(folder)
        except OSError as error:
            self._undo()
            reason = "it is not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
            raise FileError(f"the folder {self.folder} cannot be written ({reason}); give another --out") from None
        return self

    def _taken(self) -> str:
        if not (self.folder / "result.json").exists():
            for command in ("video", "solve"):
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


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(data, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
