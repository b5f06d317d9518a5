"""Cut GSM8K and SVAMP into problems to report on and others to train a reward on, for ``prunus solve --data``.

A seed draws the problems. What is reported on is never trained on, nor is a problem of which most words are the same:
SVAMP tells a story several times, with other numbers and questions.

    python recipes/text/word_problems.py --gsm8k gsm8k/test.jsonl --svamp SVAMP/test.jsonl --out work/problems

Files are JSON lines (also gzipped, or one JSON list) with the fields of the publishers: GSM8K ``question`` and
``answer``, SVAMP ``Body``, ``Question`` and ``Answer``. Writes ``gsm8k-report.jsonl``, ``gsm8k-train.jsonl``,
``svamp-report.jsonl`` and ``svamp-train.jsonl``, each with ``prompt`` and ``answer``. ``few-shot.txt`` beside this file
is the template that has a model answer them in short lines.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from prunus.answers import marked_answer

ALIKE = 0.6  # share of words, of both problems', that makes them one story


def read(file: Path) -> list[dict[str, Any]]:
    text = gzip.open(file, "rt", encoding="utf-8").read() if file.suffix == ".gz" else file.read_text("utf-8")
    return json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]


def gsm8k(row: dict[str, Any]) -> tuple[str, str]:
    answer = marked_answer(row["answer"])
    assert answer is not None
    return row["question"].strip(), answer


def svamp(row: dict[str, Any]) -> tuple[str, str]:
    body, number = row["Body"].strip().rstrip("."), float(row["Answer"])
    return f"{body}. {row['Question'].strip()}", str(int(number) if number.is_integer() else number)


def words(problem: tuple[str, str]) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", problem[0].lower()))


def other_stories(problems: list[tuple[str, str]], known: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The problems that are like none of the known ones."""
    told = [words(problem) for problem in known]
    return [p for p in problems if all(len(words(p) & t) < ALIKE * len(words(p) | t) for t in told)]


def write(file: Path, problems: list[tuple[str, str]]) -> None:
    file.write_text("".join(json.dumps({"prompt": q, "answer": a}) + "\n" for q, a in problems), encoding="utf-8")
    print(f"{file}: {len(problems)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--svamp", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", type=int, default=100, help="problems of each to report on")
    parser.add_argument("--train", type=int, default=100, help="problems of each to train a reward on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, file, as_problem in (("gsm8k", args.gsm8k, gsm8k), ("svamp", args.svamp, svamp)):
        problems = list(dict.fromkeys(as_problem(row) for row in read(file)))
        drawn = [problems[i] for i in np.random.default_rng(args.seed).permutation(len(problems))]
        report, rest = drawn[: args.report], drawn[args.report :]
        write(args.out / f"{name}-report.jsonl", report)
        write(args.out / f"{name}-train.jsonl", other_stories(rest, report)[: args.train])


if __name__ == "__main__":
    main()
