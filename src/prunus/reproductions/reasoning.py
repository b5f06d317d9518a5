"""What search over text gains at equal cost: accuracy on the arithmetic world against FLOPs, the reward's included.

Every method is run at several widths: the number of candidates that grow together (best-of-n, votes, REBASE,
particles), keep x branch with at most four children each (beam, DVTS), or a quarter of the iterations (MCTS). Budgets
are what best-of-n costs at each width, which it meets exactly; the others meet them by mixtures of two widths
(``equal_cost.py``). Differences to best-of-n are paired by problem, intervals are 95 % bootstraps by problem. Votes and
the sample that the model itself finds likeliest are of best-of-n's own samples; the majority and the likeliest pay for
no reward. The judge is exact.

``--noise`` blurs the reward: so many deviations on its logits. Each (operations, method, width, noise) is a file in
``--out``; a run that was broken off goes on from those that are there.

    python -m prunus.reproductions.reasoning --split dev --operations 4,6,8 --limit 50 --out runs/reasoning
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunus import __version__, pocket
from prunus.errors import FileError, PrunusError, SettingError
from prunus.report.curves import Curve, write_curves
from prunus.reproductions.equal_cost import Point, standings
from prunus.reproductions.long_videos import write_json
from prunus.reproductions.noisy_reward import NoisyReward
from prunus.reproductions.report_split import count_run
from prunus.roles import Generator, Reward, Strategy
from prunus.search import search_many
from prunus.strategies import DVTS, REBASE, Beam, BestOfN, ParticleFilter, Vote
from prunus.strategies.mcts import MCTS
from prunus.tree import Node, Tree
from prunus.worlds import arithmetic

BASELINE = "best-of-n"
VOTES = ("majority", "weighted", "likeliest")
FREE = ("majority", "likeliest")  # of a reward
ROWS = 256  # candidates that grow together, over problems


def _branch(width: int) -> int:
    return min(4, width)


METHODS: dict[str, Callable[[int], Strategy]] = {
    BASELINE: BestOfN,
    "beam": lambda width: Beam(max(1, width // 4), _branch(width)),
    "DVTS": lambda width: DVTS(max(1, width // 4), _branch(width)),
    "REBASE": REBASE,
    "particles": ParticleFilter,
    "MCTS": lambda width: MCTS(iterations=4 * width, gate=None),  # without its gate it spends what it is given
}

Row = dict[str, Any]


def answer(text: str) -> str | None:
    """The answer of a solution; None of one that was cut off."""
    return arithmetic.answer(text) if getattr(text, "whole", True) else None


@dataclass(frozen=True)
class Likeliest(BestOfN):
    """Best-of-n by the model's own likelihood of each sample; equal ones: the first."""

    def choose(self, tree: Tree) -> Node:
        return max(tree.finished, key=lambda node: sum(n.log_probability or 0.0 for n in node.units()))


def _strategy(method: str, width: int) -> Strategy:
    if method == "likeliest":
        return Likeliest(width)
    return Vote(METHODS[BASELINE](width), method, answer=answer) if method in VOTES else METHODS[method](width)


