"""A journal of a run's trainings, so that a run that was killed goes on and ends with the same weights.

A method is a chain of trainings with cheap, deterministic work between them. The journal writes down the end of each
training, and of the one under way its newest state. A run that starts again with the same journal does the work between
anew; what was trained is read instead of trained. Safetensors and JSON; nothing is unpickled. It needs a copy of the
model on disk for each training.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunus.errors import FileError, require

if TYPE_CHECKING:
    from prunus.sparse.holding import Hold
    from prunus.sparse.training import Stateful, Training

FORMAT = "prunus-training-1"


@dataclass
class Journal:
    """``folder``: where to write (None: nowhere), ``every`` so many steps and at the end of a training. ``watch`` is
    told (which training, its step, its last step, the loss) after each step."""

    folder: Path | None = None
    every: int = 500
    watch: Callable[[int, int, int, float], None] = lambda training, step, stop, loss: None
    trainings: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        require(self.every >= 1, "every", self.every, "at least 1 step")

    def begin(
        self,
        place: Mapping[str, int],
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        hold: Hold,
        done: Training,
        keeps: Mapping[str, Stateful],
    ) -> Entry:
        """The next training's entry. ``place`` is what tells this training from others: its order, first and last
        step."""
        self.trainings += 1
        return Entry(self, self.trainings, dict(place), model, optimiser, hold, done, keeps)

    def clear(self) -> None:
        """Remove what was written: the run has ended well, or begins anew."""
        for file in self.folder.glob("training-*") if self.folder is not None else ():
            file.unlink(missing_ok=True)


@dataclass
class Entry:
    """One training in a journal: what it is made of, all of which ``restore`` puts back and ``note`` writes down."""

    journal: Journal
    number: int
    place: dict[str, int]
    model: nn.Module
    optimiser: torch.optim.Optimizer
    hold: Hold
    done: Training
    keeps: Mapping[str, Stateful]

    @property
    def path(self) -> Path:
        assert self.journal.folder is not None
        return self.journal.folder / f"training-{self.number:03d}.json"

    def restore(self) -> int:
        """Put back what the journal has of this training; the step from which to go on. FileError if it is damaged, or
        of another run."""
        from prunus.sparse.masks import Masks
        from prunus.sparse.task import Evaluation

        if self.journal.folder is None or not self.path.exists():
            return self.place["start"]
        said, arrays = _read(self.path)
        if said["place"] != self.place:
            raise FileError(
                f"{self.path.parent} holds another run: its training {self.number} is {said['place']}, "
                f"here it is {self.place}; give another folder, or start anew"
            )
        state = _nested({**arrays, **said["numbers"]})
        try:
            self.model.load_state_dict(state["model"])
            groups = self.optimiser.state_dict()["param_groups"]
            memory = {int(place): values for place, values in state.get("optimiser", {}).items()}
            self.optimiser.load_state_dict({"state": memory, "param_groups": groups})
            self.hold.masks = Masks({name: state["masks"][name] for name in said["masks"]})
            for name, kept in self.keeps.items():
                kept.load_state_dict(state.get("keeps", {}).get(name, {}))
        except (RuntimeError, KeyError, ValueError) as error:
            raise FileError(
                f"{self.path} does not fit this run ({error}); give another folder, or start anew"
            ) from error
        self.done.steps, self.done.best = said["steps"], state.get("best")
        self.done.curve = [(step, Evaluation(*seen)) for step, seen in said["curve"]]
        return said["step"]

    def note(self, step: int, loss: float) -> None:
        """A step is done: tell who watches, and write if it is time to."""
        stop = self.place["stop"]
        self.journal.watch(self.number, step, stop, loss)
        if self.journal.folder is not None and (step == stop or step % self.journal.every == 0):
            self._write(step)

    def _write(self, step: int) -> None:
        memory = {str(place): values for place, values in self.optimiser.state_dict()["state"].items()}
        state = {
            "model": self.model.state_dict(),
            "optimiser": memory,
            "masks": dict(self.hold.masks),
            "best": self.done.best or {},
            "keeps": {name: kept.state_dict() for name, kept in self.keeps.items()},
        }
        flat = dict(_flat(state))
        said = {
            "format": FORMAT,
            "place": self.place,
            "step": step,
            "steps": self.done.steps,
            "curve": [(at, (seen.loss, seen.score)) for at, seen in self.done.curve],
            "masks": list(self.hold.masks),
            "numbers": {name: value for name, value in flat.items() if not isinstance(value, Tensor)},
        }
        _save(self.path, step, said, {name: value for name, value in flat.items() if isinstance(value, Tensor)})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths with slashes -> what is there."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {"model": {}, "masks": {}}
    for path, value in flat.items():
        *above, name = path.split("/")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[name] = value
    return tree


def _save(path: Path, step: int, said: dict[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """The arrays first, under a name of their own; then the JSON that names them is renamed into place."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    file = path.with_name(f"{path.stem}-{step}.safetensors")
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Copies: tied weights share their memory, which the format refuses.
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in arrays.items()}, file)
        temporary.write_text(json.dumps({**said, "arrays": file.name}))
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        for half in (temporary, file):
            with contextlib.suppress(OSError):
                half.unlink()
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"the training cannot be saved in {path.parent}: {reason}; what was saved is kept") from error
    for older in path.parent.glob(f"{path.stem}-*.safetensors"):
        if older != file:
            older.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        said = json.loads(path.read_text())
        if said.get("format") != FORMAT:
            raise FileError(f"{path} is no training that this version can read")
        return said, load_file(path.with_name(said["arrays"]))
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise FileError(f"{path} is damaged ({error}); delete its folder to start anew") from error
