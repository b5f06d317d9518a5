"""``prunus solve``: a language model answers better by search, and methods are compared at equal tokens."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunus import __version__, pocket
from prunus.budget import Budget
from prunus.commands.display import Show, number, print_table
from prunus.commands.output import Interrupted, Output, write_json
from prunus.commands.problems import Judge, Problem, digest
from prunus.commands.solve_job import BASELINE, SolveJob
from prunus.commands.text_methods import CHOICES, fixed_settings, text_reward, text_strategy, with_pattern
from prunus.errors import FileError, PrunusError, SettingError, require
from prunus.report.curves import Curve, write_curves
from prunus.reproductions.comparison import bootstrap
from prunus.reproductions.equal_cost import Point, standings
from prunus.reproductions.report_split import count_run
from prunus.roles import Generator, Reward, Strategy
from prunus.search import Event, search_many
from prunus.tree import Node, Tree


def solve(job: SolveJob, out: Path | None, force: bool, show: Show) -> dict[str, Any]:
    """Solve the problems; returns what ``--json`` prints. Cheap checks come first, models are loaded after them."""
    sources = [name for name in ("prompt", "data", "world") if getattr(job, name) is not None]
    if len(sources) != 1:
        raise SettingError("give one of PROMPT, --data FILE and --world NAME, for example prunus solve '(7+5)*3-4=?'")
    if job.choose not in CHOICES:
        raise SettingError(f"--choose {job.choose!r} is unknown; take one of {', '.join(CHOICES)}")
    for width in job.widths:
        require(width >= 1, "--widths", width, "at least 1")
    _check_options(job)
    if job.budget is not None:
        Budget.parse(job.budget)
    problems = job.problems()
    with Output(out, force, kind="solve") as output:
        return _run(job, problems, output, show)


def resume(folder: Path, show: Show) -> dict[str, Any]:
    """Finish an interrupted run; a finished one is only read."""
    job, before = SolveJob.load(folder)
    if (folder / "result.json").exists():
        show.say(f"{folder} is finished")
        return json.loads((folder / "result.json").read_text())
    problems = job.problems()
    if digest(problems) != before:
        raise FileError(f"the problems of {folder} have changed since it was begun; start it anew")
    with Output(folder, resumed=True, kind="solve") as output:
        return _run(job, problems, output, show)


def _check_options(job: SolveJob) -> None:
    """Raise SettingError for an option that no method takes, and for settings that are not allowed."""
    taken = {name for s in job.strategies for name in fixed_settings(s, job.options)[1]}
    if unused := [f"--{name}" for name in job.options if name not in taken]:
        raise SettingError(f"{', '.join(unused)} is not an option of {', '.join(job.strategies)}")
    for strategy, width in job.runs:
        text_strategy(strategy, _options(job, strategy), width, "", "best", str)


def _options(job: SolveJob, strategy: str) -> dict[str, int]:
    """The command line's options for this strategy; in a comparison the width is what --n would say."""
    return {k: v for k, v in job.options.items() if not (job.compares and k == "n" and strategy == BASELINE)}


def _generator(job: SolveJob, show: Show) -> Generator:
    writing = with_pattern(job.writing)
    if job.server is not None:
        from prunus.generators.openai import OpenAIText

        if job.model is None:
            raise SettingError("a server needs the name of its model: --model NAME")
        if "max_batch_tokens" in writing:
            raise SettingError("--max-batch-tokens is for local models; a server makes its own batches")
        return OpenAIText(job.server, job.model, chat=bool(job.chat), **writing)
    from prunus.commands.models import quiet_libraries
    from prunus.generators.text import TextGenerator

    quiet_libraries()
    folder = job.model or str(pocket.path("lm"))
    with warnings.catch_warnings(record=True) as warned:  # shown as lines of ours, without a place in the code
        warnings.simplefilter("always", UserWarning)
        generator = TextGenerator.load(folder, device=job.device, dtype=job.dtype, chat=job.chat, **writing)
    for line in dict.fromkeys(str(w.message) for w in warned if str(w.message).startswith(generator.model.name)):
        show.say(line)
    return generator


