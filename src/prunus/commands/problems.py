"""The problems that ``prunus solve`` is given, and who says whether an answer is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.answers import AnswerChecker, final_answer, marked_answer
from prunus.errors import FileError, PromptError, SettingError
from prunus.import_path import find_object
from prunus.worlds import arithmetic

WORLDS = {"arithmetic": arithmetic}


@dataclass(frozen=True)
class Problem:
    """A prompt, its right answer if that is known, and the row of the data that it comes from."""

    prompt: str
    answer: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


def read_problems(file: Path, fields: Mapping[str, str], limit: int | None = None) -> list[Problem]:
    """One JSON object a line; ``fields`` say where ``prompt`` and ``answer`` stand in it. Raises FileError."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise FileError(f"the problems in {file} cannot be read: {reason}; give a file of JSON lines") from None
    problems = []
    for number, line in enumerate(lines[:limit], 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileError(f"{file}, line {number} is not JSON ({error}); write one object a line") from None
        name = fields.get("prompt", "prompt")
        if not isinstance(row, dict) or not isinstance(row.get(name), str):
            there = f"it has {', '.join(row)}" if isinstance(row, dict) else "it is no object"
            raise FileError(f"{file}, line {number} has no text {name!r} ({there}); name it with --field prompt=NAME")
        key = fields.get("answer", "answer")
        if "answer" in fields and key not in row:
            raise FileError(f"{file}, line {number} has no {key!r} (it has {', '.join(row)})")
        answer = row.get(key)
        problems.append(Problem(row[name], None if answer is None else str(answer), row))
    if not problems:
        raise FileError(f"{file} holds no problems; write one JSON object a line")
    return problems


def world_problems(world: str, split: str, operations: int | None, limit: int | None) -> list[Problem]:
    """Problems of a world's split, the first of each difficulty. Raises SettingError or PromptError."""
    if world not in WORLDS:
        raise SettingError(f"world {world!r} is unknown; take {', '.join(WORLDS)}")
    prompts = WORLDS[world].split(split, operations)
    if not prompts:
        raise SettingError(f"--operations {operations}: the {split} split has none; take 2 to 8")
    count = min(limit or len(prompts), len(prompts))
    return [Problem(prompts[i * len(prompts) // count]) for i in range(count)]


def digest(problems: Sequence[Problem]) -> str:
    """Tells whether a file of problems is still the same."""
    said = json.dumps([[p.prompt, p.answer] for p in problems])
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


class Judge:
    """Says what a text answers, and whether that is right: by the world, the user's function, or the known answer.

    ``check`` is ``package.module:function``, called with the text and the problem's row; it returns a truth value or a
    number from 0 to 1.
    """

    def __init__(self, world: str | None, check: str | None) -> None:
        self.world = WORLDS[world] if world else None
        self.check: Callable[[str, Mapping[str, Any]], Any] | None = find_object("--check", check) if check else None
        if check and not callable(self.check):
            raise SettingError(f"--check {check!r} is not a function; it is called with the text and the row")
        self.checker = AnswerChecker()

    def answer(self, text: str) -> str | None:
        """The answer as it is written."""
        if self.world:
            return self.world.answer(text) if getattr(text, "whole", True) else None
        return final_answer(text)

    def vote(self, text: str) -> str | None:
        """The answer in the form in which equal ones are alike."""
        return self.answer(text) if self.world else self.checker.vote(text)

    def right(self, text: str, problem: Problem) -> float | None:
        """1 or 0, or what the user's function says; None if nobody knows. Raises SettingError if that fails."""
        if self.check:
            try:
                return float(self.check(text, problem.row))
            except Exception as error:  # it is the user's own code
                raise SettingError(f"--check failed with {type(error).__name__}: {error}") from error
        if self.world:
            try:
                return self.world.judge(text, problem.prompt).value if self.answer(text) is not None else 0.0
            except PromptError:
                return None
        if problem.answer is None:
            return None
        gold = marked_answer(problem.answer) or problem.answer.strip()
        return float(self.checker.equal([(gold, final_answer(text))])[0])
