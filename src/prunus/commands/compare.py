"""``prunus compare``: methods over many prompts at equal total cost, by the judge."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus import __version__, pocket
from prunus.commands.display import Show, number, print_table
from prunus.commands.methods import METHODS, Setup, check_options, check_sampler, parse_variant, set_up, settings
from prunus.commands.models import JUDGES, check_prompts, judge, load_generator, read_prompts
from prunus.commands.output import Interrupted, write_json
from prunus.errors import FileError, SettingError
from prunus.reproductions.comparison import Outcome, equal_cost_n, run_method, table
from prunus.reproductions.report_split import count_run

if TYPE_CHECKING:
    from prunus.generators.streaming_video import StreamingVideo

BASELINE = "best-of-n"


def compare(
    methods: Sequence[str],
    *,
    file: Path | None,
    split: str,
    sprites: int | None,
    limit: int,
    seeds: int,
    frames: int,
    euler_steps: int | None,
    options: Mapping[str, int],
    model: Path | None,
    rewards: Sequence[str],
    device: str,
    dtype: str,
    out: Path | None,
    force: bool,
    show: Show,
) -> dict[str, Any]:
    """Run the methods and return the table as data. ``options`` (keep, ...) go to the methods that take them."""
    for method in methods:
        name, changes = parse_variant(method)
        if name == BASELINE and changes:
            raise SettingError(f"method {method!r}: {BASELINE} is the baseline; its n follows from the others' cost")
        check_options(name, _taken(name, options))
    _check_file(out, force)
    names = list(dict.fromkeys(["plain", *(m for m in methods if m != BASELINE)]))  # plain tells what one video costs
    prompts = list(dict.fromkeys(read_prompts(file))) if file else []
    folder = (model or pocket.path("video")).resolve()
    show.say(f"loading {folder}")
    generator = load_generator(folder, frames, device, dtype, euler_steps)
    streaming = generator.model.streaming
    prompts = prompts or _split(streaming.world, split, sprites, limit)
    check_prompts(generator, prompts, file)
    setups = {m: _setup(m, _keywords(m, streaming.search, options), rewards, device) for m in names}
    for setup in setups.values():
        check_sampler(setup, generator)
    outcomes = {m: _run(m, setups[m], prompts, seeds, generator, show) for m in names}
    dearest = max(names, key=lambda m: _flops(outcomes[m]))
    n = equal_cost_n(_flops(outcomes[dearest]), _flops(outcomes["plain"]))
    show.say(f"{BASELINE}: n = {n}, for at least the FLOPs of {dearest}, the dearest method")
    keywords = {**_keywords(BASELINE, streaming.search, {}), "n": n}
    setups[BASELINE] = _setup(BASELINE, keywords, rewards, device)
    outcomes[BASELINE] = _run(BASELINE, setups[BASELINE], prompts, seeds, generator, show)
    order = [m for m in names if m in methods]
    order.insert(1 if order[:1] == ["plain"] else 0, BASELINE)
    result = {
        "prunus": __version__,
        "model": str(folder),
        "frames": frames,
        "euler_steps": euler_steps,
        "prompts": len(prompts),
        "split": None if file else split,
        "seeds": seeds,
        "reward": setups[BASELINE].decider.name,
        "n": n,
        "dearest": dearest,
        "settings": {m: setups[m].strategy.spec() for m in order},
        "rows": [_plain_numbers(asdict(r)) for r in table({m: outcomes[m] for m in order}, BASELINE)],
        "videos": {m: [asdict(o) for o in outcomes[m]] for m in order},
    }
    if not file and split == "report":
        result["report_run"] = count_run(
            {k: result[k] for k in ("prunus", "model", "frames", "prompts", "seeds")}, order
        )
    if out is not None:
        write_json(out, result)
    return result


def _taken(method: str, options: Mapping[str, int]) -> dict[str, int]:
    return {k: v for k, v in options.items() if k in METHODS[method].options}


def _keywords(variant: str, recommended: Mapping[str, Any], options: Mapping[str, int]) -> dict[str, Any]:
    name, changes = parse_variant(variant)
    return settings(name, recommended.get(name, {}), {**_taken(name, options), **changes})


def _setup(variant: str, keywords: Mapping[str, Any], rewards: Sequence[str], device: str) -> Setup:
    """All methods are chosen and reported by the same reward: the last one named."""
    name, _ = parse_variant(variant)
    return set_up(name, keywords, rewards if name.startswith("stream-t1") else rewards[-1:], device)


def _check_file(out: Path | None, force: bool) -> None:
    if out is None:
        return
    if out.exists() and (not force or out.is_dir()):
        raise FileError(f"{out} exists; give another --out, or replace it with --force")
    if not out.absolute().parent.is_dir():
        raise FileError(f"{out} cannot be written: its folder does not exist; make it first")


def _split(world: str | None, name: str, sprites: int | None, limit: int) -> list[str]:
    """At most ``limit`` prompts of a split, evenly spaced."""
    if world not in JUDGES:
        raise SettingError("this model's streaming.json names no world that has splits; give --prompts FILE")
    if name not in ("dev", "report"):
        raise SettingError(f"split {name!r} is unknown; take dev or report")
    prompts = importlib.import_module(JUDGES[world].rpartition(".")[0]).split(name, sprites)
    count = min(limit, len(prompts))
    return [prompts[i * len(prompts) // count] for i in range(count)]


def _run(
    method: str, setup: Setup, prompts: Sequence[str], seeds: int, generator: StreamingVideo, show: Show
) -> list[Outcome]:
    world = generator.model.streaming.world
    known = world in JUDGES and all(judge(world, _blank(generator), p) is not None for p in prompts)

    def verdict(frames: Any, prompt: str) -> float:
        score = judge(world, frames, prompt)
        return score.value if score else math.nan

    decider = setup.decider.name
    show.say(f"{method}: {len(prompts) * seeds} videos")
    try:
        with show.start(method, len(prompts) * seeds * generator.chunks, decider, several=True):
            return run_method(
                prompts, range(seeds), generator, setup.rewards, setup.strategy, decider,
                verdict if known else None, on_event=show,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted("interrupted; a comparison is written when it is whole, so start it again") from None


def _blank(generator: StreamingVideo) -> Any:
    import torch

    return torch.zeros(1, 3, *generator.model.streaming.size)


def _flops(outcomes: Sequence[Outcome]) -> int:
    return sum(o.cost.flops for o in outcomes)


def _plain_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """NaN has no place in JSON."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def print_comparison(result: Mapping[str, Any], quiet: bool) -> None:
    """The table, and what it is about."""
    judged = result["rows"][0]["judge"] is not None
    metric = "judge" if judged else result["reward"]
    columns = ["method", "judge (95 %)", result["reward"], "NFE", "TFLOPs", "seconds", f"{metric} - {BASELINE}", "gap"]
    rows = []
    for row in result["rows"]:
        name = f"{row['method']} (n = {result['n']})" if row["method"] == BASELINE else row["method"]
        flops = None if row["flops"] is None else row["flops"] / 1e12
        rows.append(
            [name, _interval(row["judge"]), number(row["reward"]), number(row["nfe"], 0), number(flops),
             number(row["seconds"], 2), _interval(row["against"], sign=True), number(row["gap"], 2)]
        )  # fmt: skip
        if row["failed"]:
            print(f"{row['method']}: {row['failed']} searches failed")
    videos = result["prompts"] * result["seeds"]
    source = f"the {result['split']} split" if result["split"] else "your file"
    print(
        f"{videos} videos: {result['prompts']} prompts of {source}, {result['seeds']} seeds, {result['frames']} frames"
    )
    if result.get("report_run"):
        print(f"This is run {result['report_run']} on the report split with this version and model.")
    print_table(columns, rows, plain=quiet)
    print("Costs are per video. gap: the reward's praise beyond the judge's, in deviations (above 0: reward hacking).")


def _interval(value: Mapping[str, float] | None, sign: bool = False) -> str:
    if value is None:
        return "-"
    kind = "+.3f" if sign else ".3f"
    return f"{value['mean']:{kind}} [{value['low']:{kind}}, {value['high']:{kind}}]"
