"""What ``prunus solve`` is asked to do: all that a run needs to be made again, or to go on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from prunus.commands.output import read_run
from prunus.commands.problems import Problem, read_problems, world_problems
from prunus.commands.text_methods import is_wide
from prunus.errors import FileError

BASELINE = "best-of-n"
WIDTHS = (2, 4, 8, 16)


@dataclass(frozen=True)
class SolveJob:
    """All that a run needs to be made again, or to go on: ``run.json``."""

    prompt: str | None = None
    data: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    world: str | None = None
    split: str = "dev"
    operations: int | None = None
    limit: int | None = None
    check: str | None = None
    strategies: list[str] = field(default_factory=lambda: ["best-of-n"])
    widths: list[int] = field(default_factory=list)
    options: dict[str, int] = field(default_factory=dict)
    choose: str = "majority"
    budget: str | None = None
    seed: int = 0
    model: str | None = None
    server: str | None = None
    chat: bool | None = None
    writing: dict[str, Any] = field(default_factory=dict)
    """Settings of the generator that the user gave: step, stop, temperature, max_tokens, max_step, ..."""
    reward: str | None = None
    together: int = 16
    """So many problems share their batches, and are saved when all of them are solved."""
    device: str = "cpu"
    dtype: str = "float32"

    @classmethod
    def load(cls, folder: Path) -> tuple[SolveJob, str]:
        """A run's job, and the digest of its problems. Raises FileError if the folder holds none."""
        data = read_run(folder, "solve")
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls)}), data["problems"]
        except (KeyError, TypeError) as error:
            raise FileError(f"{folder / 'run.json'} is damaged ({error}); the run cannot go on") from error

    @property
    def single(self) -> bool:
        """Whether this is one prompt, whose tree is kept."""
        return self.prompt is not None and len(self.runs) == 1

    @property
    def compares(self) -> bool:
        return len(self.strategies) > 1 or bool(self.widths)

    @property
    def runs(self) -> list[tuple[str, int | None]]:
        """(strategy, width) of all that is run; a width of None is the strategy's own."""
        if not self.compares:
            return [(self.strategies[0], None)]
        names = list(dict.fromkeys([BASELINE, *self.strategies]))  # what it costs is what the others may spend
        widths = self.widths or list(WIDTHS)
        options = {k: v for k, v in self.options.items() if k != "n"}
        return [(s, w) for s in names for w in (widths if is_wide(s, options) else [None])]

    def problems(self) -> list[Problem]:
        if self.data is not None:
            return read_problems(Path(self.data), self.fields, self.limit)
        if self.prompt is not None:
            return [Problem(self.prompt)]
        assert self.world is not None
        return world_problems(self.world, self.split, self.operations, self.limit)

    @property
    def judged_by(self) -> str | None:
        """The world that judges: the one asked for, or the packaged model's, of a bare prompt."""
        bare = self.prompt is not None and self.model is None and self.server is None
        return "arithmetic" if bare else self.world
