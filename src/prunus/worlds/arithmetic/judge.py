"""The exact judge of the arithmetic world: every line of a solution, and its answer.

A line ``a∘b=c`` is locally right if a node of the current tree has exactly the operands a, b and the operator, and c is
its value. The leftmost such node then becomes the *claimed* c, so that a slip does not make what follows from it wrong.
A line that names no node is wrong, and so is all that follows it. ``answer n`` is right if the tree has become the
number n; it ends the solution. A step's label is whether all steps so far are right.

Numbers are written plainly: no +, no leading zeros. An empty line is a (wrong) step; a newline at the end begins none.
"""

from __future__ import annotations

import re
from itertools import accumulate
from operator import and_

from prunus.errors import require
from prunus.score import Score
from prunus.worlds.arithmetic.expression import OPERATORS, Tree, parse, ready, replace, value

_NUMBER = r"(0|-?[1-9]\d{0,17})"  # as long as any honest mistake, and quick to read
_STEP = re.compile(rf"{_NUMBER}([-+*]){_NUMBER}={_NUMBER}")
_ANSWER = re.compile(rf"answer {_NUMBER}")


def steps(text: str, lines: int = 1) -> list[str]:
    """The steps of a solution, without the newlines that end them; a step is a line, or so many ``lines``."""
    require(lines >= 1, "lines", lines, "at least 1")
    every = text.split("\n")
    if every[-1] == "":
        every.pop()
    return ["\n".join(every[at : at + lines]) for at in range(0, len(every), lines)]


def right_steps(text: str, prompt: str) -> list[bool]:
    """Whether each line is locally right. Raises PromptError."""
    tree: Tree | None = parse(prompt)
    right = []
    for line in steps(text):
        found, tree = _follow(tree, line)
        right.append(found)
    return right


def _follow(tree: Tree | None, line: str) -> tuple[bool, Tree | None]:
    """(Is this line right here?, the tree after it; None if nothing can be right any more)."""
    if tree is None:
        return False, None
    if step := _STEP.fullmatch(line):
        a, operator, b, claimed = step.groups()
        after = replace(tree, (operator, int(a), int(b)), int(claimed))
        return after is not None and int(claimed) == OPERATORS[operator](int(a), int(b)), after
    stated = _ANSWER.fullmatch(line)
    return stated is not None and tree == int(stated[1]), None


def labels(text: str, prompt: str, lines: int = 1) -> list[bool]:
    """For each step (of so many ``lines``): are it and all before it right? Raises PromptError."""
    require(lines >= 1, "lines", lines, "at least 1")
    so_far = list(accumulate(right_steps(text, prompt), and_))
    return [all(so_far[at : at + lines]) for at in range(0, len(so_far), lines)]


def can_be_right(text: str, prompt: str) -> list[bool]:
    """For each character: could a text that is the same up to and with it go on so that every step is right?

    Raises PromptError.
    """
    tree: Tree | None = parse(prompt)
    can = []
    for line in text.split("\n"):
        hopeful = [] if tree is None else [f"{right}\n" for right in _right_lines(tree)]
        for i, character in enumerate(f"{line}\n"):
            hopeful = [right for right in hopeful if right[i : i + 1] == character]
            can.append(bool(hopeful))
        tree = _follow(tree, line)[1] if hopeful else None
    return can[: len(text)]  # the last line had no newline of its own


def _right_lines(tree: Tree) -> list[str]:
    """All lines that would be right now."""
    if isinstance(tree, int):
        return [f"answer {tree}"]
    return [f"{a}{operator}{b}={OPERATORS[operator](a, b)}" for operator, a, b in ready(tree)]


def answer(text: str) -> str | None:
    """The number that the last line gives as the answer; None if it gives none."""
    last = steps(text)[-1:]
    stated = _ANSWER.fullmatch(last[0]) if last else None
    return stated[1] if stated else None


def judge(text: str, prompt: str) -> Score:
    """1 if the answer is the expression's value, else 0. Raises PromptError.

    Parts: ``steps``, the share of lines that are locally right (0 of an empty text); ``first_error``, the index of the
    first line that is wrong, from 0, and -1 if none is.
    """
    right = right_steps(text, prompt)
    return Score(
        float(answer(text) == str(value(parse(prompt)))),
        {
            "steps": sum(right) / len(right) if right else 0.0,
            "first_error": float(right.index(False)) if False in right else -1.0,
        },
    )
