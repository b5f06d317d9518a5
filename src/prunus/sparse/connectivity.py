"""Linear mode connectivity: whether two trained networks lie in one valley of the loss (card 39, arXiv 2305.18383).

On the straight line theta(t) = (1 - t) A + t B, t = 0, 1/10, ..., 1, e(t) is the error on the *training* data, batch
norms' statistics computed anew at every t (without that each path shows a barrier). With mid = (e(0) + e(1)) / 2 and t*
where e deviates most from mid,

    LMC = mid - e(t*)

a share in [-1, 1]: negative means a barrier, about 0 connected, positive that the path dips below its ends. It is the
largest *deviation*, with its sign, not the largest error: a deep dip hides a small barrier.

The published code says the same by a curve of three bends whose middle one is the midpoint. Both ends must have the
same masks, or interpolation would fill in weights that one of them has pruned.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from prunus.errors import ModelError, SettingError, require
from prunus.sparse.batch_norm import recompute_statistics
from prunus.sparse.masks import Masks, prunable
from prunus.sparse.task import Task

METRICS = ("error", "nll")


@dataclass(frozen=True)
class Connectivity:
    """``value`` is LMC; ``curve`` e(t) at ``points`` equally spaced t; ``at`` the index of t*."""

    value: float
    curve: tuple[float, ...]
    at: int


def largest_deviation(curve: Sequence[float]) -> tuple[float, int]:
    """(e(0) + e(1)) / 2 - e(t*) and the index of t*, the place of the largest deviation; of equals the first."""
    middle = (curve[0] + curve[-1]) / 2
    at = max(range(len(curve)), key=lambda i: abs(middle - curve[i]))
    return middle - curve[at], at


def lmc(
    a: nn.Module,
    b: nn.Module,
    task: Task,
    *,
    points: int = 11,
    metric: str = "error",
    masks: Masks | None = None,
    batches: int = 20,
) -> Connectivity:
    """Linear mode connectivity of two networks of one architecture, which are left as they are.

    ``metric``: ``error`` is 1 - score on the training split (for scores that are accuracies), ``nll`` the loss.
    ``masks`` are those of both ends; without them both must have zeros at the same places. ``batches`` of training data
    give the batch norms' statistics. Raises ModelError if architectures or masks differ, SettingError if the score is
    not in [0, 1] and cannot be an accuracy.
    """
    require(points >= 3, "points", points, "at least 3: both ends and one between")
    require(metric in METRICS, "metric", metric, "error or nll")
    _check_ends(a, b, masks)
    between, ends = copy.deepcopy(a), (a.state_dict(), b.state_dict())
    curve = []
    for i in range(points):
        t = i / (points - 1)
        between.load_state_dict(
            {n: torch.lerp(x, ends[1][n].to(x), t) if x.is_floating_point() else x for n, x in ends[0].items()}
        )
        recompute_statistics(between, task, batches)
        seen = task.evaluate(between, "train")
        if metric == "error" and not 0 <= seen.score <= 1:
            raise SettingError(
                f"a score of {seen.score:g} is no share of right answers; use metric = nll for this task"
            )
        curve.append(seen.loss if metric == "nll" else 1 - seen.score)
    return Connectivity(largest_deviation(curve)[0], tuple(curve), largest_deviation(curve)[1])


def _check_ends(a: nn.Module, b: nn.Module, masks: Masks | None) -> None:
    shapes = [{name: tuple(value.shape) for name, value in model.state_dict().items()} for model in (a, b)]
    if shapes[0] != shapes[1]:
        odd = next(n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n))
        raise ModelError(f"the two networks are not of one architecture: {odd!r} differs, so no line connects them")
    kept = masks or Masks({name: w.detach() != 0 for name, w in prunable(a).items()})
    others = kept.weights(b)
    for name, weight in kept.weights(a).items():
        outside = ~kept[name].to(weight.device)
        same = masks is not None or torch.equal(others[name].to(weight.device) == 0, outside)
        if not same or bool(weight[outside].any()) or bool(others[name].to(weight.device)[outside].any()):
            raise ModelError(
                f"the two networks do not share their masks: {name} has other zeros; between them pruned weights would "
                "come back. Train both with the same masks"
            )
