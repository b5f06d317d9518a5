"""Removing output channels for good, along torch-pruning's dependency graph: the network becomes really smaller.

A channel goes if its whole row is pruned in the masks; with it go its bias, its batch norm, what is added to it, and
the inputs that read it. That is the same as the masked network with the row's bias and norm at zero too. Shapes change,
so a state dict of the smaller network fits only a network of the same widths.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from prunus.errors import ModelError, SettingError
from prunus.sparse.masks import Masks


def remove_channels(model: nn.Module, masks: Masks, example: Any) -> nn.Module:
    """A smaller copy. Raises ModelError if a channel's group holds channels of other layers that the masks keep."""
    masks.weights(model)
    smaller = copy.deepcopy(model).eval()
    graph_of, remove = _torch_pruning()
    gone = {
        name.rpartition(".")[0]: rows
        for name, mask in masks.items()
        if (rows := (~mask.flatten(1).any(1)).nonzero().flatten().tolist())
    }
    names = {module: name for name, module in smaller.named_modules()}
    done: set[str] = set()
    for name, rows in gone.items():
        if name in done:
            continue
        module = smaller.get_submodule(name)
        if type(module) not in remove:
            raise ModelError(f"{name} is a {type(module).__name__}; channels are removed from Linear and Conv2d")
        graph = graph_of(smaller, example)
        group = graph.get_pruning_group(module, remove[type(module)], idxs=rows)
        for dependency, indices in group:
            other = names.get(dependency.target.module)
            if dependency.handler in remove.values() and other is not None:
                if gone.get(other) != sorted(indices):
                    raise ModelError(
                        f"channels of {name} and {other} are added to each other, but not the same of them are pruned; "
                        "prune both alike, or exclude one"
                    )
                done.add(other)
        if not graph.check_pruning_group(group):
            raise ModelError(
                f"removing {len(rows)} channels of {name} would leave a layer without any; keep at least one"
            )
        group.prune()
    for original, module in zip(model.modules(), smaller.modules()):
        module.training = original.training
    survivors = {
        name.rpartition(".")[0]: mask.flatten(1).any(1).nonzero().flatten().tolist() for name, mask in masks.items()
    }
    return noted(smaller, {"kept": {name: survivors[name] for name in gone}}) if gone else smaller


def coupled(model: nn.Module, layers: Sequence[str], example: Any) -> list[list[str]]:
    """The names of ``layers`` in groups, in order, of those whose outputs are added to each other: their channels can
    be removed together only. Those that cannot be (grouped convolutions), or only with others than ``layers``, are in
    none."""
    still = copy.deepcopy(model).eval()
    graph_of, remove = _torch_pruning()
    graph = graph_of(still, example)
    names = {module: name for name, module in still.named_modules()}
    groups: list[list[str]] = []
    for name in layers:
        module = still.get_submodule(name)
        if type(module) not in remove or getattr(module, "groups", 1) != 1 or any(name in group for group in groups):
            continue
        found = graph.get_pruning_group(module, remove[type(module)], idxs=[0])
        together = {names.get(d.target.module) for d, _ in found if d.handler in remove.values()}
        if together <= set(layers):
            groups.append([other for other in layers if other in together])
    return groups


def _torch_pruning() -> tuple[Callable[[nn.Module, Any], Any], dict[type, Any]]:
    """What traces the dependencies of a model, and what removes a layer's output channels."""
    try:
        import torch_pruning as tp
    except ImportError:
        raise SettingError("removing channels needs torch-pruning: pip install 'prunus[sparse]'") from None

    def graph_of(model: nn.Module, example: Any) -> Any:
        return tp.DependencyGraph().build_dependency(model, example_inputs=example)

    return graph_of, {nn.Linear: tp.prune_linear_out_channels, nn.Conv2d: tp.prune_conv_out_channels}


def noted(model: nn.Module, step: Mapping[str, Any]) -> nn.Module:
    """``model``, which now also remembers this step of how it became smaller. Copies remember it too."""
    model.removal_steps = [*removal_steps(model), dict(step)]  # type: ignore[assignment]
    return model


def removal_steps(model: nn.Module) -> list[dict[str, Any]]:
    """How ``model`` became smaller than what it was built as: ``{"kept": a layer's name -> its rows}`` for channels,
    ``{"dropped": names}`` for blocks; names and rows are those before the step."""
    return list(getattr(model, "removal_steps", []))


def redraw(model: nn.Module) -> nn.Module:
    """A copy with fresh initial weights as torch draws them for its shapes; wrap in ``networks.drawn`` for a seed.

    Raises ModelError if a module has weights of its own and no ``reset_parameters``.
    """
    fresh = copy.deepcopy(model)
    for name, module in fresh.named_modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ModelError(
                f"{name or type(module).__name__} has weights that torch cannot draw anew; give a function"
            )
    return fresh
