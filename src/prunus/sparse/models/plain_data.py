"""The data of a plain torch model, from what ``package.module:loaders`` returns, checked before any training.

It is a ``Task`` (anything with its four members, ``Examples`` among them), or training, validation and test, each a
pair of tensors or a ``DataLoader``. Where only two are given, the second is shuffled by a seed and halved: one half
validates, the other tests. Targets are numbers of classes; for any other loss bring a ``Task``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset, Subset

from prunus.errors import ModelError, SettingError
from prunus.sparse.task import Evaluation, Examples, Task, evaluating, mixed_seed

ALLOWED = (
    "a Task, prunus.sparse.Examples, or (training, validation) or (training, validation, test), each a pair of tensors "
    "(inputs, classes) or a DataLoader"
)


def as_task(given: Any, seed: int = 0, batch_size: int = 60, device: str = "cpu") -> Task:
    """Raises SettingError that says what was returned and what is allowed."""
    if isinstance(given, Examples):
        return given.to(device)
    if all(hasattr(given, name) for name in ("example", "batch", "loss", "evaluate")):
        return given
    if not isinstance(given, tuple | list) or len(given) not in (2, 3):
        raise SettingError(f"the loaders are {_described(given)}; they must be {ALLOWED}")
    parts = list(given)
    if all(isinstance(part, DataLoader) for part in parts):
        train, validation, test = _three_sets(parts, seed)
        return Loaded(train, validation, test, parts[0], device)
    for part in parts:
        pair = isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(t, Tensor) for t in part)
        if not pair:
            raise SettingError(f"one of the loaders is {_described(part)}; they must be {ALLOWED}")
        inputs, targets = part
        _check_classes(targets)
        if len(inputs) != len(targets) or not len(inputs):
            raise SettingError(f"there are {len(inputs)} inputs with {len(targets)} classes; give one class an input")
    if len(parts) == 2:
        rows = _halves(len(parts[1][0]), seed)
        parts[1:] = [(parts[1][0][half], parts[1][1][half]) for half in rows]
    train, validation, test = map(tuple, parts)
    return Examples(train, validation, test, batch_size=min(batch_size, len(train[0]))).to(device)


def check(model: nn.Module, task: Task) -> None:
    """ModelError unless the model can be run on the data and gives a loss that is a number."""
    batch = task.batch(0, 0)
    try:
        with evaluating(model), torch.no_grad():
            loss = task.loss(model, batch)
    except Exception as error:  # the user's own code runs here
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the model cannot be run on its data, {_described(batch)}: {line}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ModelError(f"the task's loss is {_described(loss)}; it must be a tensor of one number")
    if not math.isfinite(float(loss)):
        raise ModelError(f"the loss of the untrained model is {float(loss)}; look at its data, {_described(batch)}")


@dataclass(frozen=True, eq=False)
class Loaded:
    """Data sets of (input, class) that are read by rows, in shuffled batches that depend on (order, step) alone.

    ``loader`` says how rows become a batch, and how many there are in one.
    """

    train: Any
    validation: Any
    test: Any
    loader: DataLoader
    device: str = "cpu"
    criterion: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy

    @property
    def _batch_size(self) -> int:
        return min(self.loader.batch_size or 60, len(self.train))

    @property
    def example(self) -> Any:
        return self._rows(self.train, [0])[0]

    def _rows(self, data: Any, rows: list[int]) -> Any:
        batch = self.loader.collate_fn([data[row] for row in rows])
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise SettingError(f"the DataLoader's batch is {_described(batch)}; it must be (inputs, classes)")
        _check_classes(batch[1])
        return tree_map(lambda value: value.to(self.device) if isinstance(value, Tensor) else value, tuple(batch))

    def batch(self, order: int, step: int) -> Any:
        epoch, place = divmod(step, len(self.train) // self._batch_size)
        generator = torch.Generator().manual_seed(mixed_seed(order, epoch))
        rows = torch.randperm(len(self.train), generator=generator)
        return self._rows(self.train, rows[place * self._batch_size :][: self._batch_size].tolist())

    def loss(self, model: Callable[..., Any], batch: Any) -> Tensor:
        return self.criterion(model(batch[0]), batch[1])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        if split not in ("validation", "test"):
            raise SettingError(f"split = {split!r} is not allowed; split must be validation or test")
        data = getattr(self, split)
        loss = hits = 0.0
        with evaluating(model):
            for at in range(0, len(data), self._batch_size):
                inputs, targets = self._rows(data, list(range(at, min(at + self._batch_size, len(data)))))
                outputs = model(inputs)
                loss += float(self.criterion(outputs, targets)) * len(targets)
                hits += float((outputs.argmax(-1) == targets).sum())
        return Evaluation(loss / len(data), hits / len(data))


def _three_sets(loaders: list[DataLoader], seed: int) -> list[Any]:
    sets: list[Any] = [loader.dataset for loader in loaders]
    for data in sets:
        if isinstance(data, IterableDataset) or not hasattr(data, "__getitem__") or not len(data):
            raise SettingError(
                f"the data of a DataLoader are {_described(data)}; they must have rows that can be asked for by number"
            )
    if len(sets) == 2:
        sets[1:] = [Subset(sets[1], half.tolist()) for half in _halves(len(sets[1]), seed)]
    return sets


def _halves(rows: int, seed: int) -> tuple[Tensor, ...]:
    if rows < 2:
        raise SettingError("validation has one example; give two at least, or a test of its own")
    return torch.randperm(rows, generator=torch.Generator().manual_seed(mixed_seed(seed))).split(-(-rows // 2))


def _check_classes(targets: Any) -> None:
    if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point() or targets.is_complex():
        raise SettingError(
            f"the targets are {_described(targets)}; they must be whole numbers, a class an example. For another loss "
            "let the loaders return a Task"
        )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {', '.join(map(_described, value[:4]))}"
    return f"a {type(value).__name__}"