def _reward(job: SolveJob) -> Reward:
    """The user's. Voting by majority and plain generation need none."""
    if job.reward is not None:
        return text_reward(job.reward, job.device, job.dtype)
    needless = job.choose == "majority" and set(job.strategies) <= {BASELINE, "plain"}
    if not needless and job.strategies != ["plain"]:
        raise SettingError(
            f"--strategy {','.join(job.strategies)} --choose {job.choose} needs a reward; give --reward (a folder for "
            "token or sequence classification, or package.module:Name), or take --strategy best-of-n --choose majority"
        )
    return text_reward("none", job.device)


# ---- running ---------------------------------------------------------------------------------------------------------


class Rows:
    """The finished searches of a run, a line each in ``rows.jsonl``: (strategy, width, problem) to what came of it."""

    def __init__(self, path: Path, resumed: bool) -> None:
        self.path = path
        self.rows: dict[tuple[str, int | None, int], dict[str, Any]] = {}
        if resumed and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # it was being written when the run was killed
                if not row["error"]:  # what failed is tried again
                    self.rows[row["strategy"], row["width"], row["problem"]] = row

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self.rows[row["strategy"], row["width"], row["problem"]] = dict(row)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror}") from error


def _run(job: SolveJob, problems: list[Problem], output: Output, show: Show) -> dict[str, Any]:
    began = time.perf_counter()
    reward = _reward(job)
    show.say(f"loading {job.server or job.model or pocket.path('lm')}")
    generator = _generator(job, show)
    judge = Judge(job.judged_by, job.check)
    for problem in problems:
        generator.begin(problem.prompt)  # characters that cannot be written, a prompt that is too long
    rows = Rows(output.folder / "rows.jsonl", output.claimed)
    about = {"kind": "solve", "version": __version__, "problems": digest(problems), **asdict(job)}
    specs: dict[str, Any] = {}
    try:
        for strategy, width in job.runs:
            made = text_strategy(strategy, _options(job, strategy), width, reward.name, job.choose, judge.vote)
            name = strategy if width is None else f"{strategy} {width}"
            specs[name] = made.spec()
            left = [i for i in range(len(problems)) if (strategy, width, i) not in rows.rows]
            done = len(problems) - len(left)
            with show.start(name, len(problems), reward.name, done, several=True, counts="finished"):
                for at in range(0, len(left), job.together):
                    some = left[at : at + job.together]
                    trees = _search(job, [problems[i] for i in some], generator, reward, made, output, about, show)
                    found = [_row(t, problems[i], judge, reward, generator) for t, i in zip(trees, some, strict=True)]
                    if all(row["error"] for row in found) and not rows.rows:
                        raise PrunusError(found[0]["error"])
                    output.claim(about)
                    rows.add([{"strategy": strategy, "width": width, "problem": i, **row}
                              for i, row in zip(some, found, strict=True)])  # fmt: skip
    except KeyboardInterrupt:
        saved = f"what is solved is saved. Finish it with: prunus solve --resume {output.folder}"
        raise Interrupted(f"interrupted; {saved if output.claimed else 'nothing was saved'}") from None
    finally:
        judge.checker.close()
    result = {**_result(job, problems, rows, reward, output), "settings": specs, "seconds": time.perf_counter() - began}
    if job.server is not None:
        result["usage"] = asdict(generator.usage)  # type: ignore[attr-defined]
    if job.world and job.split == "report":
        model = str(job.model or pocket.path("lm").resolve())
        result["report_run"] = count_run({"prunus": __version__, "model": model}, [f"solve {s}" for s in specs])
    write_json(output.folder / "result.json", result)
    return result


