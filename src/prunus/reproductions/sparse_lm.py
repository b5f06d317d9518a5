"""One-shot pruning of a language model: magnitude, Wanda and SparseGPT on the packaged one, and what the judge says.

    python -m prunus.reproductions.sparse_lm --split report --out work/sparse-lm

The model (``pocket/lm``) is pruned once, without training, at 50 %, at 70 %, and 2:4. Calibration text is right
solutions of problems of the train split, drawn anew for each seed. Beside perplexity on right solutions of the split's
problems stands what perplexity is for: the share of the problems that greedy decoding solves, by the exact judge.

Four more arms, with one draw of calibration text, ask why: magnitude ranked inside rows and Wanda ranked over a layer
(is it the ranking?), Wanda with all layers scored on the dense network (is it the order?), and SparseGPT's masks on
weights that do not move (is it the masks?). A last table removes whole units, which alone makes the model faster.
``--out`` gets a file for each arm; run the command again to go on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus import __version__, pocket
from prunus.errors import FileError, PrunusError, require
from prunus.interval import t_interval
from prunus.reproductions.comparison import bootstrap
from prunus.reproductions.report_split import count_run
from prunus.sparse import Masks, Task, importance, prune
from prunus.sparse.allocation import Uniform
from prunus.sparse.macs import macs
from prunus.sparse.methods import SparseGPT, Wanda
from prunus.sparse.models.causal_lm import CausalLM
from prunus.sparse.models.decoder import Decoder
from prunus.sparse.models.smaller_decoder import smaller
from prunus.sparse.scope import InRows, NofM, Scope, Weights
from prunus.worlds import arithmetic

OPERATIONS = range(arithmetic.FEWEST, arithmetic.MOST + 1)
CALIBRATION = 640  # problems: they fill the eight batches of eight rows
LENGTH = 512
SEEDS = (0, 1, 2, 3, 4)
TOKENS = 160

Prune = Callable[[nn.Module, Task, int], Masks]
"""(the dense model, changed in place; calibration text; seed) -> its masks."""


@dataclass(frozen=True)
class Setting:
    """How much is kept: a density of each layer, or ``n`` of each ``m``."""

    name: str
    density: float
    n: int = 0
    m: int = 0

    @property
    def amount(self) -> dict[str, Any]:
        return {"density": self.density, "n": self.n, "m": self.m}

    def scope(self, rows: bool = False) -> Scope:
        return NofM(self.n, self.m) if self.m else InRows() if rows else Weights()


SETTINGS = (Setting("50 %", 0.5), Setting("70 %", 0.3), Setting("2:4", 0.5, 2, 4))


UNITS = {
    "channels, 25 % removed": ("channels", 0.75),
    "channels, 50 % removed": ("channels", 0.5),
    "heads, 50 % removed": ("heads", 0.5),
    "layers, 1 of 6 removed": ("layers", 5 / 6),
}
"""Of which kind, and the share kept in each layer (of layers, in all)."""
RANKED: dict[str, importance.Importance] = {
    "random": importance.Random(0),
    "magnitude": importance.Magnitude(),
    "Taylor": importance.Taylor(),
}


def at_once(how: importance.Importance, setting: Setting, rows: bool, model: nn.Module, task: Task, seed: int) -> Masks:
    masks = prune(model, Masks.of(model), setting.density, how, Uniform(), setting.scope(rows), task)
    masks.apply(model)
    return masks


def whole_units(how: importance.Importance, kind: str, density: float, model: Any, task: Task, seed: int) -> Masks:
    masks = Masks.of(model)
    masks = prune(model, masks, density, how, Uniform(), Decoder.of(model).units(kind, masks), task)
    masks.apply(model)
    return masks


def layer_by_layer(method: SparseGPT | Wanda, model: nn.Module, task: Task, seed: int) -> Masks:
    return method.prune(model, Masks.of(model), task, seed)


def not_moved(method: SparseGPT, model: nn.Module, task: Task, seed: int) -> Masks:
    """The masks of SparseGPT on the dense weights."""
    dense = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    masks = method.prune(model, Masks.of(model), task, seed)
    model.load_state_dict(dense)
    masks.apply(model)
    return masks


def arms(setting: Setting) -> dict[str, tuple[Prune, bool]]:
    """By name: how it prunes, and whether it is done for every seed."""
    gpt = SparseGPT(**setting.amount)
    wanda = importance.Wanda()
    found: dict[str, tuple[Prune, bool]] = {
        "random": (lambda model, task, seed: at_once(importance.Random(seed), setting, False, model, task, seed), True),
        "magnitude": (partial(at_once, importance.Magnitude(), setting, False), False),
        "Wanda": (partial(layer_by_layer, Wanda(**setting.amount)), True),
        "SparseGPT": (partial(layer_by_layer, gpt), True),
        "Wanda, all layers at once": (partial(at_once, wanda, setting, True), False),
        "SparseGPT, not moved": (partial(not_moved, gpt), False),
    }
    if not setting.m:
        found["magnitude, in rows"] = (partial(at_once, importance.Magnitude(), setting, True), False)
        found["Wanda, over the layer"] = (partial(at_once, wanda, setting, False), False)
    return found


class Study:
    """Prunes and measures arm by arm, and keeps what was measured in files of ``folder``."""

    def __init__(self, model: Path, problems: Sequence[str], folder: Path, about: Mapping[str, Any]) -> None:
        self.model, self.problems, self.folder, self.about = model, list(problems), folder, dict(about)

    def loaded(self, seed: int) -> CausalLM:
        """The model with calibration text of that seed; the split's problems are its test."""
        rng = np.random.default_rng(seed)
        drawn = [arithmetic.sample(rng, int(rng.choice(OPERATIONS))) for _ in range(CALIBRATION)]
        with tempfile.TemporaryDirectory() as place:
            files = [Path(place) / f"{name}.jsonl" for name in ("train", "validation", "test")]
            for file, prompts in zip(files, (drawn, drawn[:8], self.problems), strict=True):
                rows = ({"prompt": f"{p}\n", "completion": arithmetic.solution(p)} for p in prompts)
                file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return CausalLM.load(self.model, files, length=LENGTH)

    def row(self, setting: str, arm: str, seed: int, how: Prune | None) -> dict[str, Any]:
        path = self.folder / f"{setting}-{arm}-{seed}.json".replace(" ", "").replace("%", "").replace(",", "-")
        if path.exists():
            saved = json.loads(path.read_text())
            if saved["about"] != self.about:
                raise FileError(f"{path} is of other settings ({saved['about']}); give another --out")
            return saved
        given = self.loaded(seed)
        model, began = given.build(), time.monotonic()
        masks = how(model, given.task, seed) if how else Masks.of(model)
        row: dict[str, Any] = {"about": self.about, "setting": setting, "arm": arm, "seed": seed}
        row |= {"density": masks.density, "macs": 1.0}
        if setting in UNITS:
            example = given.task.example
            row["macs"] = macs(smaller(model, masks), example) / macs(model, example)
        row |= {"seconds": time.monotonic() - began, "loss": given.task.evaluate(model, "test").loss}
        row["right"] = [float(r) for r in greedy(model, given.tokenizer, self.problems)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(json.dumps(row) + "\n")
        path.with_suffix(".tmp").replace(path)
        right = float(np.mean(row["right"]))
        print(f"{setting} {arm} {seed}: {math.exp(row['loss']):.4f}, {right:.3f}", file=sys.stderr, flush=True)
        return row


@torch.no_grad()
def greedy(model: Any, tokenizer: Any, problems: Sequence[str], rows: int = 128) -> Iterator[float]:
    """The judge's word on the likeliest continuation of each problem."""
    model.eval()
    for at in range(0, len(problems), rows):
        some = problems[at : at + rows]
        inputs = tokenizer([f"{p}\n" for p in some], padding=True, return_tensors="pt", padding_side="left")
        out = model.generate(**inputs, do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=TOKENS)
        texts = tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        yield from (arithmetic.judge(text, p).value for text, p in zip(texts, some, strict=True))


def table(setting: str, found: Mapping[str, list[dict[str, Any]]], baseline: str = "magnitude") -> str:
    """A line an arm: perplexity with Student's interval over seeds; accuracy and its difference to the baseline with
    bootstrap intervals by problem."""
    lines = [
        f"**{setting}**\n",
        "| arm | density | perplexity | solved | minus magnitude |",
        "|---|---|---|---|---|",
    ]
    base = np.mean([row["right"] for row in found[baseline]], axis=0)
    for name, rows in found.items():
        perplexities = [math.exp(row["loss"]) for row in rows]
        shown = f"{np.mean(perplexities):.4g}"
        if len(rows) > 1:
            interval = t_interval(perplexities)
            shown = f"{interval.mean:.4g} ± {interval.high - interval.mean:.2g}"
        right = np.mean([row["right"] for row in rows], axis=0)
        solved = bootstrap([[r] for r in right.tolist()])
        gap = bootstrap([[r] for r in (right - base).tolist()])
        star = "*" if gap.low > 0 or gap.high < 0 else ""
        against = "" if name == baseline else f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]{star}"
        accuracy = f"{solved.mean:.3f} [{solved.low:.3f}, {solved.high:.3f}]"
        lines.append(f"| {name} | {rows[0]['density']:.3f} | {shown} | {accuracy} | {against} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m prunus.reproductions.sparse_lm", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--split", choices=("dev", "report"), default="dev")
    parser.add_argument("--limit", type=int, default=40, help="problems of each number of operations")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="draws of calibration text")
    parser.add_argument("--model", type=Path, default=pocket.path("lm"))
    parser.add_argument("--out", type=Path, required=True, help="the folder of the arms")
    args = parser.parse_args(arguments)
    from prunus.commands.models import quiet_libraries  # the entry point stands where the command line does

    quiet_libraries("transformers")
    try:
        print(run(args))
    except PrunusError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; run the same command again to go on\n")


