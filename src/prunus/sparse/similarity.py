"""How alike the outputs of two networks are: linear centred kernel alignment (CKA), as card 39 uses it.

    CKA = |Y'X|_F^2 / (|X'X|_F |Y'Y|_F),    X (n, p) and Y (n, q) with their means over the n examples taken off

It is 1 for equal outputs, up to shift, scale and rotation, and never below 0. With few examples (fewer than some 100)
it is biased upwards: ``debiased`` takes the diagonals of the Gram matrices out of each of the three products (Song et
al. 2012); that estimate may be negative. Of outputs that are the same for all examples nothing can be said: 0.

Well-trained networks have values near 1; look at 1 - CKA on a log scale.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import require
from prunus.sparse.task import evaluating

OUTPUTS = ("softmax", "logits")


def linear_cka(x: Tensor, y: Tensor, debiased: bool = False) -> float:
    """Linear CKA of features (n, p) and (n, q) of the same n examples; ``debiased`` needs n >= 4."""
    require(x.ndim == 2 and y.ndim == 2, "x, y", (tuple(x.shape), tuple(y.shape)), "of two dimensions: examples first")
    least = 4 if debiased else 2
    require(len(x) == len(y) >= least, "x, y", (len(x), len(y)), f"as many examples in both, at least {least}")
    if _constant(x) or _constant(y):
        return 0.0
    x, y = (z.double() - z.double().mean(0) for z in (x, y))
    own = _product(x, x, debiased), _product(y, y, debiased)
    return _product(x, y, debiased) / (own[0] * own[1]) ** 0.5 if min(own) > 0 else 0.0


def _constant(x: Tensor) -> bool:
    """Whether all examples have the same features, but for a millionth, which is rounding."""
    x = x.double()
    return float((x - x.mean(0)).square().sum()) <= 1e-12 * float(x.square().sum())


def _product(x: Tensor, y: Tensor, debiased: bool) -> float:
    """<XX', YY'> of centred features; without diagonals, and with the means that are left set right, if debiased."""
    n, whole = len(x), float((y.T @ x).square().sum())
    if not debiased:
        return whole
    rows_x, rows_y = x.square().sum(1), y.square().sum(1)
    sums = float(rows_x.sum() * rows_y.sum())
    return whole - n / (n - 2) * float(rows_x @ rows_y) + sums / ((n - 1) * (n - 2))


@torch.no_grad()
def output_cka(a: nn.Module, b: nn.Module, inputs: Any, on: str = "softmax", debiased: bool = False) -> float:
    """CKA between the outputs (n, ..., classes) of two networks for ``inputs`` (n, ...), a tensor, in evaluation mode.

    The paper's plots are of ``softmax``; ``logits`` too are published. All dimensions but the last count as examples.
    """
    require(on in OUTPUTS, "on", on, "softmax or logits")
    outputs = []
    for model in (a, b):
        with evaluating(model):
            found = torch.cat([model(part) for part in inputs.split(1024)])
        found = found.flatten(0, -2)
        outputs.append(found.double().softmax(-1) if on == "softmax" else found)
    return linear_cka(outputs[0], outputs[1], debiased)
