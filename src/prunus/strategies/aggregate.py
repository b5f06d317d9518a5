"""A candidate's value from the scores of its steps: last, min, max, product, mean or sum.

    v = f(s_1, ..., s_T)    s_t: the score of unit t, T: units so far    (test-time search basics)

A reward that reads the whole candidate may give the aggregates itself, as parts of its score (``min``, ``mean``, ...):
then v is that part. Otherwise the scores of the candidate's complete units are taken together; a unit that the reward
left unscored is passed over. min and product penalise long candidates, sum favours them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from prunus.errors import require
from prunus.roles import Strategy
from prunus.tree import Node, Tree

AGGREGATES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "max": max,
    "product": math.prod,
    "mean": statistics.fmean,
    "sum": math.fsum,
}


def aggregate(node: Node, reward: str, how: str = "last") -> float:
    """What the reward of this name says of a candidate's steps together; -inf if it did not score its last node.

    A candidate whose first unit is not complete has no step yet: its value is its score. Raises SettingError.
    """
    check(how)
    if reward not in node.scores:
        return -math.inf
    score = node.scores[reward]
    if how in score.parts:
        return score.parts[how]
    steps = [n.scores[reward].value for n in node.units() if n.boundary and reward in n.scores]
    return AGGREGATES[how](steps) if steps else score.value


def check(how: str) -> None:
    require(how in AGGREGATES, "aggregate", how, f"one of {', '.join(AGGREGATES)}")


class Stepwise(Strategy):
    """A strategy that ranks candidates by the scores of their steps; ``aggregate`` says how they are taken together."""

    aggregate: str = "last"

    def value(self, tree: Tree, node: Node) -> float:
        return aggregate(node, self.reward or tree.rewards[0], self.aggregate)

    def needs_steps(self, tree: Tree) -> bool:
        """Whether every unit must be scored for the aggregate: not for the last score, nor if it is a part already."""
        name = self.reward or tree.rewards[0]
        given = (self.aggregate in n.scores[name].parts for n in tree.nodes if name in n.scores)
        return self.aggregate != "last" and not any(given)


def unreached(tree: Tree) -> list[Node]:
    """The open nodes of earlier rounds that this round did not grow, for strategies that grow each node once."""
    return [n for n in tree.frontier if n.round < tree.round and not n.children]
