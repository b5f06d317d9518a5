"""The methods of ``prunus.sparse`` side by side, all with the same gradient steps, search and pre-training included.

    python benchmarks/sparse_table.py mlp --cells table.jsonl                 # unstructured, 90 to 99 % removed
    python benchmarks/sparse_table.py channels --cells table.jsonl            # structured, 30 to 75 % of MACs removed
    python benchmarks/sparse_table.py resnet --mnist FOLDER --cells table.jsonl
    python benchmarks/sparse_table.py arithmetic --cells table.jsonl          # a transformer
    python benchmarks/sparse_table.py --print --cells table.jsonl             # what is there so far, in Markdown
    python benchmarks/sparse_table.py mlp --seeds 100 101 --split validation ...   # for choosing settings

Each cell (table, share removed, arm, seed) is written to the file as it comes; a run that was killed goes on with the
cells that are missing, and a new method is one line in ``unstructured`` or ``structured``. All arms of a table train by
one recipe: SGD with Nesterov momentum, rate .1 by a cosine, weight decay 5e-4; the transformer's is Adam at 3e-3.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunus.interval import t_interval
from prunus.sparse.allocation import ERK, Global, Uniform
from prunus.sparse.data import CHARACTERS, arithmetic, digits, mnist
from prunus.sparse.importance import LAMP, SNIP, GraSP, Random, SynFlow, Taylor
from prunus.sparse.masks import Masks
from prunus.sparse.methods import (
    GMP,
    SAP,
    SET,
    BiP,
    Consensus,
    Game,
    GraNet,
    IMPRewinding,
    Jackpots,
    LayerLottery,
    LotteryTicket,
    OneShot,
    RigL,
)
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.networks import mlp, resnet, transformer
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import Units, channels
from prunus.sparse.table import SEEDS, Arm, Dense, Line, baselines, run_arms
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.training import Recipe, cosine

ROUNDS = 4
MAGNITUDE = "magnitude one-shot"


def unstructured(removed: float, steps: int) -> list[Arm]:
    """The arms at a share of the prunable weights removed; the third figure makes their steps add up to ``steps``."""
    density = 1 - removed
    rate = 1 - density ** (1 / ROUNDS)
    early = 0.05  # of each training of IMP with rewinding
    rewound = 1 / (ROUNDS + 1 - ROUNDS * early)
    trained = OneShot(density, finetune_rate=1.0)
    untrained = replace(trained, at="init")
    gradual = {"density": density, "update_every": steps // 60, "window": (0.0, 0.6)}
    return [
        *baselines(density),
        Arm("LAMP one-shot", replace(trained, importance=LAMP()), 0.5),
        Arm("Taylor one-shot", replace(trained, importance=Taylor()), 0.5),
        Arm("random ERK, at initialisation", lambda s: replace(untrained, importance=Random(s), allocation=ERK())),
        Arm("SNIP, at initialisation", replace(untrained, importance=SNIP())),
        Arm("GraSP, at initialisation", replace(untrained, importance=GraSP())),
        Arm("SynFlow, at initialisation", replace(untrained, importance=SynFlow(), rounds=100)),
        Arm("lottery ticket (12)", LotteryTicket(ROUNDS, rate, "global"), 1 / (ROUNDS + 1)),
        Arm(
            "IMP, rewound to 5 % (26)",
            IMPRewinding(ROUNDS, rate, "global", rewind_to=round(early * rewound * steps)),
            rewound,
        ),
        Arm("SAP (48)", SAP(rounds=ROUNDS, gamma=GAMMA[removed], density=density), 1 / (ROUNDS + 1)),
        Arm("GMP", GMP(**gradual)),
        Arm("GraNet (25)", GraNet(**gradual)),
        Arm("GraNet from 50 % (25)", GraNet(initial_density=0.5, **gradual)),
        Arm("RigL", RigL(density=density, update_every=steps // 60)),
        Arm("SET", SET(density=density, update_every=steps // 60)),
        Arm("BiP (22)", BiP(density), 0.5),
        Arm("lottery jackpots (42)", Jackpots(density), 0.5),
    ]


GAMMA = {0.9: 5.0, 0.95: 6.0, 0.98: 7.0, 0.99: 8.0}
"""How fast SAP prunes, so that it nears the density in the rounds it has."""
BLOCKS, REMOVABLE = {0.3: 3, 0.5: 5, 0.75: 7}, 7
"""Of nine residual blocks, how many are removed, 35, 58 and 82 % of the MACs, and how many can be."""


def inner_filters(reduce: str) -> Callable[[Masks], Units]:
    """The filters of each block's first convolution; those of the second are added to the shortcut."""
    return lambda masks: channels(masks, ["*.first.weight"], reduce)


