"""What can be pruned: a model that a user brings, with what it is trained on, its units and how it is written.

A new kind of model is one file with one class of these members. ``kind`` names it in messages and in what is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import nn

from prunus.sparse.masks import Masks
from prunus.sparse.scope import Units
from prunus.sparse.task import Task

UNIT_KINDS = ("channels", "heads", "layers")


def speed_up(masks: Masks | None, smaller: bool) -> str:
    """What is to be had of a pruned model on which hardware, for people."""
    real = "real on any hardware: the matrices are smaller, and all libraries that read the folder gain from it"
    none = (
        "none on ordinary libraries: zeros are multiplied like other numbers. The masks are there for sparse kernels; "
        "2:4 is the format that sparse tensor cores read, its speed was not measured"
    )
    if masks is None:
        return real if smaller else "none: nothing was removed"
    return f"of what was removed, {real}; of the masks, {none}" if smaller else none


class Prunable(Protocol):
    kind: str
    """``causal-lm``, ``wan`` or ``plain``."""
    pretrained: bool
    """Whether ``build`` gives trained weights; methods that begin with dense training then take ``pretrain=0``."""

    @property
    def task(self) -> Task:
        """Training, validation and test."""

    def build(self) -> nn.Module:
        """The dense model, a new copy at each call."""

    def exclude(self) -> tuple[str, ...]:
        """Patterns of the weights that are never pruned unless a user says so: the output layer."""

    def unit_kinds(self) -> tuple[str, ...]:
        """Which of ``UNIT_KINDS`` this model has."""

    def units(self, kind: str, masks: Masks) -> Units:
        """The units of that kind, as a scope. Raises SettingError that lists what there is."""

    def remove(self, model: nn.Module, masks: Masks) -> nn.Module:
        """A really smaller copy, without the units that are wholly pruned. Its outputs are the masked model's, with the
        biases and norms of what is removed at zero.

        Raises ModelError if the result has a shape that the model's format cannot say, or if no whole unit is pruned.
        """

    def export(self, model: nn.Module, masks: Masks | None, out: Path) -> dict[str, Any]:
        """Write a folder that loads in another process: a smaller model (``masks`` None), or zeros and their masks.

        Returns facts: ``files`` (a name -> bytes), ``speed_up`` (which is real on which hardware), ``load`` (how to).
        Raises FileError if ``out`` exists or cannot be written; nothing is left of a folder that was not finished.
        """
