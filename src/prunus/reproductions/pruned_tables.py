"""What ``pruned_video`` has found, as Markdown tables and a picture."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from prunus.budget import Cost
from prunus.generators.streaming_video import StreamingVideo
from prunus.report.curves import Curve, write_curves
from prunus.reproductions.comparison import Interval, bootstrap
from prunus.reproductions.equal_cost import Point, at_cost
from prunus.reproductions.first_chunks import Candidates, Price, mean_by_prompt
from prunus.reproductions.long_tables import said

WIDTHS = {"best_of": (1, 2, 4), "beam": (4, 8, 16, 32)}
NAMES = {"best_of": "best-of-n, n =", "beam": "chunk beam, first ="}
RUNS = 7


@dataclass(frozen=True)
class Searched:
    """A generator's pools, in the same order for all generators, and what its searches cost."""

    name: str
    pools: Sequence[Candidates]
    prices: Mapping[str, Price]

    def points(self, kind: str, generating: bool = False, prices: Mapping[str, Price] | None = None) -> list[Point]:
        """One for each width; values are by prompt. ``prices`` of another generator: if it were as good as this one."""
        price = (prices or self.prices)[kind]
        found = []
        for width in WIDTHS[kind]:
            values = mean_by_prompt(self.pools, kind, width)
            found.append(Point(width, [price.flops(width, generating)] * len(values), values))
        return found

    def first(self, count: int) -> Searched:
        return replace(self, pools=self.pools[:count])


def read_study(files: Sequence[Path]) -> list[Searched]:
    return [
        Searched(
            entry["name"],
            [Candidates.from_dict(pool) for pool in entry["pools"]],
            {kind: _price(price) for kind, price in entry["prices"].items()},
        )
        for entry in (json.loads(path.read_text())["found"] for path in files)
    ]


def _price(data: Mapping) -> Price:
    pairs = [tuple(Cost(**cost) for cost in data[name]) for name in ("total", "generating")]
    return Price(data["fewest"], *pairs)  # type: ignore[arg-type]


def importance_table(chosen: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The judge's mean of plain videos by what was removed (row) and how it was chosen; chance is a mean of draws."""
    (dense,) = chosen["dense"].values()
    lines = [f"dense: {sum(dense) / len(dense):.3f} ({len(dense)} videos)", ""]
    names = [name for name in next(s for r, s in chosen.items() if r != "dense") if not name.startswith("random")]
    lines += [f"| kept | {' | '.join(names)} | random |", "|" + "---|" * (len(names) + 2)]
    for removal, scores in chosen.items():
        if removal != "dense":
            chance = [value for name, values in scores.items() if name.startswith("random") for value in values]
            cells = [sum(v) / len(v) for v in (*(scores[name] for name in names), chance)]
            lines.append(f"| {removal} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    return "\n".join(lines)


def search_tables(study: Sequence[Searched], baseline: str) -> str:
    """Every search of every generator, and each beside the baseline's at equal cost, on the pools that both have."""
    dense = next(entry for entry in study if entry.name == baseline)
    prompts = len({pool.prompt for pool in dense.pools})
    seeds = ", ".join(f"{entry.name} {len(entry.pools) / prompts:g}" for entry in study)
    lines = [f"{prompts} prompts; seeds of each: {seeds}", ""]
    lines += ["| generator | search | judge | NFE | generator TFLOPs | TFLOPs in all |", "|---|---|---|---|---|---|"]
    for entry in study:
        for kind, widths in WIDTHS.items():
            for width in widths:
                price = entry.prices[kind]
                value = bootstrap([[v] for v in mean_by_prompt(entry.pools, kind, width)])
                cost = f"{price.flops(width, True) / 1e12:.4f} | {price.flops(width) / 1e12:.4f}"
                lines.append(f"| {entry.name} | {NAMES[kind]} {width} | {said(value)} | {price.nfe(width)} | {cost} |")
    for generating in (True, False):
        what = "as many FLOPs of the generator" if generating else "as many FLOPs in all"
        lines += ["", f"Judge less that of the dense generator with {what}:", ""]
        cells = [f"{NAMES[kind]} {width}" for kind, widths in WIDTHS.items() for width in widths]
        lines += [f"| generator | {' | '.join(cells)} |", "|" + "---|" * (len(cells) + 1)]
        for entry in study:
            if entry is not dense:
                base = dense.first(len(entry.pools))
                lines.append(_line(entry.name, entry.first(len(base.pools)), None, base, generating))
                lines.append(_line(f"as good as dense, at the price of {entry.name}", base, entry, base, generating))
    return "\n".join(lines)


def _line(name: str, entry: Searched, priced: Searched | None, dense: Searched, generating: bool) -> str:
    cells = []
    for kind in WIDTHS:
        base = dense.points(kind, generating)
        for point in entry.points(kind, generating, priced.prices if priced else None):
            values = at_cost(base, point.cost)
            if values is None:  # the dense generator cannot do anything so cheap
                cells.append("-")
            else:
                cells.append(said(bootstrap([[a - b] for a, b in zip(point.values, values, strict=True)]), True))
    return f"| {name} | {' | '.join(cells)} |"


def speed_table(folders: Mapping[str, Path], baseline: str) -> str:
    """The transformer's seconds of one core for a few clips against its FLOPs: medians of alternating runs.

    Processor time of one thread is what the clock shows on an idle machine, and is the same on a busy one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generators = {name: StreamingVideo.load(folder) for name, folder in folders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in generators}
    for _ in range(RUNS + 1):  # the first is for warming up
        for name, generator in generators.items():
            seconds[name].append(_forward_seconds(generator))
    torch.set_num_threads(threads)
    taken = {name: median(times[1:]) for name, times in seconds.items()}
    flops = {name: generator.model.flops(3, 12) for name, generator in generators.items()}
    lines = ["| generator | parameters | MFLOPs a forward | FLOPs, times less | seconds, times less |"]
    lines += ["|---|---|---|---|---|"]
    for name, generator in generators.items():
        count = sum(p.numel() for p in generator.model.transformer.transformer.parameters())
        gains = flops[baseline] / flops[name], taken[baseline] / taken[name]
        lines.append(f"| {name} | {count / 1e6:.2f} M | {flops[name] / 1e6:.0f} | {gains[0]:.2f} | {gains[1]:.2f} |")
    return "\n".join(lines)


def _forward_seconds(generator: StreamingVideo, rows: int = 4) -> float:
    """One forward of ``rows`` clips of 15 frames that all see each other: as a chunk does with a full window."""
    model = generator.model
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(rows, model.channels, 15, *model.latent_size, generator=draws)
    text = torch.zeros(rows, model.streaming.text_length, model.config.text_dim)
    began = time.process_time()
    with torch.no_grad():
        model.transformer.clip_velocity(latents, torch.full((rows, 15), 500.0), text)
    return time.process_time() - began


def draw(path: Path, study: Sequence[Searched], kind: str = "beam") -> None:
    """The judge's score against all FLOPs of a search, a curve for each generator."""
    curves = []
    for entry in study:
        points = entry.points(kind)
        values: list[Interval] = [bootstrap([[v] for v in point.values]) for point in points]
        curves.append(Curve(re.sub(r" of \d+", "", entry.name), values, [point.cost / 1e12 for point in points]))
    write_curves(path, curves, "judge", f"TFLOPs of a search ({NAMES[kind]} 4, 8, 16, 32)", bands=len(curves) <= 2)