def removed_filters(model: nn.Module, masks: Masks) -> nn.Module:
    return remove_channels(model, masks, torch.zeros(1, 1, 8, 8))


def structured(removed: float, steps: int) -> list[Arm]:
    """The arms at a share of the multiply-adds removed, on a residual network whose inner filters may go."""
    shot = RemoveUnits(inner_filters("norm"), removed_filters, macs=1 - removed)
    ranked = replace(shot, units=inner_filters("sum"), allocation=Global())
    early = replace(ranked, at="init")
    blocks = BLOCKS[removed]
    shorter = LayerLottery(blocks)
    agreed = [Arm("consensus (53)", Consensus(1 - blocks / REMOVABLE, exact=True))] if blocks < REMOVABLE else []
    return [
        Arm("dense", Dense()),
        Arm("random channels", lambda s: replace(shot, importance=Random(mixed_seed(s, 3))), 0.5),
        Arm(MAGNITUDE, shot, 0.5),
        Arm("Taylor one-shot", replace(ranked, importance=Taylor()), 0.5),
        Arm("SNIP, at initialisation", replace(early, importance=SNIP())),
        Arm("layer lottery, SNIP (10)", shorter),
        Arm("layer lottery, GraSP (10)", replace(shorter, importance=GraSP())),
        Arm("random layers", lambda s: replace(shorter, importance=Random(mixed_seed(s, 3)))),
        Arm("game (36)", Game(density=1 - removed, allocation=Uniform())),
        *agreed,
    ]


@dataclass(frozen=True)
class Table:
    title: str
    build: Callable[[], Any]
    task: Callable[[argparse.Namespace], Task]
    arms: Callable[[float, int], list[Arm]]
    removed: tuple[float, ...]
    steps: int
    of: str
    recipe: Callable[[int], Recipe] = Recipe.sgd


TABLES = {
    "mlp": Table(
        "digits, MLP 64-300-100-10",
        partial(mlp, 64, 300, 100, 10),
        lambda _: digits(),
        unstructured,
        (0.9, 0.95, 0.98, 0.99),
        1000,
        "prunable weights",
    ),
    "channels": Table(
        "digits, ResNet-20 of width 8",
        partial(resnet, 8, 3),
        lambda _: digits(flat=False),
        structured,
        (0.3, 0.5, 0.75),
        240,
        "MACs",
    ),
    "resnet": Table(
        "5 000 MNIST digits, ResNet-8 of width 8",
        partial(resnet, 8, 1),
        lambda options: mnist(options.mnist),
        unstructured,
        (0.95, 0.98),
        400,
        "prunable weights",
    ),
    "arithmetic": Table(
        "arithmetic, transformer of two layers",
        partial(transformer, len(CHARACTERS) + 1, 64),
        lambda _: arithmetic(),
        # SynFlow sends ones through the network; this one reads integers.
        lambda removed, steps: [arm for arm in unstructured(removed, steps) if "SynFlow" not in arm.name],
        (0.9,),
        600,
        "prunable weights",
        lambda steps: Recipe(steps, 3e-3, decay=cosine),
    ),
}

Key = tuple[str, float, str, int]


def key(cell: dict[str, Any]) -> Key:
    return cell["table"], cell["removed"], cell["arm"], cell["seed"]


def read(path: Path) -> dict[Key, dict[str, Any]]:
    """The cells that are there; a last line that was cut off is not one."""
    cells = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            cell = json.loads(line)
        except ValueError:
            continue
        cells[key(cell)] = cell
    return cells


def missing(name: str, table: Table, seeds: Sequence[int], cells: dict[Key, Any]) -> Iterator[tuple[float, Arm, int]]:
    """What has not been run, seed by seed, so that arms can be paired early. The dense network is run once a seed."""
    for seed in seeds:
        for removed in table.removed:
            for arm in table.arms(removed, table.steps):
                at = 0.0 if arm.name == "dense" else removed
                if (name, at, arm.name, seed) not in cells:
                    cells[name, at, arm.name, seed] = None
                    yield at, arm, seed


def run(name: str, table: Table, options: argparse.Namespace) -> None:
    task = table.task(options)
    recipe = table.recipe(table.steps)
    with options.cells.open("a+b") as file:
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            file.write(b"\n")  # after a line that was cut off
    for removed, arm, seed in missing(name, table, options.seeds, read(options.cells)):
        if options.only and not any(word in arm.name for word in options.only):
            continue
        scratch = arm.name if arm.name == MAGNITUDE and not options.no_scratch else None
        lines = run_arms([arm], table.build, task, recipe, [seed], scratch=scratch)
        # The arm whose architecture the scratch arms train is written last: it stands for all three.
        for line in reversed(lines.values()):
            cell = {"table": name, "removed": removed, "arm": line.name, "seed": seed, **line.as_dict()}
            cell.update(test=line.test[0], validation=line.validation[0])
            with options.cells.open("a") as file:
                file.write(json.dumps(cell) + "\n")
            print(f"{name} {removed} seed {seed} {line.name}: {cell['validation']:.4f}, {line.steps} steps", flush=True)


