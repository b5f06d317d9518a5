"""``prunus report``: one HTML page of a run, to look at and to send; it needs no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.commands.display import Show
from prunus.commands.models import judge, load_generator
from prunus.commands.output import Job
from prunus.errors import FileError, SettingError
from prunus.report.media import read_video
from prunus.score import Score
from prunus.tree import Node, Tree

if TYPE_CHECKING:
    from prunus.generators.streaming_video import StreamingVideo

NAME = "report.html"


def report(run: Path, out: Path | None, force: bool, device: str | None, show: Show) -> dict[str, Any]:
    """Write the reports of a run of ``prunus video``; returns what ``--json`` prints. Cheap checks come first."""
    home = run.parent if not (run / "run.json").exists() and (run.parent / "run.json").exists() else run
    job = Job.load(home)
    folders = [run] if home != run or not job.folders else [job.folder_of(run, i) for i in range(len(job.prompts))]
    grown = [folder for folder in folders if (folder / "tree.json").exists()]
    if not grown:
        raise FileError(f"{run} holds no tree yet; finish the run with prunus video --resume {home}, then report it")
    if out is not None and len(folders) > 1:
        raise SettingError(
            f"{run} holds {len(folders)} videos and --out names one file; leave it out to write {NAME} beside each "
            "video, or name one of its folders"
        )
    pages = [out or folder / NAME for folder in grown]
    for page in pages:
        if page.is_dir():
            raise FileError(f"{page} is a folder; --out names a file, such as {page / NAME}")
        if page.exists() and not force:
            raise FileError(f"{page} exists; replace it with --force or give another --out")
    show.say(f"loading {job.model}")
    generator = load_generator(job.model, job.frames, device or job.device, job.dtype)
    for folder in sorted(set(folders) - set(grown)):
        show.say(f"left out {folder}: nothing has grown there yet")
    made: list[dict[str, Any]] = []
    for folder, page in zip(grown, pages, strict=True):
        _write(page, folder, home, job, generator)
        made.append({"run": str(folder), "report": str(page), "bytes": page.stat().st_size})
        show.say(f"{page}  {made[-1]['bytes'] / 1e6:.2f} MB")
    return {"reports": made}


def _write(page: Path, folder: Path, home: Path, job: Job, generator: StreamingVideo) -> None:
    from prunus.report.memory import memory_table
    from prunus.report.page import Clip, leading_path, write_page

    tree = Tree.load(folder, generator)
    if len(tree.nodes) < 2:
        raise FileError(f"{folder} has grown nothing yet; finish the run with prunus video --resume {home}")
    record = _record(folder, job)
    clips = [
        Clip(name, read_video(folder / file), record.get(kind) or {})
        for name, file, kind in (("plain", "plain.mp4", "plain"), ("chosen", "video.mp4", "chosen"))
        if tree.result is not None and (folder / file).exists()
    ]
    streaming = generator.model.streaming
    write_page(
        page,
        tree,
        clips=clips,
        fps=streaming.fps,
        judge=_judge(streaming.world, tree, generator),
        memory=memory_table(leading_path(tree), streaming.cache, generator.chunk_frames),
        decider=_decider(tree),
        facts=_facts(tree, job),
        notice="" if tree.result else _unfinished(tree, home, generator),
    )


def _record(folder: Path, job: Job) -> dict[str, Any]:
    """What the run's result says of this video; empty while it is unfinished."""
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text())
        return result if job.folders else result["videos"][0]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise FileError(f"{path} cannot be read ({error}); delete it and finish the run with --resume") from error


def _judge(world: str | None, tree: Tree, generator: StreamingVideo) -> Callable[[Node], Score | None] | None:
    """The world's judge, of the video that ends at a node."""
    from prunus.roles import WHOLE

    if world is None:
        return None
    return lambda node: judge(world, generator.render([node], WHOLE)[0], tree.prompt)


def _decider(tree: Tree) -> str | None:
    """The reward that chose the video."""
    strategy = tree.spec.get("strategy", {})
    return next((strategy[k] for k in ("final", "long", "reward") if strategy.get(k)), None)


def _facts(tree: Tree, job: Job) -> dict[str, Any]:
    strategy = {k: v for k, v in tree.spec.get("strategy", {}).items() if k != "name"}
    rewards = [reward.get("name", "") for reward in tree.spec.get("rewards", ())]
    return {
        "method": job.method, "model": job.model, "frames": job.frames, "seed": tree.seed, "rewards": rewards,
        "budget": job.budget, **strategy, "prunus": job.version,
    }  # fmt: skip


def _unfinished(tree: Tree, home: Path, generator: StreamingVideo) -> str:
    if tree.error:
        return f"This search failed: {tree.error}. The report shows what had grown."
    deepest = max(node.depth for node in tree.nodes)
    return (
        f"This run is unfinished: {deepest} of {generator.chunks} chunks have grown, and no video is chosen yet. "
        f"Finish it with: prunus video --resume {home}"
    )


def print_reports(result: dict[str, Any]) -> None:
    """Where the pages are."""
    for made in result["reports"]:
        print(made["report"])
