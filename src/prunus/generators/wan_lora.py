"""A LoRA for a Wan generator in its original names, as LongLive publishes one, merged weight by weight in float32:

    W <- W + alpha / rank * B A          W (out, in), B (out, rank), A (rank, in)

peft does not keep alpha in the weights' file: it is the rank unless it is given (LongLive: 256 for both). The merged
weight is rounded to W's own dtype; LongLive's own code keeps A and B apart at run time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from prunus.generators.wan_checkpoint import Checkpoint, bare, refuse, size_of

KEYS = ("generator_lora",)
FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")


@dataclass(frozen=True)
class Lora:
    """Low-rank changes of a generator's weights."""

    checkpoint: Checkpoint
    factors: dict[str, tuple[str, str]]
    """Name of the weight in the generator's checkpoint -> names of A and B in the LoRA's."""
    ranks: tuple[int, ...]
    alpha: float | None
    """None: the rank."""

    def merge(self, weights: dict[str, torch.Tensor]) -> None:
        """Replace those of the weights that the LoRA changes."""
        changed = {name: self.factors[name] for name in weights if name in self.factors}
        read = self.checkpoint.read([factor for pair in changed.values() for factor in pair])
        for name, (a, b) in changed.items():
            scale = 1.0 if self.alpha is None else self.alpha / len(read[a])
            weight = weights[name]
            merged = torch.addmm(weight.float(), read[b].float(), read[a].float(), alpha=scale)
            weights[name] = merged.to(weight.dtype)


def open_lora(path: Path, generator: Checkpoint, alpha: float | None = None) -> Lora:
    """A LoRA in peft's naming that changes ``generator``; ``alpha`` is by default the rank (LongLive: 256).

    Raises FileError or ModelError that names what is unknown, missing, doubled or of another shape.
    """
    checkpoint = Checkpoint.open(path, KEYS)
    weights = {bare(name): name for name in generator.tensors}
    factors: dict[str, dict[str, list[str]]] = {}
    unknown = list(checkpoint.strays)
    for name in checkpoint.tensors:
        match = FACTOR.fullmatch(bare(name))
        if match and f"{match[1]}.weight" in weights:
            factors.setdefault(f"{match[1]}.weight", {}).setdefault(match[2], []).append(name)
        else:
            unknown.append(name)
    sizes = checkpoint.tensors
    whole = {w: (f["A"][0], f["B"][0]) for w, f in factors.items() if len(f) == 2}
    refuse(
        f"{path} is not a LoRA of this generator",
        unknown=unknown,
        missing=[f"lora_{'B' if 'A' in f else 'A'} of {w}" for w, f in factors.items() if len(f) == 1],
        doubled=[f"{w} ({' and '.join(n)})" for w, f in factors.items() for n in f.values() if len(n) > 1],
        misshapen=[
            f"{w}: B {size_of(sizes[b])}, A {size_of(sizes[a])}, W {size_of(generator.tensors[weights[w]])}"
            for w, (a, b) in whole.items()
            if sizes[a].ndim != 2
            or sizes[b].ndim != 2
            or sizes[b].shape[1] != sizes[a].shape[0]
            or (sizes[b].shape[0], sizes[a].shape[1]) != generator.tensors[weights[w]].shape
        ],
    )
    ranks = tuple(sorted({sizes[a].shape[0] for a, _ in whole.values()}))
    return Lora(checkpoint, {weights[w]: pair for w, pair in whole.items()}, ranks, alpha)