def _search(
    job: SolveJob, problems: Sequence[Problem], generator: Generator, reward: Reward, strategy: Strategy,
    output: Output, about: dict[str, Any], show: Show,
) -> list[Tree]:  # fmt: skip
    """One search for each problem; those that fail have their error."""
    loaded = output.claimed and job.single and (output.folder / "tree.json").exists()

    def on_event(event: Event) -> None:
        if job.single and event.kind in ("round", "finished"):
            output.claim(about)
            event.tree.save(output.folder)
        show(event)

    prompts: list[str | Tree] = [p.prompt for p in problems]
    if loaded:
        prompts = [Tree.load(output.folder, generator)]
    budget = Budget.parse(job.budget) if job.budget else None
    try:
        return search_many(prompts, generator, reward, strategy, budget=budget, seeds=job.seed, on_event=on_event)
    except PrunusError as error:
        if len(problems) > 1:
            raise
        if job.single:
            go_on = f". What had grown is saved; go on with: prunus solve --resume {output.folder}"
            raise PrunusError(f"{error}{go_on if output.claimed else ''}") from error
        tree = error.tree or Tree(problems[0].prompt, job.seed)
        tree.error = str(error)
        return [tree]


def _row(tree: Tree, problem: Problem, judge: Judge, reward: Reward, generator: Generator) -> dict[str, Any]:
    """What came of a search; costs are those of all of it, the reward's part beside them."""
    cost, scoring = tree.spent.total, tree.spent.scoring
    row: dict[str, Any] = {"text": None, "answer": None, "right": 0.0, "reward": None, "error": ""}
    if tree.result is None:
        row["error"] = tree.error or "no candidate was finished"
    else:
        text, scores = generator.output(tree.result), tree.result.scores
        row |= {"text": str(text), "answer": judge.answer(text), "right": judge.right(text, problem)}
        row["reward"] = scores[reward.name].value if reward.name in scores else None
    row["candidates"] = [_candidate(n, problem, judge, reward, generator) for n in tree.finished]
    spent = {"tokens": cost.tokens, "nfe": cost.nfe, "flops": cost.flops, "seconds": cost.seconds}
    return {**row, **spent, "scoring_tokens": scoring.tokens, "scoring_flops": scoring.flops}


def _candidate(node: Node, problem: Problem, judge: Judge, reward: Reward, generator: Generator) -> dict[str, Any]:
    """A finished candidate, also one that was not chosen: to train rewards on, and to choose again in other ways."""
    text, score = generator.output(node), node.scores.get(reward.name)
    return {
        "text": str(text),
        "whole": getattr(text, "whole", True),
        "answer": judge.answer(text),
        "right": judge.right(text, problem),
        "reward": score.value if score is not None else None,
        "tokens": sum(len(unit.unit.get("tokens", ())) for unit in node.units()),
        "path": list(node.path),
    }


# ---- results ---------------------------------------------------------------------------------------------------------


def _result(job: SolveJob, problems: Sequence[Problem], rows: Rows, reward: Reward, output: Output) -> dict[str, Any]:
    runs = {(s, w): [rows.rows[s, w, i] for i in range(len(problems))] for s, w in job.runs}
    known = all(row["right"] is not None for some in runs.values() for row in some)
    result: dict[str, Any] = {
        "prunus": __version__,
        "folder": str(output.folder),
        "model": job.model or str(pocket.path("lm")),
        "server": job.server,
        "reward": reward.name,
        "choose": job.choose,
        "budget": job.budget,
        "seed": job.seed,
        "problems": len(problems),
        "strategies": [_line(s, w, some, known) for (s, w), some in runs.items()],
    }
    if not job.compares:
        (some,) = runs.values()
        keys = ("text", "answer", "right", "reward", "tokens", "error")
        pairs = zip(problems, some, strict=True)
        result["answers"] = [{"prompt": p.prompt, **{k: row[k] for k in keys}} for p, row in pairs]
    elif known:
        methods: dict[str, list[Point]] = {}
        for (s, w), some in runs.items():
            methods.setdefault(s, []).append(Point(w, [r["tokens"] for r in some], [r["right"] for r in some]))
        result["equal_tokens"] = [asdict(standing) for standing in standings(methods, BASELINE)]
        _draw(output.folder / "curves.png", methods)
        result["curves"] = str(output.folder / "curves.png")
    return result


