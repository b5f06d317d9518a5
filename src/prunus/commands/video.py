"""``prunus video``: grow, score and prune a video, next to the one that the model makes without search."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus import __version__, pocket
from prunus.budget import Budget
from prunus.commands.display import Show, number, print_table
from prunus.commands.methods import Setup, check_options, check_sampler, set_up, settings
from prunus.commands.models import check_prompts, judge, load_generator, read_prompts
from prunus.commands.output import Interrupted, Job, Output, write_json
from prunus.errors import PrunusError, SearchError, ServerError, SettingError
from prunus.search import Event, search_many
from prunus.strategies import BestOfN
from prunus.tree import Tree

if TYPE_CHECKING:
    from prunus.generators.streaming_video import StreamingVideo

GROUP = 16  # so many prompts share their batches


def video(
    prompt: str | None,
    file: Path | None,
    *,
    method: str,
    options: Mapping[str, int],
    frames: int,
    euler_steps: int | None,
    seed: int,
    model: Path | None,
    budget: str | None,
    rewards: Sequence[str],
    device: str,
    dtype: str,
    out: Path | None,
    force: bool,
    show: Show,
) -> dict[str, Any]:
    """Make the videos; returns what ``--json`` prints. Cheap checks come first, models are loaded after them."""
    if (prompt is None) == (file is None):
        raise SettingError("give one PROMPT or --prompts FILE, for example prunus video 'a red circle moving right'")
    check_options(method, options)
    if budget is not None:
        Budget.parse(budget)
    prompts = list(dict.fromkeys(read_prompts(file))) if file else [str(prompt)]
    folder = (model or pocket.path("video")).resolve()
    with Output(out, force) as output:
        show.say(f"loading {folder}")
        generator = load_generator(folder, frames, device, dtype, euler_steps)
        check_prompts(generator, prompts, file)
        keywords = settings(method, generator.model.streaming.search.get(method, {}), options)
        job = Job(
            prompts, method, keywords, frames, seed, str(folder), budget, list(rewards), device, dtype,
            folders=file is not None, version=__version__, euler_steps=euler_steps,
        )  # fmt: skip
        return _run(job, generator, output, show)


def resume(folder: Path, show: Show) -> dict[str, Any]:
    """Finish an interrupted run to the same videos; a finished one is only read."""
    job = Job.load(folder)
    if (folder / "result.json").exists():
        show.say(f"{folder} is finished")
        return json.loads((folder / "result.json").read_text())
    with Output(folder, resumed=True) as output:
        generator = load_generator(job.model, job.frames, job.device, job.dtype, job.euler_steps)
        return _run(job, generator, output, show)


def _run(job: Job, generator: StreamingVideo, output: Output, show: Show) -> dict[str, Any]:
    began = time.perf_counter()
    setup = set_up(job.method, job.settings, job.rewards, job.device)
    check_sampler(setup, generator)
    _say_settings(job, setup, show)
    videos: list[dict[str, Any]] = []
    try:
        for start in range(0, len(job.prompts), GROUP):
            videos += _group(job, list(range(len(job.prompts)))[start : start + GROUP], generator, setup, output, show)
    except KeyboardInterrupt:
        if not output.claimed:
            raise Interrupted("interrupted before the first chunk was whole; nothing was saved") from None
        raise Interrupted(
            f"interrupted; what has grown is saved. Finish it with: prunus video --resume {output.folder}"
        ) from None
    except (SearchError, ServerError) as error:
        saved = (
            f". What had grown is saved; go on with: prunus video --resume {output.folder}" if output.claimed else ""
        )
        raise PrunusError(f"{error}{saved}") from error
    result = {
        "prunus": job.version,
        "folder": str(output.folder),
        "method": job.method,
        "settings": setup.strategy.spec(),
        "reward": setup.decider.name,
        "frames": job.frames,
        "euler_steps": job.euler_steps,
        "seed": job.seed,
        "model": job.model,
        "budget": job.budget,
        "seconds": time.perf_counter() - began,
        "videos": videos,
    }
    write_json(output.folder / "result.json", result)
    return result


def _say_settings(job: Job, setup: Setup, show: Show) -> None:
    spec = {k: v for k, v in setup.strategy.spec().items() if k != "name" and v is not None}
    show.say(f"{job.method}: " + ", ".join(f"{k} {v}" for k, v in spec.items()))
    if job.settings:
        given = ", ".join(f"{k} {v}" for k, v in job.settings.items())
        show.say(f"  of these the model's recommendation or yours: {given}")


def _group(
    job: Job, indices: Sequence[int], generator: StreamingVideo, setup: Setup, output: Output, show: Show
) -> list[dict[str, Any]]:
    """Search for some prompts together, then write their files."""
    folders = {job.prompts[i]: job.folder_of(output.folder, i) for i in indices}
    finished = {p: f / "result.json" for p, f in folders.items() if job.folders and (f / "result.json").exists()}
    if not output.claimed:
        finished = {}
    wanted = [p for p in folders if p not in finished]
    saved = {
        p: Tree.load(folders[p], generator) for p in wanted if output.claimed and (folders[p] / "tree.json").exists()
    }

    def on_event(event: Event) -> None:
        if event.kind == "round":
            output.claim(job)
        if event.kind in ("round", "finished"):
            event.tree.save(folders[event.tree.prompt])
        show(event)

    budget = Budget.parse(job.budget) if job.budget else None
    rounds = sum(t.round for t in saved.values())
    several = len(wanted) > 1
    with show.start(job.method, generator.chunks * len(wanted), setup.decider.name, rounds, several):
        trees = search_many(
            [saved.get(p, p) for p in wanted], generator, setup.rewards, setup.strategy,
            budget=budget, seeds=job.seed, on_event=on_event,
        )  # fmt: skip
    if not output.claimed:
        raise PrunusError(trees[0].error)  # not one of them came through its first round
    plains = {t.prompt: t for t in (trees if job.method == "plain" else _plain(job, trees, generator, setup))}
    made = {t.prompt: _files(job, t, plains.get(t.prompt), folders[t.prompt], generator, setup) for t in trees}
    for prompt, record in made.items():
        if job.folders and "error" not in record:
            write_json(folders[prompt] / "result.json", record)
    return [made[p] if p in made else json.loads(finished[p].read_text()) for p in folders]


def _plain(job: Job, trees: Sequence[Tree], generator: StreamingVideo, setup: Setup) -> list[Tree]:
    """What the model makes of the same prompts and seed without search, for comparison; not charged to the budget."""
    prompts, strategy = [t.prompt for t in trees if t.result], BestOfN(n=1, reward=setup.decider.name)
    try:
        made = search_many(prompts, generator, setup.decider, strategy, seeds=job.seed)
    except SearchError:  # the reward refused the only candidate; the chosen video stands without comparison
        return []
    return [t for t in made if t.result]


def _files(
    job: Job, tree: Tree, plain: Tree | None, folder: Path, generator: StreamingVideo, setup: Setup
) -> dict[str, Any]:
    """Write one search's videos and contact sheet; returns its record."""
    from prunus.report.contact_sheet import contact_sheet
    from prunus.report.media import write_side_by_side, write_video

    record: dict[str, Any] = {"prompt": tree.prompt, "folder": str(folder)}
    if tree.result is None:
        return {**record, "error": tree.error or "no candidate was finished"}
    fps, world = generator.model.streaming.fps, generator.model.streaming.world
    chosen = tree.best().output
    write_video(folder / "video.mp4", chosen, fps)
    contact_sheet(tree, folder / "contact-sheet.png")
    record |= {"plain": None, "chosen": _figures(tree, chosen, world, setup)}
    if plain:
        frames = plain.best().output
        write_video(folder / "plain.mp4", frames, fps)
        write_side_by_side(folder / "side-by-side.mp4", frames, chosen, fps, names=("plain", job.method))
        record["plain"] = _figures(plain, frames, world, setup)
    return record


