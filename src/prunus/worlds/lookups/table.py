"""Tables of facts, questions about them, their documents, and the exact judge."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files

from prunus.errors import PromptError, require

FIRST = "Rachel Jake Steven Jack Danny Julia Paco Paul Mary Matthew Sofia Frank Jerry Dan Marco Dave".split()
LAST = "Baker Hale Stone Reed Frost Lane Woods Marsh Cole Page Rivers Banks".split()
PEOPLE = tuple(f"{first} {last}" for first in FIRST for last in LAST)

_FACT = re.compile(r"^(\w+ \w+) reports to (\w+ \w+)\.$")
_QUESTION = re.compile(r"^Who is (\d+) levels above (\w+ \w+)\?$")


class Table:
    """Whom each person reports to: a single cycle through all of them, so that no chain comes back to its start."""

    def __init__(self, seed: int) -> None:
        order = list(PEOPLE)
        random.Random(f"lookups {seed}").shuffle(order)
        self.above = dict(zip(order, order[1:] + order[:1], strict=True))
        self.seed = seed

    def chain(self, prompt: str) -> list[str]:
        """The people that a right solution of this prompt names, from the first on. Raises PromptError."""
        hops, person = parse(prompt)
        people = [person]
        for _ in range(hops):
            people.append(self.above[people[-1]])
        return people

    def prompts(self, count: int, hops: int) -> list[str]:
        """Questions about ``count`` different people."""
        require(1 <= count <= len(PEOPLE), "count", count, f"from 1 to {len(PEOPLE)}")
        return [f"Who is {hops} levels above {p}?" for p in random.Random(f"prompts {self.seed}").sample(PEOPLE, count)]

    def documents(self, covered: float = 1.0) -> list[str]:
        """The facts, of which the share ``covered`` is written down, among real sentences that name the same people."""
        rng = random.Random(f"documents {self.seed}")
        facts = [fact(a, b) for a, b in self.above.items() if rng.random() < covered]
        documents = facts + list(self.distractors)
        rng.shuffle(documents)
        return documents

    @cached_property
    def distractors(self) -> tuple[str, ...]:
        lines = files("prunus.worlds.lookups").joinpath("distractors.txt").read_text(encoding="utf-8").splitlines()
        return tuple(line for line in lines if not line.startswith("#"))


def fact(person: str, boss: str) -> str:
    return f"{person} reports to {boss}."


def read_fact(line: str) -> tuple[str, str] | None:
    """The two people of a fact; None if the line is none."""
    found = _FACT.match(line.strip())
    return (found[1], found[2]) if found else None


def parse(prompt: str) -> tuple[int, str]:
    """Levels and person. Raises PromptError."""
    found = _QUESTION.match(prompt)
    if not found or found[2] not in PEOPLE or not 1 <= int(found[1]) < len(PEOPLE):
        raise PromptError(f"{prompt!r} is no question of this world; write: Who is 6 levels above {PEOPLE[0]}?")
    return int(found[1]), found[2]


def labels(steps: Sequence[str], prompt: str, table: Table) -> list[bool]:
    """For each step whether it and all before it are right."""
    chain = table.chain(prompt)
    right, out = True, []
    for i, step in enumerate(steps):
        right = right and i + 1 < len(chain) and read_fact(step) == (chain[i], chain[i + 1])
        out.append(right)
    return out


def answer(text: str) -> str | None:
    """The person whom the last line names; None if it is no fact."""
    lines = text.strip().splitlines()
    found = read_fact(lines[-1]) if lines else None
    return found[1] if found else None


def judge(text: str, prompt: str, table: Table) -> float:
    """1 if the answer is right, else 0."""
    return float(answer(text) == table.chain(prompt)[-1])
