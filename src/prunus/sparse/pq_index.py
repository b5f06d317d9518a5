"""PQ index (card 48, arXiv 2302.05601): how compressible a vector is, and how many of its entries must stay.

I(w) = 1 - d^(1/q - 1/p) ||w||_p / ||w||_q  with 0 < p < q and d the number of *unmasked* entries; 0 for constant |w|,
largest for a single non-zero. If what is outside the r largest entries has at most eta times their p-th power sum, then

    r >= d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p)).

With p = .5, q = 1, eta = 0 a unit may lose the share I of its weights. Counting masked zeros in d would raise I in each
round, and pruning would run away. Keep q - p at .3 or more: the exponent explodes as they meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.errors import require
from prunus.sparse.allocation import Counts


def check(p: float, q: float) -> None:
    require(0 < p < q, "p, q", (p, q), "0 < p < q; the paper's are p = 0.5, q = 1")


def pq_index(weight: Tensor, mask: Tensor | None = None, p: float = 0.5, q: float = 1.0, rows: bool = False) -> Tensor:
    """A scalar, or with ``rows`` one number for each index of the first dimension; float64, in [0, 1].

    Units without a kept weight, or whose weights are all zero, have index 0.
    """
    check(p, q)
    values = weight.detach().abs().double().flatten(1 if rows else 0)
    kept = torch.ones_like(values) if mask is None else mask.to(values).reshape(values.shape)
    count = kept.sum(-1)
    values = values / (values * kept).amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)  # scale-free

    def mean(power: float) -> Tensor:
        return ((values**power * kept).sum(-1) / count.clamp_min(1)) ** (1 / power)

    index = 1 - mean(p) / mean(q).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where((count > 0) & (mean(q) > 0), index.clamp(0, 1), torch.zeros_like(index))


def retain_bound(count: Tensor | int, index: Tensor, p: float = 0.5, q: float = 1.0, eta: float = 0.0) -> Tensor:
    """r, how many of ``count`` entries must stay at least; real numbers."""
    check(p, q)
    require(eta >= 0, "eta", eta, "at least 0")
    return torch.as_tensor(count) * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p))


def sap_counts(count: Tensor, bound: Tensor, gamma: float = 1.0, beta: float = 0.9) -> Tensor:
    """How many of ``count`` are pruned in this round: floor(d clip(gamma (1 - ceil(r)/d), 0, beta)); integers.

    r is rounded up first, as in the code; tiny units (d <= 4) can then hardly be pruned.
    """
    require(gamma > 0, "gamma", gamma, "positive")
    require(0 <= beta < 1, "beta", beta, "from 0 to below 1")
    # A hair's breadth for rounding: a bound that is a whole number must not become the next.
    ratio = gamma * (1 - (bound.double() - 1e-9).ceil() / count.double().clamp_min(1))
    return (count * ratio.clamp(0, beta) + 1e-9).floor().long()


@dataclass(frozen=True)
class PQIndex:
    """As an allocation: how much each layer, or all together (``over="global"``), keeps after one round of SAP.

    The scores must be magnitudes. ``density`` is ignored: how far pruning goes is what the index says.
    """

    p: float = 0.5
    q: float = 1.0
    eta: float = 0.0
    gamma: float = 1.0
    beta: float = 0.9
    over: str = "layer"
    floor: int = 1

    def __post_init__(self) -> None:
        check(self.p, self.q)
        require(self.eta >= 0, "eta", self.eta, "at least 0")
        require(self.gamma > 0, "gamma", self.gamma, "positive")
        require(0 <= self.beta < 1, "beta", self.beta, "from 0 to below 1")
        require(self.over in ("layer", "global"), "over", self.over, "layer or global")

    def read(self, values: Tensor, mask: Tensor, rows: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The index I, the bound r and the count to prune, of the whole tensor or of each row."""
        index = pq_index(values, mask, self.p, self.q, rows)
        count = mask.flatten(1 if rows else 0).sum(-1)
        bound = retain_bound(count, index, self.p, self.q, self.eta)
        return index, bound, sap_counts(count, bound, self.gamma, self.beta)

    def counts(self, scores: Mapping[str, Tensor], kept: Mapping[str, Tensor], density: float = 1.0) -> Counts:
        if self.over == "layer":
            return {name: int(kept[name].sum() - self.read(s, kept[name])[2]) for name, s in scores.items()}
        mask = torch.cat([kept[name].flatten() for name in scores])
        return int(mask.sum() - self.read(torch.cat([s.flatten() for s in scores.values()]), mask)[2])


def phases(indices: Sequence[float], scores: Sequence[float], drop: float = 0.01) -> list[str]:
    """Where pruning is, from one round to the next: the paper's hypothesis read off its curves (our rule, inferred).

    ``regularising`` while the index falls, ``compressing`` while it rises, ``collapsing`` once the score has fallen by
    more than ``drop`` below its best so far.
    """
    require(len(indices) == len(scores), "scores", len(scores), f"as many as indices, {len(indices)}")
    found = []
    for i in range(1, len(indices)):
        fallen = scores[i] < max(scores[: i + 1]) - drop
        found.append("collapsing" if fallen else "compressing" if indices[i] > indices[i - 1] else "regularising")
    return found
