"""Solutions as a weak solver writes them: some lines are wrong as people's are, and what follows builds on them.

Kinds of mistake, with their shares where all are possible:

- ``slip``: the result is off by 1, 2, 10 or 100, or has lost or gained its sign;
- ``carry``: a carry (a borrow, in a difference) between two columns is dropped;
- ``order``: an operation is done before its turn, 2+3 in 2+3*4 or 3+1 in 9-3+1;
- ``copy``: an operand, or the answer at the end, is copied with a wrong digit or two that changed places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from prunus.errors import require
from prunus.worlds.arithmetic.expression import OPERATORS, Tree, leftmost, parse, replace

MISTAKES = {"slip": 0.3, "carry": 0.3, "order": 0.2, "copy": 0.2}


def weak_solution(prompt: str, rng: np.random.Generator, rate: float) -> str:
    """A solution each line of which is wrong with probability ``rate``. Raises PromptError, SettingError."""
    require(0 <= rate <= 1, "rate", rate, "between 0 and 1")
    tree: Any = parse(prompt)
    lines = []
    while node := leftmost(tree):
        kind = rng.choice(list(MISTAKES), p=list(MISTAKES.values())) if rng.random() < rate else ""
        early = list(_out_of_turn(tree)) if kind == "order" else []
        if early:
            node, tree = early[rng.integers(len(early))]
        operator, a, b = node
        if kind == "copy":
            a, b = (_miscopy(a, rng), b) if rng.random() < 0.5 else (a, _miscopy(b, rng))
        result = OPERATORS[operator](a, b)
        if kind == "carry" and (carries := _dropped_carries(operator, a, b)):
            result = carries[rng.integers(len(carries))]
        elif kind in ("slip", "carry") or (kind == "order" and not early):
            result = _slip(result, rng)
        lines.append(f"{a}{operator}{b}={result}")
        tree = replace(tree, node, result)
    stated = _miscopy(tree, rng) if rng.random() < rate * MISTAKES["copy"] else tree
    return "\n".join([*lines, f"answer {stated}"])


def _slip(result: int, rng: np.random.Generator) -> int:
    size = (1, 1, 2, 10, 10, 100)[rng.integers(6 if abs(result) > 99 else 5)]
    return -result if result and rng.random() < 0.15 else result + (size if rng.random() < 0.5 else -size)


def _miscopy(number: int, rng: np.random.Generator) -> int:
    """Another number of the same sign and, mostly, length."""
    digits, sign = list(str(abs(number))), -1 if number < 0 else 1
    at = int(rng.integers(len(digits)))
    if at and digits[at] != digits[at - 1] and rng.random() < 0.5:
        digits[at - 1 : at + 1] = digits[at], digits[at - 1]
    else:
        digits[at] = str((int(digits[at]) + int(rng.integers(1, 10))) % 10)
    return sign * int("".join(digits))


def _dropped_carries(operator: str, a: int, b: int) -> list[int]:
    """The results with one of the carries left out; of sums and differences of like signs, and of products."""
    result = OPERATORS[operator](a, b)
    if operator == "*":
        long, short = max(abs(a), abs(b)), min(abs(a), abs(b))
        carried = [long % 10**k * short // 10**k * 10**k for k in range(1, len(str(long)))]
    else:
        signed = b if operator == "+" else -b
        x, y = abs(a), abs(signed)
        if (a < 0) == (signed < 0):
            carried = [10**k for k in range(1, 5) if x % 10**k + y % 10**k >= 10**k]
        else:
            large, little = max(x, y), min(x, y)
            carried = [-(10**k) for k in range(1, 5) if large % 10**k < little % 10**k]
    sign = -1 if result < 0 else 1
    return [result - sign * c for c in carried if c]


def _out_of_turn(tree: Tree) -> Iterator[tuple[tuple[str, int, int], Tree]]:
    """Each operation that could be done before its turn: it, and the tree that then has it as a node."""
    if isinstance(tree, int):
        return
    operator, left, right = tree
    if operator in "+-":
        if isinstance(left, int) and isinstance(right, tuple) and right[0] == "*" and isinstance(right[1], int):
            node = (operator, left, right[1])
            yield node, ("*", node, right[2])
        if isinstance(right, int) and isinstance(left, tuple) and left[0] in "-*" and isinstance(left[2], int):
            node = (operator, left[2], right)
            yield node, (left[0], left[1], node)
    for node, new in _out_of_turn(left):
        yield node, (operator, new, right)
    for node, new in _out_of_turn(right):
        yield node, (operator, left, new)
