"""Iterative magnitude pruning with rewinding (card 26, arXiv 1903.01611).

The survivors go back to how they were after k early steps of the dense training, not to step 0, and training goes on
with the schedule from k. Deep networks at ordinary rates have tickets at k > 0 where they have none at 0. The paper's
k: 0.1 to 7 % of training. How to choose it: raise k until accuracy or stability (``stability.py``) stops to improve;
``choose_rewind`` does that on validation. As in open_lth the optimiser's memory is fresh at k, and W_k has all of the
network, running statistics included. k = 0 is card 12's routine, bit for bit: it is the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from prunus.sparse.methods.lottery_ticket import LotteryTicket, TicketFound
from prunus.sparse.methods.result import Build
from prunus.sparse.task import Task
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe


@dataclass(frozen=True)
class IMPRewinding(LotteryTicket):
    """500 steps are the paper's for ResNet-18 (of 30 000), 100 for VGG-19 (of 112 000)."""

    rewind_to: int = 500

    card: ClassVar[MethodCard] = replace(LotteryTicket.card, name="IMP with rewinding", paper="26")


def choose_rewind(
    method: IMPRewinding,
    build: Build,
    task: Task,
    recipe: Recipe,
    steps: Sequence[int] = (0, 10, 50, 100, 500, 1000),
    *,
    slack: float = 0.001,
    seed: int = 0,
) -> tuple[int, dict[int, TicketFound]]:
    """The smallest k whose ticket's validation score is within ``slack`` of the best, and all that was tried."""
    tried = {k: replace(method, rewind_to=k).run(build, task, recipe, seed=seed) for k in steps if k < recipe.steps}
    best = max(found.levels[-1].validation.score for found in tried.values())
    return next(k for k, found in tried.items() if found.levels[-1].validation.score >= best - slack), tried