def run(args: argparse.Namespace) -> str:
    require(args.limit >= 1, "--limit", args.limit, "at least 1")
    require(args.seeds >= 1, "--seeds", args.seeds, "at least 1")
    problems = [p for k in OPERATIONS for p in arithmetic.split(args.split, k)[: args.limit]]
    about = {"prunus": __version__, "split": args.split, "problems": len(problems), "model": str(args.model.name)}
    if args.split == "report" and not any(args.out.glob("*.json")):  # a run that goes on was counted
        times = count_run(about, ["sparse language model"])
        print(f"This is run {times} on the report split with this version and model.", file=sys.stderr)
    study = Study(args.model, problems, args.out, about)
    tables = []
    dense = study.row("dense", "dense", 0, None)
    for setting in SETTINGS:
        rows = {"dense": [dense]}
        for name, (how, seeded) in arms(setting).items():
            rows[name] = [study.row(setting.name, name, s, how) for s in (range(args.seeds) if seeded else (0,))]
        tables.append(table(setting.name, rows))
    for name, (kind, density) in UNITS.items():
        rows = {"dense": [dense]}
        for arm, score in RANKED.items():
            rows[arm] = [study.row(name, arm, 0, partial(whole_units, score, kind, density))]
        tables.append(table(f"{name}: {rows['magnitude'][0]['macs']:.3f} of the multiply-adds", rows))
    return "\n\n".join(tables)


if __name__ == "__main__":
    main()
