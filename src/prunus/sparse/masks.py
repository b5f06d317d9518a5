"""Masks: which weights of an unchanged torch model are kept.

A ``Masks`` maps a weight's name (as in ``model.named_parameters()``) to a bool tensor of its shape, **True = kept**.
It is a value: nothing changes it in place, and what prunes or regrows returns a new one. Density is the share kept,
sparsity the share removed; both count the weights in the mapping only (biases, norms and embeddings are never pruned).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunus.errors import ModelError, SettingError

if TYPE_CHECKING:
    from prunus.sparse.holding import Hold, Virtual

_NOT_PRUNED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm)


def prunable(model: nn.Module, exclude: Iterable[str] = ()) -> dict[str, nn.Parameter]:
    """The weights that may be pruned, by name: of two dimensions or more, not of (or tied to) embeddings or norms.

    ``exclude`` are shell patterns of names (``"fc3.*"``). Raises SettingError for one that names no such weight, or if
    nothing is left.
    """
    spared = {id(p) for m in model.modules() if isinstance(m, _NOT_PRUNED) for p in m.parameters(recurse=False)}
    weights = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.ndim >= 2 and "weight" in name.rpartition(".")[2] and id(weight) not in spared
    }
    for pattern in exclude:
        matched = fnmatch.filter(weights, pattern)
        if not matched:
            raise SettingError(f"exclude = {pattern!r} matches none of the prunable weights: {', '.join(weights)}")
        weights = {name: w for name, w in weights.items() if name not in matched}
    if not weights:
        raise SettingError(
            f"{type(model).__name__} has nothing to prune: no weights of linear or convolution layers "
            "are left; look at exclude, or name another model"
        )
    return weights


class Masks(Mapping[str, Tensor]):
    """A weight's name -> bool tensor of its shape, True where it is kept."""

    def __init__(self, keep: Mapping[str, Tensor]) -> None:
        for name, mask in keep.items():
            if mask.dtype != torch.bool:
                raise SettingError(f"the mask of {name} is {mask.dtype}; a mask is a bool tensor, True where kept")
        self._keep = dict(keep)

    @classmethod
    def of(cls, model: nn.Module, exclude: Iterable[str] = ()) -> Masks:
        """All prunable weights of ``model`` kept, but for those that match ``exclude``, which have no mask at all."""
        return cls({name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model, exclude).items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._keep[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keep)

    def __len__(self) -> int:
        return len(self._keep)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return list(self) == list(other) and all(torch.equal(mask, other[name]) for name, mask in self.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Masks({len(self)} weights, {self.kept} of {self.total} kept, density {self.density:.4g})"

    @property
    def kept(self) -> int:
        return sum(self.counts().values())

    @property
    def total(self) -> int:
        return sum(mask.numel() for mask in self.values())

    @property
    def density(self) -> float:
        return self.kept / self.total if self.total else 1.0

    def counts(self) -> dict[str, int]:
        """How many weights are kept, by name."""
        return {name: int(mask.sum()) for name, mask in self.items()}

    def densities(self) -> dict[str, float]:
        return {name: count / self[name].numel() for name, count in self.counts().items()}

    def changed(self, keep: Mapping[str, Tensor]) -> Masks:
        """These masks with those of ``keep`` in the place of their own; all else as it is. Shapes must agree."""
        for name, mask in keep.items():
            if name not in self or mask.shape != self[name].shape:
                shape = tuple(self[name].shape) if name in self else "no such weight"
                raise SettingError(f"the new mask of {name} is {tuple(mask.shape)}, the old one {shape}")
        return Masks({**self._keep, **keep})

    def within(self, other: Masks) -> bool:
        """Whether all that these keep is kept by ``other`` too: pruning never grows a mask."""
        return list(self) == list(other) and all(bool((other[name] | ~mask).all()) for name, mask in self.items())

    def overlap(self, other: Masks) -> float:
        """Intersection over union of what the two keep."""
        both = sum(int((mask & other[name]).sum()) for name, mask in self.items())
        either = sum(int((mask | other[name]).sum()) for name, mask in self.items())
        return both / either if either else 1.0

    def shuffled(self, seed: int) -> Masks:
        """The same count in each layer, at random places: the control that asks whether places matter."""
        generator = torch.Generator().manual_seed(seed)
        places = {n: torch.randperm(m.numel(), generator=generator).to(m.device) for n, m in self.items()}
        return Masks({n: m.flatten()[places[n]].view(m.shape) for n, m in self.items()})

    def weights(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of ``model`` that these masks are of; ModelError if one is missing or of other shape."""
        parameters = dict(model.named_parameters())
        for name, mask in self.items():
            if name not in parameters:
                raise ModelError(
                    f"the masks have {name!r}, {type(model).__name__} has no such weight; "
                    "these masks were made for another model"
                )
            if parameters[name].shape != mask.shape:
                raise ModelError(
                    f"the mask of {name} is of shape {tuple(mask.shape)}, the weight of shape "
                    f"{tuple(parameters[name].shape)}; these masks were made for another model"
                )
        return {name: parameters[name] for name in self}

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set the pruned weights of ``model`` to zero, for good. ``virtual`` keeps their values."""
        for name, weight in self.weights(model).items():
            weight.masked_fill_(~self[name].to(weight.device), 0)

    def virtual(self, model: nn.Module) -> Virtual:
        """Zero the pruned weights until ``.remove()``, or for a ``with`` block; then their exact values are back."""
        from prunus.sparse.holding import Virtual

        return Virtual(self, model)

    def hold(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Hold:
        """Keep pruned weights and their optimiser state at zero after each of its steps, until ``.remove()``."""
        from prunus.sparse.holding import Hold

        return Hold(self, model, optimiser)

    def save(self, path: str | Path, note: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file of bool tensors; ``note`` goes into its metadata. Raises FileError."""
        from prunus.sparse.mask_file import save

        save(self, Path(path), note or {})

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> Masks:
        """Read what ``save`` wrote, and check that it is of ``model`` if one is given. FileError, ModelError."""
        from prunus.sparse.mask_file import load

        masks = cls(load(Path(path)))
        if model is not None:
            masks.weights(model)
        return masks
