"""Expressions over + - * and parentheses as trees, and the right way to work them out.

A tree is an integer or a triple (operator, left, right). Usual precedence, left-associative. A node whose two operands
are integers can be done; such nodes do not overlap, so there is always a leftmost one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from prunus.errors import PromptError

Tree = int | tuple  # an integer, or (operator, left, right)

OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
LARGEST = 99  # of the numbers in a prompt
MOST = 8  # operations in a prompt
GRAMMAR = f"1 to {MOST} operations + - * on integers 0 to {LARGEST}, with parentheses, as in (7+5)*3-4=?"

_TOKEN = re.compile(r"\d+|[-+*()]")


def parse(prompt: str) -> Tree:
    """The tree of a prompt such as ``(7+5)*3-4=?``. Raises PromptError for anything else."""
    text = prompt.strip()
    body = text[:-2] if text.endswith("=?") else ""
    tokens = _TOKEN.findall(body)
    numbers = [t for t in tokens if t.isdigit()]
    plain = all(t == str(int(t)) and int(t) <= LARGEST for t in numbers if len(t) <= 2)
    if "".join(tokens) != body or not plain or any(len(t) > 2 for t in numbers) or not 2 <= len(numbers) <= MOST + 1:
        raise _outside(prompt)
    tree, rest = _sum(tokens, prompt)
    if rest:
        raise _outside(prompt)
    return tree


def _outside(prompt: str) -> PromptError:
    return PromptError(f"prompt {prompt!r} is outside the arithmetic grammar; it understands {GRAMMAR}")


def _sum(tokens: list[str], prompt: str) -> tuple[Tree, list[str]]:
    """A sum at the head of the tokens, and what is left of them."""
    tree, tokens = _product(tokens, prompt)
    while tokens and tokens[0] in "+-":
        right, rest = _product(tokens[1:], prompt)
        tree, tokens = (tokens[0], tree, right), rest
    return tree, tokens


def _product(tokens: list[str], prompt: str) -> tuple[Tree, list[str]]:
    tree, tokens = _atom(tokens, prompt)
    while tokens and tokens[0] == "*":
        right, rest = _atom(tokens[1:], prompt)
        tree, tokens = ("*", tree, right), rest
    return tree, tokens


def _atom(tokens: list[str], prompt: str) -> tuple[Tree, list[str]]:
    if tokens and tokens[0].isdigit():
        return int(tokens[0]), tokens[1:]
    if len(tokens) > 2 * MOST + 1 + 2 * (MOST + 1) or not tokens or tokens[0] != "(":
        raise _outside(prompt)  # more parentheses than anything in them needs
    tree, rest = _sum(tokens[1:], prompt)
    if not rest or rest[0] != ")":
        raise _outside(prompt)
    return tree, rest[1:]


def write(tree: Tree, inside: str = "", is_right: bool = False) -> str:
    """The tree as text, with no more parentheses than reading it back needs. Negative numbers stand as they are."""
    if isinstance(tree, int):
        return str(tree)
    operator, left, right = tree
    text = write(left, operator) + operator + write(right, operator, True)
    loose = operator in "+-"
    needed = (inside == "*" and (loose or is_right)) or (inside in ("+", "-") and loose and is_right)
    return f"({text})" if needed else text


def value(tree: Tree) -> int:
    if isinstance(tree, int):
        return tree
    operator, left, right = tree
    return OPERATORS[operator](value(left), value(right))


def operations(tree: Tree) -> int:
    return 0 if isinstance(tree, int) else 1 + operations(tree[1]) + operations(tree[2])


def ready(tree: Tree) -> Iterator[tuple[str, int, int]]:
    """The nodes that can be done, from the left; none of a number."""
    if isinstance(tree, int):
        return
    operator, left, right = tree
    if isinstance(left, int) and isinstance(right, int):
        yield operator, left, right
    else:
        yield from ready(left)
        yield from ready(right)


def leftmost(tree: Tree) -> tuple[str, int, int] | None:
    """The leftmost node that can be done; None for a number."""
    return next(ready(tree), None)


def replace(tree: Tree, node: tuple[str, int, int], result: int) -> Tree | None:
    """The tree with its leftmost ``node`` (operator and both integers) become ``result``; None if there is no such."""
    if isinstance(tree, int):
        return None
    if tree == node:
        return result
    operator, left, right = tree
    if (new := replace(left, node, result)) is not None:
        return operator, new, right
    if (new := replace(right, node, result)) is not None:
        return operator, left, new
    return None


def solution(prompt: str) -> str:
    """The right solution: always the leftmost operation that can be done, then the answer. No newline at the end."""
    tree: Any = parse(prompt)
    lines = []
    while node := leftmost(tree):
        operator, a, b = node
        result = OPERATORS[operator](a, b)
        lines.append(f"{a}{operator}{b}={result}")
        tree = replace(tree, node, result)
    return "\n".join([*lines, f"answer {tree}"])
