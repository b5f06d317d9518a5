"""Calibration layer by layer: what each layer is fed once all before it are pruned (SparseGPT, Wanda).

Layers are visited in the order in which the network calls them. Those inside one block of a chain (a ``ModuleList`` or
``Sequential`` whose members feed each other, such as a transformer's layers) are visited together. All of a group are
fed by the pruned groups before it and are themselves still dense, as in the papers' code. Blocks that are done are not
run again: their output is kept and played back, so that a chain costs each block twice, not once for each block behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

from prunus.errors import ModelError
from prunus.sparse.masks import Masks
from prunus.sparse.task import Task, evaluating

Gather = Callable[[Tensor], Tensor]
"""Input features of a layer in some batch, (rows, features) in float32 -> what is summed over the batches."""


def features(module: nn.Module, x: Tensor) -> Tensor:
    """A layer's input as float32 (rows, features): tokens are rows; of a convolution each place that the kernel sees,
    its features in the order of the flattened weight. Raises ModelError for other layers."""
    if isinstance(module, nn.Linear) or inputs_first(module):
        return x.float().flatten(0, -2)
    if isinstance(module, nn.Conv2d) and module.groups == 1 and not isinstance(module.padding, str):
        kernel, *rest = module.kernel_size, module.dilation, module.padding, module.stride
        return functional.unfold(x.float(), kernel, *rest).transpose(1, 2).flatten(0, 1)
    raise ModelError(
        f"linear layers and ungrouped 2-D convolutions can be calibrated, not {type(module).__name__}; exclude it"
    )


def inputs_first(module: nn.Module) -> bool:
    """Whether this is a linear layer whose weight is (inputs, outputs): the ``Conv1D`` of GPT-2 in transformers."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


@contextmanager
def gathered(model: nn.Module, names: list[str], gather: Gather) -> Iterator[dict[str, Tensor]]:
    """Inside the block, what passes through the layers of these weights is summed by weight's name."""
    sums: dict[str, Tensor] = {}

    def listen(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            found = gather(features(module, inputs[0]))
            sums[name] = sums[name] + found if name in sums else found

        return model.get_submodule(name.rpartition(".")[0]).register_forward_hook(hook)

    handles = [listen(name) for name in names]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layer_by_layer(
    model: nn.Module,
    masks: Masks,
    task: Task,
    batches: int,
    order: int,
    gather: Gather,
    prune: Callable[[dict[str, Tensor]], None],
) -> None:
    """For each group of layers in order: sum what ``gather`` makes of their inputs over the calibration batches, and
    let ``prune`` (a weight's name -> its sum) change them in place. ModelError for a weight that no layer is called
    with."""
    rows = [task.batch(order, step) for step in range(batches)]
    with evaluating(model):
        called, chain = _order(model, masks, lambda: task.loss(model, rows[0]))
        groups: dict[str, list[str]] = {}
        for name in called:
            groups.setdefault(next((b for b in chain if name.startswith(f"{b}.")), name), []).append(name)
        if silent := [name for name in masks if name not in called]:
            raise ModelError(f"{silent[0]} was not called as a layer of its own; exclude it from the masks")
        replay = _Replay(model, chain, len(rows))
        try:
            for group, names in groups.items():
                with gathered(model, names, gather) as sums:
                    replay.run(group, lambda batch: task.loss(model, rows[batch]), keep=False)
                prune(sums)
                if chain and group == chain[-1]:
                    replay.close()  # what comes behind the chain may read any of its blocks
                elif group in chain:
                    replay.run(group, lambda batch: task.loss(model, rows[batch]), keep=True)
        finally:
            replay.close()


class _Stop(Exception):
    """Raised behind the last block that is of interest."""


class _Replay:
    """Runs the model with the finished part of a chain replaced by what its last block gave for that batch."""

    def __init__(self, model: nn.Module, chain: list[str], batches: int) -> None:
        self._blocks = {name: model.get_submodule(name) for name in chain}
        self._outputs: list[Any] = [None] * batches
        self._own: dict[nn.Module, Any] = {}
        self._batch = 0

    def run(self, group: str, forward: Callable[[int], Any], keep: bool) -> None:
        """Every batch up to the end of the block ``group`` (or of the network, if it is no block). With ``keep`` its
        output is what is played back from now on, by it and all before it."""
        block = self._blocks.get(group)

        def stop(module: nn.Module, inputs: Any, output: Any) -> None:
            if keep:
                self._outputs[self._batch] = _copied(output)
            raise _Stop

        for batch in range(len(self._outputs)):
            self._batch = batch
            handle = block.register_forward_hook(stop) if block is not None else None
            try:
                forward(batch)
            except _Stop:
                pass
            finally:
                if handle is not None:
                    handle.remove()
        if keep:
            for name, done in self._blocks.items():
                if done not in self._own:
                    self._own[done] = done.__dict__.get("forward")
                    done.forward = lambda *_, **__: _copied(self._outputs[self._batch])
                if name == group:
                    break

    def close(self) -> None:
        """All blocks run themselves again."""
        for block, own in self._own.items():
            del block.forward
            if own is not None:
                block.forward = own
        self._own = {}


def _copied(output: Any) -> Any:
    """What follows may write into it."""
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, output)


def _order(model: nn.Module, masks: Masks, forward: Callable[[], Any]) -> tuple[list[str], list[str]]:
    """The masked weights in the order in which their layers are called, and the members of the longest chain."""
    called: list[str] = []
    calls: list[_Call] = []
    weights = {name.rpartition(".")[0]: name for name in masks}
    homes = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList | nn.Sequential)}
    members = {f"{home}.{key}".lstrip("."): home for home, m in homes.items() for key, _ in m.named_children()}

    def listen(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple, named: dict, output: Any) -> None:
            if name in weights and weights[name] not in called:
                called.append(weights[name])
            if name in members:
                calls.append(_Call(name, [*inputs, *named.values()], output))

        return hook

    def length(chain: list[str]) -> tuple[int, int]:
        """Members that hold weights; of chains as long the inner one, whose members are smaller."""
        return sum(any(n.startswith(f"{name}.") for n in masks) for name in chain), chain[0].count(".")

    handles = [
        model.get_submodule(name).register_forward_hook(listen(name), with_kwargs=True)
        for name in {**weights, **members}
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    chains = [[call for call in calls if members[call.name] == home] for home in homes]
    return called, max(([call.name for call in chain] for chain in chains if _is_chain(chain)), key=length, default=[])


@dataclass
class _Call:
    """A call of a container's member. It holds on to the tensors, so that each has an identity of its own."""

    name: str
    inputs: list[Any]
    output: Any


def _is_chain(calls: list[_Call]) -> bool:
    """Each is called once, and reads of all that the others gave just what the one before it gave, as its first."""
    given = {id(leaf) for call in calls for leaf in tree_leaves(call.output) if isinstance(leaf, Tensor)}
    fed = all((tree_leaves(a.output) or [None])[0] is b.inputs[0] for a, b in pairwise(calls) if b.inputs)
    alone = not any(id(leaf) in given for call in calls for leaf in tree_leaves(call.inputs[1:]))
    return len({call.name for call in calls}) == len(calls) > 1 and fed and alone
