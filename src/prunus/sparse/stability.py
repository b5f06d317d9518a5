"""Stability of training (card 26): how far two trainings from the same early weights end from each other.

Distance is L2, or the angle in degrees, over the masked weights as one vector; biases and norms do not count.

to pruning      d(m * A(W_k, u), m * A(m * W_k, u)): the whole network against the sub-network, same data order u
to data order   d(A(m * W_k, u), A(m * W_k, u')): the sub-network twice, two orders

Lower = more stable. L2 is not comparable between networks or k, whose norms differ: look at the ratio to the shuffled
mask, or at angles; near 90 degrees means that the two have nothing to do with each other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunus.errors import require
from prunus.sparse.masks import Masks
from prunus.sparse.rewind import State, rewind, snapshot
from prunus.sparse.task import Task
from prunus.sparse.tickets import Ticket
from prunus.sparse.training import Recipe, train

KINDS = ("l2", "angle")


def masked_distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor], masks: Masks, kind: str = "l2") -> float:
    """L2, or the angle in degrees, between the kept weights of two states; entries that are pruned are ignored."""
    require(kind in KINDS, "kind", kind, "l2 or angle")
    x, y = (torch.cat([state[name][mask].double().flatten() for name, mask in masks.items()]) for state in (a, b))
    if kind == "l2":
        return float((x - y).norm())
    # Well conditioned near 0 and 180 degrees, where arccos of the cosine is not.
    x, y = x / x.norm(), y / y.norm()
    return math.degrees(2 * math.atan2(float((x - y).norm()), float((x + y).norm())))


@dataclass(frozen=True)
class Stability:
    """The distances of all pairs, by kind."""

    distances: Mapping[str, Sequence[float]]

    def mean(self, kind: str) -> float:
        return sum(self.distances[kind]) / len(self.distances[kind])

    def range(self, kind: str) -> tuple[float, float]:
        return min(self.distances[kind]), max(self.distances[kind])


def _end(network: nn.Module, ticket: Ticket, masked: bool, task: Task, recipe: Recipe, order: int) -> State:
    masks = ticket.masks if masked else None
    model = copy.deepcopy(network)
    rewind(model, ticket.state, masks)
    train(model, task, recipe, order=order, start=ticket.start, masks=masks)
    return snapshot(model)


def stability_to_pruning(
    network: nn.Module, ticket: Ticket, task: Task, recipe: Recipe, orders: Iterable[int] = (0, 1, 2)
) -> Stability:
    pairs = [
        (
            _end(network, ticket, False, task, recipe, order),
            _end(network, ticket, True, task, recipe, order),
        )
        for order in orders
    ]
    return Stability({kind: [masked_distance(a, b, ticket.masks, kind) for a, b in pairs] for kind in KINDS})


def stability_to_order(
    network: nn.Module, ticket: Ticket, task: Task, recipe: Recipe, pairs: Iterable[tuple[int, int]] = ((0, 1), (2, 3))
) -> Stability:
    pairs = list(pairs)
    ends = {
        order: _end(network, ticket, True, task, recipe, order)
        for order in sorted({order for pair in pairs for order in pair})
    }
    return Stability(
        {kind: [masked_distance(ends[u], ends[v], ticket.masks, kind) for u, v in pairs] for kind in KINDS}
    )
