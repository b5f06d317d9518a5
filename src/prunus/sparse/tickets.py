"""A lottery ticket: a mask and the early weights that it is put on, with the controls that say whether it is one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from prunus.sparse.masks import Masks
from prunus.sparse.networks import drawn
from prunus.sparse.rewind import State, redrawn_from_own_values, rewind, snapshot
from prunus.sparse.task import Evaluation, Task
from prunus.sparse.training import Recipe, Training, train


@dataclass(frozen=True, eq=False)
class Ticket:
    """``masks`` on ``state``, which is how the dense network was after ``start`` steps."""

    masks: Masks
    state: State
    start: int = 0

    def trained(
        self, network: nn.Module, task: Task, recipe: Recipe, order: int, every: int = 0
    ) -> tuple[nn.Module, Training]:
        """A copy of ``network`` set to m * W_k and trained from step k to the end, the schedule continued at k.

        Take an order other than the one that produced the mask, or part of the gain is the order used again.
        """
        model = copy.deepcopy(network)
        rewind(model, self.state, self.masks)
        done = train(model, task, recipe, order=order, start=self.start, masks=self.masks, every=every)
        return model, done

    def reinitialised(self, build: Callable[[], nn.Module], seed: int) -> Ticket:
        """Control: the same mask on fresh weights. They start at step 0, having been trained for none."""
        return replace(self, state=snapshot(drawn(build, seed)), start=0)

    def shuffled(self, seed: int) -> Ticket:
        """Control: random places, as many in each layer, on the same weights."""
        return replace(self, masks=self.masks.shuffled(seed))

    def redrawn(self, seed: int) -> Ticket:
        """Control: the same mask, with values drawn from the ticket's own."""
        return replace(self, state=redrawn_from_own_values(self.state, self.masks, seed))


@dataclass(frozen=True)
class Winning:
    """Whether a ticket wins: it stops no later and is no worse. Both are needed."""

    as_fast: bool
    as_good: bool

    def __bool__(self) -> bool:
        return self.as_fast and self.as_good


def winning(dense: tuple[Training, Evaluation], ticket: tuple[Training, Evaluation], slack: float = 0.0) -> Winning:
    """j' <= j for the early-stop step, a' >= a - ``slack`` for the score; trainings need a curve (``every``)."""
    return Winning(ticket[0].early_stop <= dense[0].early_stop, ticket[1].score >= dense[1].score - slack)
