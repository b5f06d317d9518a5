"""The process in which answers are parsed and compared by math-verify and sympy; ``answers.AnswerChecker`` starts it.

A line of JSON in, ["equal", gold, answer] or ["canonical", answer]; a line of JSON out. The system ends it when a
question takes more processor time than it may; its memory is bounded, it writes no files, and it ends with its starter.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def limit_memory(megabytes: int) -> None:
    """Bound memory and files, where the system can."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20,) * 2)


def limit_time(seconds: float) -> None:
    """Have the system end this process when it has computed for so long, whatever it is at; 0: no more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def parsed(answer: str) -> list[Any]:
    """What math-verify reads: an expression and its text, the text alone, or nothing. Without its own time limits,
    which work by signals."""
    from math_verify import parse

    return parse(f"\\boxed{{{answer}}}", parsing_timeout=None)


def canonical(answer: str) -> str:
    """Numbers as fractions, expressions simplified, other texts without case and spaces."""
    import sympy

    for form in parsed(answer):
        if isinstance(form, sympy.Expr):
            simple = sympy.simplify(sympy.nsimplify(form, rational=True))
            return str(simple) if simple.is_Rational else sympy.srepr(simple)
        if not isinstance(form, str):
            return sympy.srepr(form)
    return "".join(answer.casefold().split())


def equal(gold: str, answer: str) -> bool:
    from math_verify import verify

    if canonical(gold) == canonical(answer):
        return True
    return bool(verify(parsed(gold), parsed(answer), timeout_seconds=None))


QUESTIONS: dict[str, Callable[..., Any]] = {"equal": equal, "canonical": canonical}


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no reply
    canonical("\\frac{1}{2}")  # loads everything
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    limit_memory(megabytes)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        what, *answers = json.loads(line)
        limit_time(seconds)
        try:
            reply: Any = QUESTIONS[what](*answers)
        except (Exception, MemoryError, RecursionError):
            reply = None
        limit_time(0)
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
