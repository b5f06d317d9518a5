"""What each way to choose makes of the candidates that ``prunus solve`` has saved, at equal tokens.

    prunus solve --data gsm8k.jsonl --strategy best-of-n --n 8 --choose majority --out work/gsm8k ...
    python -m prunus.reproductions.saved_candidates --runs work/gsm8k work/svamp --reward work/probe --out work/results

Of the n samples of a problem all subsets of N are taken: a method's accuracy at N is the mean over them, which has no
bias and less noise than one draw, and so are its tokens. Ties are drawn by lot. Best-of-N and the weighted vote pay for
the reward's reading. ``--others`` are runs on the same problems, or on the first of them, that grew candidates of their
own (greedy, beams): each is compared, problem by problem, with the samples' methods at its own tokens.

Writes ``results.json``, ``results.png`` and prints the tables.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from prunus.commands.display import print_table
from prunus.commands.output import write_json
from prunus.commands.problems import Problem
from prunus.commands.solve_job import SolveJob
from prunus.errors import FileError, PrunusError
from prunus.report.curves import Curve, write_curves
from prunus.reproductions.comparison import Interval, bootstrap
from prunus.reproductions.equal_cost import Point, at_cost
from prunus.roles import Reward
from prunus.score import Score
from prunus.strategies.repeated_sampling import pass_at_k

METHODS = ("majority", "best-of-n", "weighted", "oracle")


@dataclass(frozen=True)
class Pool:
    """The samples of one problem: canonical answers, which are right, the reward's scores, and what they cost."""

    answers: Sequence[str | None]
    right: Sequence[float]
    scores: Sequence[float]
    prompt: int  # tokens of the prompt
    tokens: Sequence[int]  # tokens read of each sample
    scoring_prompt: int
    scoring: Sequence[int]  # tokens that the reward reads of each sample

    def cost(self, method: str, n: int) -> float:
        """Mean over all subsets of N. An oracle reads for nothing."""
        cost = self.prompt + n * float(np.mean(self.tokens))
        scored = method in ("best-of-n", "weighted") and n > 1
        return cost + (self.scoring_prompt + n * float(np.mean(self.scoring)) if scored else 0.0)

    def accuracy(self, method: str, n: int) -> float:
        if method == "oracle":
            return pass_at_k(len(self.right), sum(r > 0 for r in self.right), n)
        choose = self._best if method == "best-of-n" else self._voted
        weights = self.scores if method == "weighted" else [1.0] * len(self.scores)
        return float(np.mean([choose(subset, weights) for subset in combinations(range(len(self.right)), n)]))

    def _best(self, subset: Sequence[int], weights: Sequence[float]) -> float:
        top = max(self.scores[i] for i in subset)
        return float(np.mean([self.right[i] for i in subset if self.scores[i] == top]))

    def _voted(self, subset: Sequence[int], weights: Sequence[float]) -> float:
        """The mean over the answers with most votes; without an answer there is no vote, and nothing is right."""
        votes: dict[str, list[int]] = defaultdict(list)
        for i in subset:
            if (answer := self.answers[i]) is not None:
                votes[answer].append(i)
        sums = {answer: sum(weights[i] for i in several) for answer, several in votes.items()}
        top = max(sums.values(), default=0.0)
        winners = [several[0] for answer, several in votes.items() if sums[answer] >= top - 1e-9]
        return float(np.mean([self.right[i] for i in winners])) if winners else 0.0


