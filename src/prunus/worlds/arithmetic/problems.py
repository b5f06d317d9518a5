"""Problems by their number of operations, and the splits: dev and report are committed, train is everything else."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np

from prunus.errors import PromptError, require
from prunus.worlds.arithmetic.expression import LARGEST, MOST, OPERATORS, Tree, operations, parse, value, write

FEWEST = 2
BOUND = 9999  # intermediate values are at most this, in size
SMALL = 9  # one factor of each product is at most this, in size


def draw(rng: np.random.Generator, count: int) -> str:
    """A random problem of any split with ``count`` operations: mostly + in 40 %, - in 40 %, * in 20 %.

    Most numbers, four in five, have one digit, so that a problem is hard by its length rather than by its numbers. The
    smaller factor of a product is not written as 0 or 1: what came before would not matter.
    """
    require(1 <= count <= MOST, "operations", count, f"1 to {MOST}")
    return f"{write(_grow(rng, count))}=?"


def _grow(rng: np.random.Generator, count: int, small: bool = False) -> Tree:
    if count == 0:
        return int(
            rng.integers(2, SMALL + 1) if small else rng.integers(1 + (LARGEST if rng.random() < 0.2 else SMALL))
        )
    while True:
        operator = "+-*"[rng.choice(3, p=(0.4, 0.4, 0.2))]
        left = int(rng.integers(count))
        product = operator == "*"
        tree = (
            operator,
            _grow(rng, left, small=product and left == 0),
            _grow(rng, count - 1 - left, small=product and left == count - 1 > 0),
        )
        a, b = value(tree[1]), value(tree[2])
        fits = not product or min(abs(a), abs(b)) <= SMALL
        if fits and abs(OPERATORS[operator](a, b)) <= BOUND:
            return tree


def sample(rng: np.random.Generator, operations: int) -> str:
    """A random problem of the train split with so many operations."""
    while (prompt := draw(rng, operations)) in _held_out():
        pass
    return prompt


@cache
def split(name: str, operations: int | None = None) -> tuple[str, ...]:
    """Problems of a split, those with so many operations or all.

    ``dev`` has 100 and ``report`` 200 for each number of operations from 2 to 8; ``train`` a sample of 200 of the rest,
    of which ``sample`` draws any number. Raises PromptError for another name.
    """
    if name not in ("train", "dev", "report"):
        raise PromptError(f"split {name!r} is unknown; take train, dev or report")
    lines = (files(__package__) / "splits" / f"{name}.txt").read_text().splitlines()
    return tuple(p for p in lines if operations is None or _operations(p) == operations)


def _operations(prompt: str) -> int:
    return operations(parse(prompt))


@cache
def _held_out() -> frozenset[str]:
    return frozenset(split("dev") + split("report"))