def merged(cells: Sequence[dict[str, Any]]) -> Line:
    """One line of one arm's cells."""
    line = Line(cells[0]["arm"], *([cell[split] for cell in cells] for split in ("test", "validation")))
    line.steps, line.capped = max(cell["steps"] for cell in cells), any(cell["capped"] for cell in cells)
    for figure in ("macs", "parameters", "density", "seconds"):
        setattr(line, figure, sum(cell[figure] for cell in cells) / len(cells))
    return line


def lines_at(
    name: str, removed: float, cells: dict[Key, dict[str, Any]], seeds: Sequence[int], order: Sequence[str]
) -> dict[str, Line]:
    """The arms that have all ``seeds`` at a share removed, those of ``order`` first and in that order."""
    names = dict.fromkeys([*order, *(k[2] for k in cells if k[0] == name and k[1] in (0.0, removed))])
    lines = {}
    for arm in names:
        own = [cells.get((name, 0.0 if arm == "dense" else removed, arm, seed)) for seed in seeds]
        if all(own):
            lines[arm] = merged([cell for cell in own if cell])
    return lines


def markdown(name: str, table: Table, cells: dict[Key, dict[str, Any]], seeds: Sequence[int], split: str) -> str:
    """All shares removed side by side, then a table with all figures for each."""
    first = ["dense", "random", "random channels", MAGNITUDE, "scratch-E", "scratch-B"]
    found = {removed: lines_at(name, removed, cells, seeds, first) for removed in table.removed}
    text = [f"## {table.title}: {table.of} removed; {table.steps} gradient steps, {len(seeds)} seeds, {split}", ""]
    text += [f"| arm | {' | '.join(f'{removed:.0%}' for removed in found)} |", "|---|" + "---|" * len(found)]
    for arm in dict.fromkeys(arm for lines in found.values() for arm in lines):
        cut = any(lines[arm].capped for lines in found.values() if arm in lines)
        scores = [interval(getattr(lines[arm], split)) if arm in lines else "" for lines in found.values()]
        text.append(f"| {arm}{' (cut short)' if cut else ''} | {' | '.join(scores)} |")
    for removed, lines in found.items():
        text += ["", f"### {removed:.0%} of the {table.of} removed", ""]
        text += [f"| arm | score | against {MAGNITUDE} | kept | MACs | parameters | steps | seconds |"]
        text += ["|---|---|---|---:|---:|---:|---:|---:|"]
        base = getattr(lines[MAGNITUDE], split) if MAGNITUDE in lines else None
        for arm, line in lines.items():
            own = getattr(line, split)
            gap = "" if base is None or arm == MAGNITUDE else interval([a - b for a, b in zip(own, base)], "+")
            text.append(
                f"| {arm}{' (cut short)' if line.capped else ''} | {interval(own)} | {gap} | {line.density:.1%} "
                f"| {line.macs:,.0f} | {line.parameters:,.0f} | {line.steps} | {line.seconds:.1f} |"
            )
    return "\n".join([*text, ""])


def interval(scores: Sequence[float], sign: str = "") -> str:
    """In points: the mean and its 95 % interval."""
    found = t_interval([100 * score for score in scores])
    return f"{found.mean:{sign}.1f} [{found.low:{sign}.1f}, {found.high:{sign}.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="which to run; none with --print: all")
    parser.add_argument("--cells", type=Path, default=Path("sparse_table.jsonl"), help="the file of cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="which scores are printed")
    parser.add_argument("--only", nargs="+", help="words: run the arms that have one of them in their name")
    parser.add_argument("--no-scratch", action="store_true", help="leave the scratch arms out")
    parser.add_argument("--mnist", type=Path, help="folder of the MNIST idx files")
    parser.add_argument("--print", action="store_true", help="print what is there and run nothing")
    parser.add_argument("--smoke", action="store_true", help="60 steps, one share")
    options = parser.parse_args()
    for name in options.tables or TABLES:
        table = TABLES[name]
        if options.smoke:
            table = replace(table, steps=60, removed=table.removed[:1])
        if not options.print:
            run(name, table, options)
        cells = read(options.cells)
        if any(k[0] == name for k in cells):
            print(markdown(name, table, cells, options.seeds, options.split))


if __name__ == "__main__":
    main()