def read_run(folder: Path) -> tuple[SolveJob, list[Problem], list[dict[str, Any]]]:
    """A run's job, its problems as far as they are solved, and their rows. Raises FileError if there are none."""
    job, _ = SolveJob.load(folder)
    rows: dict[int, dict[str, Any]] = {}
    for row in map(json.loads, (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()):
        rows[row["problem"]] = row
    solved = [rows[i] for i in takewhile(rows.__contains__, count())]
    if len(job.runs) > 1 or not solved:
        raise FileError(f"{folder} holds no rows of a single strategy; name a run of prunus solve --strategy best-of-n")
    return job, job.problems()[: len(solved)], solved


def pools(problems: Sequence[Problem], rows: Sequence[dict[str, Any]], reward: Reward) -> list[Pool]:
    from prunus.answers import AnswerChecker

    found = []
    with AnswerChecker() as checker:
        for problem, row in zip(problems, rows, strict=True):
            candidates = row["candidates"]
            texts, prompts = [c["text"] for c in candidates], [problem.prompt] * len(candidates)
            scores = [s.value if isinstance(s, Score) else s for s in reward.score(texts, prompts)]
            alone = [_read(reward, [t], problem.prompt) for t in texts]
            together = _read(reward, texts, problem.prompt) < sum(alone)
            prompt = _read(reward, [""], problem.prompt) if together else 0
            tokens = [c["tokens"] - 1 for c in candidates]  # the last one is not read
            found.append(
                Pool(
                    answers=checker.canonical([c["answer"] for c in candidates]),
                    right=[c["right"] for c in candidates],
                    scores=[0.0 if s is None else float(s) for s in scores],
                    prompt=row["tokens"] - sum(tokens),
                    tokens=tokens,
                    scoring_prompt=prompt,
                    scoring=[t - prompt for t in alone],
                )
            )
    return found


def _read(reward: Reward, texts: Sequence[str], prompt: str) -> int:
    """Tokens that the reward reads for these texts together; plain functions read none."""
    cost = reward.took(texts, [prompt] * len(texts), [0] * len(texts))
    return 0 if cost is None else cost.tokens


def points(several: Sequence[Pool], method: str) -> list[Point]:
    """The method at N = 1, 2, 4, ..., as many as there are samples."""
    most = min(len(pool.right) for pool in several)
    widths = [2**k for k in range(most.bit_length()) if 2**k <= most]
    return [
        Point(n, [pool.cost(method, n) for pool in several], [pool.accuracy(method, n) for pool in several])
        for n in widths
    ]


def studied(run: Path, others: Sequence[Path], reward: Reward) -> dict[str, Any]:
    """Tables of a data set: the methods at each N with differences to the majority at equal tokens, and the others."""
    _, problems, rows = read_run(run)
    several = pools(problems, rows, reward)
    methods = {method: points(several, method) for method in METHODS}
    table = [
        {"method": m, "n": p.width, "tokens": p.cost, "accuracy": asdict(p.accuracy), "against": _against(p, methods)}
        for m, some in methods.items()
        for p in some
    ]
    compared = []
    for folder in others:
        job, own, found = read_run(folder)
        if [p.prompt for p in own] != [p.prompt for p in problems[: len(own)]]:
            continue  # of another data set
        point = Point(None, [row["tokens"] for row in found], [row["right"] for row in found])
        same = {m: points(several[: len(own)], m) for m in METHODS}
        options = {**job.options, **{k: v for k, v in job.writing.items() if k == "temperature"}}
        name = " ".join([job.strategies[0], *(f"{k} {v}" for k, v in options.items())])
        differences = {m: _difference(point, same[m]) for m in METHODS if m != "oracle"}
        differences["all votes"] = _difference(point, same["majority"][-1:])  # at any tokens
        scoring = float(np.mean([row["scoring_tokens"] for row in found]))
        compared.append({"method": name, "problems": len(own), "tokens": point.cost, "of the reward": scoring,
                         "accuracy": asdict(point.accuracy), "against": differences})  # fmt: skip
    signals: dict[str, Callable[[Pool], Sequence[float]]] = {
        "reward": lambda pool: pool.scores,
        "votes": lambda pool: [pool.answers.count(a) if a is not None else 0 for a in pool.answers],
        "shortness": lambda pool: [-t for t in pool.tokens],
    }
    return {"run": run.name, "problems": len(problems), "samples": len(several[0].right), "reward": reward.name,
            "auroc within a problem": {name: within(several, scores) for name, scores in signals.items()},
            "table": table, "others": compared}  # fmt: skip


def _against(point: Point, methods: dict[str, list[Point]]) -> dict[str, float] | None:
    return None if point in methods["majority"] else _difference(point, methods["majority"])


def _difference(point: Point, baseline: Sequence[Point]) -> dict[str, float]:
    """Paired with the baseline at the tokens of the point; at its cheapest if all of it costs more."""
    values = at_cost(baseline, max(point.cost, min(p.cost for p in baseline)))
    assert values is not None
    return asdict(bootstrap([[a - b] for a, b in zip(point.values, values, strict=True)]))


def auroc(scores: Sequence[float], right: Sequence[float]) -> float:
    """The chance that a right sample has the higher score; a tie counts half."""
    x, y = np.array(scores), np.array(right) > 0
    return float((np.sign(x[y][:, None] - x[~y][None]).mean() + 1) / 2) if y.any() and not y.all() else float("nan")


def within(several: Sequence[Pool], scores: Callable[[Pool], Sequence[float]]) -> float:
    """AUROC among the samples of one problem, a mean over problems with both kinds: all that choosing can use."""
    values = [auroc(scores(pool), pool.right) for pool in several]
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def show(study: dict[str, Any]) -> None:
    told = ", ".join(f"{name} {value:.3f}" for name, value in study["auroc within a problem"].items())
    print(f"\n{study['run']}: {study['problems']} problems x {study['samples']}; AUROC within a problem: {told}")
    rows = [[f"{r['method']} {r['n']}", f"{r['tokens']:.0f}", _said(r["accuracy"]), _said(r["against"], "+.3f")]
            for r in study["table"]]  # fmt: skip
    print_table(["method", "tokens", "accuracy (95 %)", "- majority"], rows, plain=True)
    for other in study["others"]:
        print(
            f"{other['method']}, {other['problems']} problems: {other['tokens']:.0f} tokens, {_said(other['accuracy'])}"
        )
        print("  " + "; ".join(f"- {m}: {_said(value, '+.3f')}" for m, value in other["against"].items()))


def _said(value: dict[str, float] | None, kind: str = ".3f") -> str:
    return "-" if value is None else f"{value['mean']:{kind}} [{value['low']:{kind}}, {value['high']:{kind}}]"


def draw(path: Path, studies: Sequence[dict[str, Any]]) -> None:
    """A panel for each data set, one above the other."""
    from PIL import Image

    panels = []
    for study in studies:
        curves = []
        for method in METHODS:
            rows = [r for r in study["table"] if r["method"] == method]
            curves.append(Curve(method, [Interval(**r["accuracy"]) for r in rows], [r["tokens"] for r in rows]))
        curves += [Curve(o["method"], [Interval(**o["accuracy"])], [o["tokens"]]) for o in study["others"]]
        write_curves(
            path, curves, "accuracy", f"{study['run']}: tokens for a problem, the reward's included", bands=False
        )
        panels.append(Image.open(path).copy())
    whole = Image.new("RGB", (panels[0].width, sum(p.height for p in panels)))
    for i, panel in enumerate(panels):
        whole.paste(panel, (0, sum(p.height for p in panels[:i])))
    whole.save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m prunus.reproductions.saved_candidates", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="runs of prunus solve with best-of-n")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="other runs on the same problems")
    parser.add_argument("--reward", required=True, help="a folder or package.module:Name")
    parser.add_argument("--dtype", default="float32", help="of the reward's folder")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    from prunus.commands.models import quiet_libraries
    from prunus.commands.text_methods import text_reward

    try:
        quiet_libraries()
        reward = text_reward(args.reward, "cpu", args.dtype)
        studies = [studied(run, args.others, reward) for run in args.runs]
    except PrunusError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "results.json", studies)
    draw(args.out / "results.png", studies)
    for study in studies:
        show(study)


if __name__ == "__main__":
    main()