def _figures(tree: Tree, frames: Any, world: str | None, setup: Setup) -> dict[str, Any]:
    verdict, cost = judge(world, frames, tree.prompt), tree.spent.total
    return {
        "judge": verdict.value if verdict else None,
        "judge_parts": dict(verdict.parts) if verdict else None,
        "reward": tree.best().scores[setup.decider.name].value,
        "nfe": cost.nfe,
        "flops": cost.flops,
        "seconds": cost.seconds,
    }


def print_result(result: Mapping[str, Any], quiet: bool) -> None:
    """The table of plain and chosen, and where the files are."""
    videos = [v for v in result["videos"] if "error" not in v]
    for failed in (v for v in result["videos"] if "error" in v):
        print(f"failed: {failed['prompt']}: {failed['error']}")
    rows = []
    for name, kind in (("plain", "plain"), (result["method"], "chosen")):
        cells = [
            _mean([v[kind][key] for v in videos if v[kind]]) for key in ("judge", "reward", "nfe", "flops", "seconds")
        ]
        judged, rewarded, nfe, flops, seconds = cells
        trillions = None if flops is None else flops / 1e12
        rows.append([name, number(judged), number(rewarded), number(nfe, 0), number(trillions), number(seconds, 1)])
    about = f"mean of {len(videos)} videos" if len(result["videos"]) > 1 else "video"
    if videos:
        print_table([about, "judge", result["reward"], "NFE", "TFLOPs", "seconds"], rows, plain=quiet)
    what = "" if len(result["videos"]) > 1 else ": video.mp4, plain.mp4, side-by-side.mp4, contact-sheet.png, tree.json"
    print(f"{result['folder']}{what}")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
