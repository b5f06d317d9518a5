"""Wanda as the paper prunes (Sun et al., arXiv 2306.11695): |W_ij| ||X_j||, ranked inside each output row, layer by
layer, each layer fed by those before it as pruned. Nothing is trained or moved.

Defaults: density .5 in each row (paper); 8 batches of the task (the paper: 128 sequences of 2048 tokens). All layers
scored at once, on the dense network, is ``OneShot(importance=Wanda(), scope=InRows(), allocation=Uniform())``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prunus.sparse.exact import largest_in_rows
from prunus.sparse.importance.wanda import score, squares
from prunus.sparse.methods.layer_by_layer import LayerByLayer
from prunus.sparse.taxonomy import MethodCard


@dataclass(frozen=True)
class Wanda(LayerByLayer):
    @property
    def taxonomy(self) -> MethodCard:
        return self._card("Wanda", "arXiv 2306.11695", "sensitivity")

    def gather(self, x: Tensor) -> Tensor:
        return squares(x)

    def pruned(self, weight: Tensor, among: Tensor, gathered: Tensor, name: str = "weight") -> tuple[Tensor, Tensor]:
        """``gathered`` is ||X_j||^2, (features,)."""
        scores = score(weight, gathered)
        if self.m:
            runs, allowed = scores.reshape(-1, self.m), among.reshape(-1, self.m)
            keep = largest_in_rows(runs, allowed.sum(-1).clamp(max=self.n), allowed, name).view_as(among)
        else:
            most = max(1, round(self.density * weight.shape[1]))
            keep = largest_in_rows(scores, among.sum(-1).clamp(max=most), among, name)
        return weight * keep, keep