def _line(strategy: str, width: int | None, some: Sequence[Mapping[str, Any]], known: bool) -> dict[str, Any]:
    """A strategy's line of the table: means over problems; a failed search is a wrong answer."""
    line: dict[str, Any] = {"strategy": strategy, "width": width, "failed": sum(bool(r["error"]) for r in some)}
    line["accuracy"] = asdict(bootstrap([[r["right"]] for r in some])) if known else None
    means = ("tokens", "scoring_tokens", "nfe", "flops", "scoring_flops", "seconds")
    return line | {name: sum(r[name] for r in some) / len(some) for name in means}


def _draw(path: Path, methods: Mapping[str, Sequence[Point]]) -> None:
    curves = []
    for name, points in methods.items():
        rising = sorted(points, key=lambda p: p.cost)
        curves.append(Curve(name, [p.accuracy for p in rising], [p.cost for p in rising]))
    title = "tokens for a problem, the reward's included"
    write_curves(path, curves[:10], "accuracy", title, bands=len(curves) <= 4)


def print_solved(result: Mapping[str, Any], quiet: bool) -> None:
    """The answers, or the table of accuracies and costs, and where the rest is."""
    answers = result.get("answers", [])
    for answer in answers if len(answers) <= 16 else ():
        if answer["error"]:
            print(f"failed: {answer['prompt']}: {answer['error']}")
        elif len(answers) == 1:
            print(answer["text"].rstrip("\n"))
        else:
            mark = {None: "", 1.0: "  right", 0.0: "  wrong"}.get(answer["right"], f"  {answer['right']}")
            print(f"{answer['prompt']}  {answer['answer']}{mark}")
    rows = []
    for line in result["strategies"]:
        if line["failed"]:
            print(f"{line['strategy']}: {line['failed']} searches failed")
        name = line["strategy"] if line["width"] is None else f"{line['strategy']} {line['width']}"
        rows.append([name, _interval(line["accuracy"]), number(line["tokens"], 0), number(line["scoring_tokens"], 0),
                     number(line["flops"] / 1e9, 2), number(line["seconds"], 2)])  # fmt: skip
    about = "strategy" if result["problems"] == 1 else f"{result['problems']} problems"
    print_table([about, "accuracy (95 %)", "tokens", "of the reward", "GFLOPs", "seconds"], rows, plain=quiet)
    if equal := result.get("equal_tokens"):
        table = [[s["method"], number(s["budget"], 0), number(s["spent"], 0), _interval(s["accuracy"]),
                  _interval(s["against"], "+.3f")] for s in equal]  # fmt: skip
        print(f"\nAt the tokens of {BASELINE} at each width (a mixture of the two widths beside them):")
        print_table(["strategy", "tokens", "spent", "accuracy (95 %)", f"- {BASELINE}"], table, plain=quiet)
    if run := result.get("report_run"):
        print(f"This is run {run} on the report split with this version and model.")
    if result["problems"] > 1 or result.get("curves"):
        print("Costs are means over problems; a failed search counts as wrong.")
    print(result["folder"] + (": rows.jsonl, curves.png" if result.get("curves") else ": rows.jsonl"))


def _interval(value: Mapping[str, float] | None, kind: str = ".3f") -> str:
    if value is None or math.isnan(value["mean"]):
        return "-"
    return f"{value['mean']:{kind}} [{value['low']:{kind}}, {value['high']:{kind}}]"
