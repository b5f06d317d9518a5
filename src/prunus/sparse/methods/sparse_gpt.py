"""SparseGPT (Frantar and Alistarh, arXiv 2301.00774): prune a trained network and move what survives, layer by layer.

A layer's weight W (outputs, features) is to give the same outputs on its calibration inputs X: minimise
||W X - W' X||^2, H = 2 X X^T + damping * mean(diag(2 X X^T)) I. Columns are done from left to right; U, upper, with
H^-1 = U^T U, holds in its row j the inverse for the columns from j on. For each block of 128 columns:

    keep by        w_ij^2 / U_jj^2                     the largest (per block over all rows; for n:m in each run of m)
    column j       e = (w_j - w'_j) / U_jj;  w_k -= e U_jk  for all k > j

which is optimal brain surgery (OBS) with only later columns to make up for the loss. Features that never occur have
their columns at zero, as in the paper's code. Defaults: damping .01, block 128 (paper); 8 batches of the task (the
paper: 128 sequences of 2048 tokens). All in float32.

From the paper's code it differs in counts: exactly ``round(density * size)`` weights of each layer stay, spread over
the blocks by their size, of equal scores the earlier; the code thresholds each block, and prunes one too many.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.errors import ModelError, require
from prunus.sparse.exact import largest, largest_in_rows
from prunus.sparse.methods.layer_by_layer import LayerByLayer
from prunus.sparse.taxonomy import MethodCard


@dataclass(frozen=True)
class SparseGPT(LayerByLayer):
    block: int = 128
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.block >= 1, "block", self.block, "at least 1 column")
        require(not self.m or self.block % self.m == 0, "block", self.block, f"a multiple of m = {self.m}")
        require(self.damping >= 0, "damping", self.damping, "at least 0")

    @property
    def taxonomy(self) -> MethodCard:
        return self._card("SparseGPT", "arXiv 2301.00774", "loss_change")

    def gather(self, x: Tensor) -> Tensor:
        return 2 * x.T @ x

    def pruned(self, weight: Tensor, among: Tensor, gathered: Tensor, name: str = "weight") -> tuple[Tensor, Tensor]:
        """``gathered`` is 2 X X^T (features, features)."""
        weight, kept, hessian = weight.clone(), torch.zeros_like(among), gathered.clone()
        silent = hessian.diagonal() == 0
        hessian.diagonal()[silent] = 1
        weight[:, silent] = 0
        upper = _inverse_factor(hessian, self.damping, name)
        starts = range(0, weight.shape[1], self.block)
        counts = self._counts(weight, among, starts)
        for start in starts:
            columns = slice(start, min(start + self.block, weight.shape[1]))
            own = upper[columns, columns]
            part, mask = weight[:, columns], among[:, columns]  # views: what is written into part is in weight
            if not self.m:
                mask = largest(part.square() / own.diagonal().square(), counts[start], mask, name)
            errors = torch.zeros_like(part)
            for j in range(part.shape[1]):
                if self.m and j % self.m == 0:
                    run = slice(j, j + self.m)
                    scores = part[:, run].square() / own.diagonal()[run].square()
                    most = mask[:, run].sum(-1).clamp(max=self.n)
                    mask = mask.clone()
                    mask[:, run] = largest_in_rows(scores, most, mask[:, run], name)
                errors[:, j] = part[:, j].masked_fill(mask[:, j], 0) / own[j, j]
                part[:, j + 1 :] -= errors[:, j, None] * own[j, j + 1 :]
                part[:, j].masked_fill_(~mask[:, j], 0)
            weight[:, columns.stop :] -= errors @ upper[columns, columns.stop :]
            kept[:, columns] = mask
        return weight, kept

    def _counts(self, weight: Tensor, among: Tensor, starts: range) -> dict[int, int]:
        """How many weights the block of columns that begins at each of ``starts`` keeps: its share of all, so rounded
        that the blocks up to any have the share of theirs."""
        able, before, counts = int(among.sum()), 0, {}
        total = min(able, round(self.density * weight.numel()))
        for start in starts:
            upto = round(total * int(among[:, : start + self.block].sum()) / max(1, able))
            counts[start], before = upto - before, upto
        return counts


def _inverse_factor(hessian: Tensor, damping: float, name: str) -> Tensor:
    """Upper U with (hessian + damping)^-1 = U^T U; ``hessian`` is used up. ModelError if there is no such U."""
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    lower, failed = torch.linalg.cholesky_ex(hessian)
    upper, failed_too = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if int(failed) or int(failed_too) or not bool(upper.isfinite().all()):
        raise ModelError(
            f"the calibration inputs of {name} do not say enough about {len(hessian)} features (their Hessian is not "
            f"positive definite); raise damping, now {damping}, or the number of calibration batches"
        )
    return upper
