"""Any torch model: ``package.module:build``, a function that makes it, with ``package.module:loaders`` for its data.

What is written is ``model.safetensors`` and ``pruning.json``, from which ``replay.restore`` makes the model again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunus.errors import ModelError, PrunusError, SettingError, require
from prunus.import_path import find_object
from prunus.sparse.masks import Masks, prunable
from prunus.sparse.methods.layer_lottery import drop_blocks, removable_blocks
from prunus.sparse.models.folder import sizes, write_json, written_whole
from prunus.sparse.models.model import speed_up
from prunus.sparse.models.plain_data import as_task, check
from prunus.sparse.models.replay import FORMAT, built, check_replays, shapes
from prunus.sparse.removal import coupled, removal_steps, remove_channels
from prunus.sparse.scope import Units, layers
from prunus.sparse.task import Task, evaluating


@dataclass(frozen=True, eq=False)
class Plain:
    """``pretrained``: whether ``maker`` gives trained weights. The layer that gives the outputs is never pruned."""

    maker: Callable[[], nn.Module]
    data: Task
    pretrained: bool = False
    device: str = "cpu"
    kind: str = field(default="plain", init=False)

    def __post_init__(self) -> None:
        check(self.build(), self.data)

    @classmethod
    def load(
        cls,
        build: str,
        data: Sequence[str | Path],
        *,
        pretrained: bool = False,
        seed: int = 0,
        batch_size: int = 60,
        device: str = "cpu",
    ) -> Plain:
        """``build`` and the one of ``data`` are import paths; see ``plain_data`` for what the latter gives.

        Raises SettingError and ModelError before anything is trained.
        """
        require(len(data) == 1, "data", [str(d) for d in data], "one import path, package.module:loaders")
        maker = find_object("the model", build)
        task = as_task(_loaded(find_object("the data", str(data[0])), str(data[0])), seed, batch_size, device)
        return cls(maker, task, pretrained, device)

    @property
    def task(self) -> Task:
        return self.data

    def build(self) -> nn.Module:
        return built(self.maker).to(self.device)

    def exclude(self) -> tuple[str, ...]:
        """The layer that is called last."""
        return _called_last(self.build(), self.data.example)

    def unit_kinds(self) -> tuple[str, ...]:
        return ("channels", "layers") if removable_blocks(self.build(), self.data.example) else ("channels",)

    def units(self, kind: str, masks: Masks) -> Units:
        """Channels: rows of the weights in ``masks`` but for the output layer's; layers whose outputs are added to each
        other are one group, and lose the same rows. Layers: blocks that can be taken out."""
        require(kind in self.unit_kinds(), "kind", kind, " or ".join(self.unit_kinds()))
        if kind == "layers":
            return layers(masks, removable_blocks(self.build(), self.data.example))
        last = self.exclude()
        names = [name.rpartition(".")[0] for name in masks if name not in last]
        groups = {}
        for group in coupled(self.build(), names, self.data.example):
            weights = [f"{layer}.weight".lstrip(".") for layer in group]
            groups[" + ".join(weights)] = [dict.fromkeys(weights, (row,)) for row in range(len(masks[weights[0]]))]
        if not groups:
            raise SettingError("no layer of this model has channels that can be removed; prune single weights instead")
        return Units(groups)

    def remove(self, model: nn.Module, masks: Masks) -> nn.Module:
        """Without the blocks that are wholly pruned, then without the channels that are.

        Their biases and norms go with them: the same as the masked model with these at zero too. Raises ModelError.
        """
        blocks = [
            block
            for block in removable_blocks(model, self.data.example)
            if (inside := [mask for name, mask in masks.items() if name.startswith(f"{block}.")])
            and not any(bool(mask.any()) for mask in inside)
        ]
        rest = Masks({name: m for name, m in masks.items() if not any(name.startswith(f"{b}.") for b in blocks)})
        some = any(not bool(mask.flatten(1).any(1).all()) for mask in rest.values())
        if not blocks and not some:
            raise ModelError(
                "no whole channel or block is pruned, so nothing can be removed; prune units, or save the masks, which "
                "make nothing faster"
            )
        smaller = copy.deepcopy(model)
        masks.apply(smaller)
        if some:
            smaller = remove_channels(smaller, rest, self.data.example)
        return drop_blocks(smaller, blocks) if blocks else smaller

    def export(self, model: nn.Module, masks: Masks | None, out: Path) -> dict[str, Any]:
        from safetensors.torch import save_model

        out, model = Path(out), copy.deepcopy(model).cpu()
        if masks is not None:
            masks.apply(model)
        said = {
            "format": FORMAT,
            "example": shapes(self.data.example),
            "steps": removal_steps(model),
            "speed_up": speed_up(masks, bool(removal_steps(model))),
            "load": "prunus.sparse.models.restore(build, folder)",
        }
        check_replays(self.maker, said, model)
        with written_whole(out) as draft:
            save_model(model, str(draft / "model.safetensors"))
            if masks is not None:
                masks.save(draft / "masks.safetensors", {"kind": self.kind})
            write_json(draft / "pruning.json", said)
        return {"kind": self.kind, "load": said["load"], "speed_up": said["speed_up"], "files": sizes(out)}


def _loaded(found: Any, path: str) -> Any:
    if not callable(found) or hasattr(found, "evaluate"):
        return found
    try:
        return found()
    except PrunusError:
        raise
    except Exception as error:
        raise SettingError(f"{path}() fails: {type(error).__name__}: {error}; it must need no arguments") from error


def _called_last(model: nn.Module, example: Any) -> tuple[str, ...]:
    """The weight of the prunable layer that is called last."""
    called: list[str] = []
    hooks = [
        model.get_submodule(name.rpartition(".")[0]).register_forward_hook(lambda *_, name=name: called.append(name))
        for name in prunable(model)
    ]
    with evaluating(model), torch.no_grad():
        model(example)
    for hook in hooks:
        hook.remove()
    return tuple(called[-1:])
