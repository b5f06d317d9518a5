"""The arithmetic world: integer expressions, solved one operation a line, each line of which can be checked."""

from prunus.worlds.arithmetic.expression import MOST, parse, solution
from prunus.worlds.arithmetic.judge import answer, can_be_right, judge, labels, right_steps, steps
from prunus.worlds.arithmetic.mistakes import MISTAKES, weak_solution
from prunus.worlds.arithmetic.problems import FEWEST, sample, split

__all__ = [
    "FEWEST",
    "MISTAKES",
    "MOST",
    "answer",
    "can_be_right",
    "judge",
    "labels",
    "parse",
    "right_steps",
    "sample",
    "solution",
    "split",
    "steps",
    "weak_solution",
]