@dataclass
class Study:
    """Problems of one number of operations, solved by one generator and judged by one reward, with files of rows."""

    generator: Generator
    reward: Reward
    prompts: Sequence[str]
    folder: Path
    about: dict[str, Any]

    def points(self, method: str, widths: Sequence[int], measure: str) -> list[Point]:
        """A method at each width; ``measure`` is the cost that counts: flops or tokens."""
        found = []
        for width in widths:
            rows = self.rows(method, width)
            found.append(Point(width, [r[measure] for r in rows], [r["right"] for r in rows]))
        return found

    def rows(self, method: str, width: int) -> list[Row]:
        """A row for each problem, from the file if that is there."""
        path = self._path(method, width)
        if not path.exists():
            self._search(BASELINE if method in VOTES else method, width)
        saved = json.loads(path.read_text())
        if saved["about"] != self._about(method, width):
            raise FileError(f"{path} is of other settings ({saved['about']}); give another --out")
        return saved["rows"]

    def _path(self, method: str, width: int) -> Path:
        return self.folder / f"{method.lower()}-{width}.json"

    def _about(self, method: str, width: int) -> dict[str, Any]:
        """What a file of rows is about, as JSON gives it back."""
        return json.loads(json.dumps({**self.about, "strategy": _strategy(method, width).spec()}))

    def _search(self, method: str, width: int) -> None:
        strategy = _strategy(method, width)
        votes = {by: _strategy(by, width) for by in VOTES} if method == BASELINE else {}
        rows: dict[str, list[Row]] = {name: [] for name in (method, *votes)}
        group = max(1, ROWS // width)
        for at in range(0, len(self.prompts), group):
            for tree in search_many(self.prompts[at : at + group], self.generator, self.reward, strategy):
                rows[method].append(self._row(tree, tree.result))
                for by, vote in votes.items():
                    rows[by].append(self._row(tree, tree.result and vote.choose(tree), free=by in FREE))
        for name, some in rows.items():
            write_json(self._path(name, width), {"about": self._about(name, width), "rows": some})
        right = sum(r["right"] for r in rows[method]) / len(self.prompts)
        print(f"{self.folder.name}: {method} {width}: {right:.3f}", file=sys.stderr, flush=True)

    def _row(self, tree: Tree, chosen: Node | None, free: bool = False) -> Row:
        """``free``: the choice needs no reward. A failed search is a wrong answer."""
        cost, scoring = tree.spent.generating if free else tree.spent.total, tree.spent.scoring
        text = self.generator.output(chosen) if chosen else ""
        right = arithmetic.judge(text, tree.prompt).value if chosen and answer(text) is not None else 0.0
        row = {"right": right, "error": "" if chosen else tree.error or "nothing finished"}
        row |= {"tokens": cost.tokens, "flops": cost.flops, "nfe": cost.nfe, "seconds": cost.seconds}
        return row | {"scoring_tokens": 0 if free else scoring.tokens, "scoring_flops": 0 if free else scoring.flops}


# ---- results ---------------------------------------------------------------------------------------------------------


def table(methods: dict[str, list[Point]], measure: str) -> list[str]:
    """Lines: each method at each budget, with the paired difference to best-of-n."""
    unit, scale = ("MFLOPs", 1e6) if measure == "flops" else ("tokens", 1)
    lines = [f"| {unit} | method | spent | accuracy (95 %) | minus {BASELINE} |", "|---|---|---|---|---|"]
    for s in standings(methods, BASELINE):
        spent = f"{s.spent / scale:.0f}"
        accuracy = f"{s.accuracy.mean:.3f} [{s.accuracy.low:.3f}, {s.accuracy.high:.3f}]"
        against = "" if s.against is None else f"{s.against.mean:+.3f} [{s.against.low:+.3f}, {s.against.high:+.3f}]"
        lines.append(f"| {s.budget / scale:.0f} | {s.method} | {spent} | {accuracy} | {against} |")
    return lines


def draw(path: Path, methods: dict[str, list[Point]], measure: str) -> None:
    scale = 1e6 if measure == "flops" else 1
    curves = []
    for name, points in methods.items():
        rising = sorted(points, key=lambda p: p.cost)
        curves.append(Curve(name, [p.accuracy for p in rising], [p.cost / scale for p in rising]))
    unit = "MFLOPs" if measure == "flops" else "tokens"
    write_curves(path, curves, "accuracy", f"{unit} for a problem, the reward's included", bands=False)


def fingerprint(folder: Path) -> str:
    """Tells one folder's weights from another's."""
    weights = b"".join(file.read_bytes() for file in sorted(folder.glob("*.safetensors")))
    return hashlib.blake2b(weights, digest_size=6).hexdigest()


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m prunus.reproductions.reasoning", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--split", choices=("dev", "report"), default="dev")
    parser.add_argument("--operations", type=_numbers(int), default=[4, 6, 8], help="with commas")
    parser.add_argument("--limit", type=int, default=50, help="problems of each number of operations")
    parser.add_argument("--widths", type=_numbers(int), default=[2, 4, 8, 16], help="with commas")
    parser.add_argument("--methods", type=_numbers(str), default=[*METHODS, *VOTES], help="with commas")
    parser.add_argument("--noise", type=_numbers(float), default=[0.0], help="deviations on logits, with commas")
    parser.add_argument("--cost", choices=("flops", "tokens"), default="flops", help="what is equal")
    parser.add_argument("--model", type=Path, help="a text model's folder (default: the packaged one)")
    parser.add_argument("--reward", required=True, help="a folder or package.module:Name")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the rows, results and pictures")
    args = parser.parse_args(arguments)
    from prunus.commands.models import quiet_libraries  # the entry point stands where the command line does
    from prunus.commands.text_methods import text_reward

    try:
        if unknown := set(args.methods) - {*METHODS, *VOTES}:
            raise SettingError(
                f"methods {', '.join(sorted(unknown))} are unknown; take {', '.join((*METHODS, *VOTES))}"
            )
        quiet_libraries()
        from prunus.generators.text import TextGenerator

        folder = args.model or pocket.path("lm")
        run(args, TextGenerator.load(folder), text_reward(args.reward, "cpu"), fingerprint(folder))
    except PrunusError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; run the same command again to go on\n")


def run(args: argparse.Namespace, generator: Generator, reward: Reward, weights: str) -> None:
    about = {"prunus": __version__, "split": args.split, "limit": args.limit, "weights": weights, "reward": reward.name}
    if args.split == "report" and not any(args.out.glob("*/*.json")):  # a run that goes on was counted
        times = count_run({**about, "model": weights}, ["reasoning"])
        print(f"This is run {times} on the report split with this version and model.")
    results = []
    for operations, sigma in ((o, s) for s in args.noise for o in args.operations):
        name = f"{operations}-operations" + (f"-noise-{sigma:g}" if sigma else "")
        noisy = NoisyReward(reward, sigma) if sigma else reward
        prompts = arithmetic.split(args.split, operations)[: args.limit]
        study = Study(generator, noisy, prompts, args.out / name, {**about, "operations": operations, "noise": sigma})
        names: Iterable[str] = dict.fromkeys([BASELINE, *args.methods])
        methods = {m: study.points(m, args.widths, args.cost) for m in names}
        noise = f", noise {sigma:g} on the reward's logits" if sigma else ""
        print(f"\n{len(prompts)} {args.split} problems with {operations} operations{noise}\n")
        print("\n".join(table(methods, args.cost)))
        draw(args.out / f"{name}.png", methods, args.cost)
        found = [asdict(s) for s in standings(methods, BASELINE)]
        results.append({**study.about, "problems": len(prompts), "cost": args.cost, "standings": found})
        write_json(args.out / "results.json", results)


if __name__ == "__main__":
    main()
