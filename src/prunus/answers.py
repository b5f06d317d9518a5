"""Answers of solutions: which part of a text is the answer, and whether two answers are the same.

Plain numbers (32, -1,000, $5, 0.5, 1/2) are compared exactly, here. Everything else (LaTeX, expressions, sets) goes to
math-verify and sympy in a process of its own, ``answer_process.py``, which is killed when a question takes too long,
and whose memory is bounded: a text like 10^{10^{10}} never ends there. What cannot be decided within the limits is not
the same, and the next question gets a new process.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

from prunus.errors import PrunusError, require
from prunus.generators.written import Written

LONGEST = 1000  # characters of an answer; a longer one is none
START = 120.0  # seconds that the process may take to load its libraries
PATIENCE = 20  # a busy machine gives a process so much less than its time before it is given up
NEEDS = "this needs math-verify; install it with: pip install 'prunus[answers]'"

_NUMBER = r"[-+\u2212]?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?"
_MARKS = re.compile(r"\\boxed\s*\{|\\boxed\s+(?=\S)|####|\banswer\b(?:\s+is\b)?\s*[:=]?", re.IGNORECASE)
_LEADING = re.compile(rf"({_NUMBER})(?=[.,;:!]*$|[.,;:!]*\s+[A-Za-z]{{2,}}|[.,;:!]\s)")
_LAST = re.compile(rf"(?<![\w.])\(?({_NUMBER})|(\d[\d,]*(?:\.\d+)?(?:/\d+)?)")
_PLAIN = re.compile(r"([-+]?)(\d+|\d{1,3}(?:,\d{3})+)?(\.\d*)?(?:/(\d+))?")


# ---- finding ---------------------------------------------------------------------------------------------------------


def marked_answer(text: str) -> str | None:
    r"""What the last mark of a text names as its answer: ``\boxed{...}``, ``#### ...`` or ``answer ...``; or None."""
    for mark in reversed(list(_MARKS.finditer(text))):
        rest = text[mark.end() :]
        if mark[0].endswith("{"):
            found = _braced(rest)
        elif mark[0].startswith("\\"):
            found = rest[:1]
        else:
            found = _stated(rest.lstrip(" \t").split("\n", 1)[0])
        if found and (found := found.strip()) and len(found) <= LONGEST:
            return found
    return None


def final_answer(text: str) -> str | None:
    """A solution's answer: the marked one, or else its last number. None where there is neither, and for a text that
    was cut off (a ``Written`` that is not whole)."""
    if isinstance(text, Written) and not text.whole:
        return None
    if (marked := marked_answer(text)) is not None:
        return marked
    numbers = [m[1] or m[2] for m in _LAST.finditer(text)]
    return numbers[-1].rstrip(",") if numbers else None


def _braced(text: str) -> str | None:
    """What stands before the brace that closes; None if none does."""
    depth = 1
    for i, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[:i]
    return None


def _stated(line: str) -> str:
    """The answer that a line begins with: mathematics between dollars, a number before words, or all of it."""
    if inside := re.match(r"\$([^$]+)\$", line):
        return inside[1]
    if number := _LEADING.match(line):
        return number[1]
    return line.strip().rstrip(".").strip("$*")


def plain_number(answer: str) -> Fraction | None:
    """The exact value of a plain number; None of anything else."""
    text = answer.strip().replace("\u2212", "-").replace("\\$", "").replace("$", "").removesuffix(".").replace(" ", "")
    found = _PLAIN.fullmatch(text) if len(text) <= 100 else None
    if not found or not (found[2] or (found[3] or ".") != "."):
        return None
    below = int(found[4] or 1)
    value = Fraction((found[2] or "0").replace(",", "") + (found[3] or "").rstrip("."))
    return None if below == 0 else (-1 if found[1] == "-" else 1) * value / below


# ---- comparing -------------------------------------------------------------------------------------------------------


class AnswerChecker:
    """Compares answers. A question may take ``seconds`` of processor time, the process ``megabytes``.

    The process is started when first needed. Where the system has no such limits (Windows), a question is given up
    after 20 times its seconds.

    Use it as a context manager, or ``close`` it.
    """

    def __init__(self, seconds: float = 2.0, megabytes: int = 1024) -> None:
        require(seconds > 0, "seconds", seconds, "positive")
        require(megabytes >= 256, "megabytes", megabytes, "at least 256")
        self.seconds, self.megabytes = seconds, megabytes
        self.killed = 0
        """How many questions took too long, or too much."""
        self._process: subprocess.Popen[str] | None = None
        self._known: dict[tuple[str, ...], Any] = {}

    def equal(self, pairs: Sequence[tuple[str | None, str | None]]) -> list[bool]:
        """For each (right answer, answer): do they say the same? No answer equals nothing.

        Raises PrunusError that names the extra if it must be asked of math-verify and that is not installed.
        """
        return [self._equal(gold, answer) for gold, answer in pairs]

    def _equal(self, gold: str | None, answer: str | None) -> bool:
        if gold is None or answer is None:
            return False
        if gold == answer:
            return True
        values = plain_number(gold), plain_number(answer)
        if None not in values:
            return values[0] == values[1]
        return bool(self._ask("equal", gold, answer))

    def canonical(self, answers: Sequence[str | None]) -> list[str | None]:
        """One text for all ways to write an answer, so that equal ones can be counted; None where there is none."""
        return [None if a is None else self._canonical(a) for a in answers]

    def _canonical(self, answer: str) -> str | None:
        value = plain_number(answer)
        return self._ask("canonical", answer) if value is None else str(value)

    def vote(self, text: str) -> str | None:
        """What a solution votes for: its final answer, canonical."""
        return self.canonical([final_answer(text)])[0]

    # ---- the process -----------------------------------------------------------------------------------------------

    def _ask(self, what: str, *answers: str) -> Any:
        question = (what, *answers)
        if question not in self._known:
            self._known[question] = self._asked(question) if max(map(len, answers)) <= LONGEST else None
        return self._known[question]

    def _asked(self, question: tuple[str, ...]) -> Any:
        """The process's reply; None if it gave none, after which it is ended."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):  # it has died
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        reply = self._reply(self.seconds * PATIENCE)
        if reply is None:
            self.killed += 1
            self.close()
        return None if reply is None else json.loads(reply)

    def _start(self) -> None:
        if find_spec("math_verify") is None:
            raise PrunusError(f"answers that are not plain numbers cannot be compared: {NEEDS}")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prunus.answer_process", str(self.seconds), str(self.megabytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        if self._reply(START) is None:
            self.close()
            raise PrunusError(f"the process that compares answers does not start; {NEEDS}")

    def _reply(self, seconds: float) -> str | None:
        """The next line; None if none came in time or the process has ended."""
        try:
            return self._lines.get(timeout=seconds) or None
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the process; the next question starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> AnswerChecker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(stream: Any, lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")
    stream.close()
