"""Fewer parameters, more candidates: is a budget better spent on a dense video generator or on a pruned one?

    python -m prunus.reproductions.pruned_video --split dev --out work/pruned
    python -m prunus.reproductions.pruned_video --split report --out work/pruned --chart work/pruned.png

1. Importances: units are removed by each (``pruned_generators.py``), and the judge says what is left of plain videos.
2. Healing: the best removal of each size is trained a little more. ``dense, tuned`` is a control: the dense generator,
   trained as much.
3. Search: best-of-n and the chunk beam of all widths, from one pool of candidates for each prompt and seed
   (``first_chunks.py``), with every generator; all of them at equal FLOPs.

The first two choose by the dev split and are made once, the third is run on ``--split``. ``--out`` gets a file for each
part; run the command again to go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunus import __version__, pocket
from prunus.errors import PrunusError, SettingError
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.first_chunks import FirstChunks, grow_pools, prices
from prunus.reproductions.long_videos import write_json
from prunus.reproductions.pruned_generators import IMPORTANCES, REMOVALS, Workshop, remembered
from prunus.reproductions.pruned_tables import draw, importance_table, read_study, search_tables, speed_table
from prunus.reproductions.report_split import count_run
from prunus.sparse.models.wan import Wan
from prunus.sparse.models.wan_reward import PlainVideos
from prunus.worlds.sprites import split
from prunus.worlds.sprites.judge import judge

DENSE, HEALED, TUNED = "dense", ", healed", "dense, tuned"
GROUP = 4  # pools that grow together


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def choose(workshop: Workshop, measure: PlainVideos, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Removal -> importance -> the judge's scores of its plain videos, and those of the dense model."""
    about = {"prompts": len(measure.prompts), "seeds": measure.seeds, "frames": measure.frames}

    def score(name: str, model: Any) -> list[float]:
        found = remembered(folder / f"{name}.json", about, lambda: {"judge": measure.values(model())})["judge"]
        say(f"{name}: {sum(found) / len(found):.3f}")
        return found

    found = {DENSE: {"": score(DENSE, lambda: workshop.dense)}}
    for removal in REMOVALS:
        found[removal.name] = {
            importance: score(f"{removal.name} {importance}", lambda r=removal, i=importance: workshop.removed(i, r))
            for importance in IMPORTANCES
        }
    return found


def best_importance(scores: dict[str, list[float]]) -> str:
    """By the mean; chance is no choice."""
    return max((name for name in scores if not name.startswith("random")), key=lambda name: sum(scores[name]))


def known_names() -> list[str]:
    """All generators that can be searched with."""
    return [DENSE, *(name for removal in REMOVALS for name in (removal.name, removal.name + HEALED)), TUNED]


def made(name: str, workshop: Workshop, chosen: dict[str, Any], args: argparse.Namespace) -> Path:
    """The model folder of a generator, made if it is not there yet."""
    if name == DENSE:
        return args.model
    trained = name.endswith((HEALED, TUNED))
    folder = args.out / "models" / (name.replace(", ", "-").replace(" ", "-") + f"-{args.heal}" * trained)
    if not folder.exists():
        removal = next((r for r in REMOVALS if name.startswith(r.name)), None)
        if removal is None:
            model = workshop.wan.build()
        else:
            model = workshop.removed(best_importance(chosen[removal.name]), removal)
        if trained:
            say(f"{name}: {args.heal} steps")
            workshop.heal(model, args.heal, args.rate, args.out / "journal" / folder.name)
        workshop.wan.export(model, None, folder)
    return folder


def pools(name: str, folder: Path, keys: Sequence[tuple[str, int]], path: Path, about: dict[str, Any]) -> None:
    """Grow what ``path`` does not yet hold, a few prompts at a time."""
    from prunus.rewards import ClipReward

    have = remembered(path, about, dict)
    generator = StreamingVideo.load(folder)
    reward = ClipReward.load(pocket.path("clip-reward"))
    if not have:
        found = prices(keys[0][0], generator, reward)
        have = {"name": name, "prices": {kind: asdict(price) for kind, price in found.items()}, "pools": []}
    strategy = FirstChunks(reward=reward.name)
    while len(have["pools"]) < len(keys):
        some = keys[len(have["pools"]) :][:GROUP]
        grown = grow_pools(some, generator, reward, strategy, lambda video, prompt: judge(video.numpy(), prompt).value)
        have["pools"] += [candidates.as_dict() for candidates in grown]
        write_json(path, {"about": about, "found": have})
        say(f"{name}: {len(have['pools'])} of {len(keys)} pools")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m prunus.reproductions.pruned_video", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--split", choices=("dev", "report"), default="dev", help="one-sprite prompts of this split")
    parser.add_argument("--limit", type=int, default=20, help="prompts")
    parser.add_argument("--seeds", type=int, default=2, help="pools of each prompt")
    parser.add_argument("--heal", type=int, default=160, help="steps of training after the removal")
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate at first")
    parser.add_argument(
        "--names",
        nargs="*",
        default=known_names()[:-1],
        help="generators to search with, of: " + "; ".join(known_names()),
    )
    parser.add_argument("--until", choices=("importance", "healing", "search"), default="search")
    parser.add_argument("--model", type=Path, default=pocket.path("video"))
    parser.add_argument("--out", type=Path, required=True, help="the folder of all that is made")
    parser.add_argument("--chart", type=Path, help="draw the curves into this PNG file")
    args = parser.parse_args(arguments)
    from prunus.commands.models import quiet_libraries

    quiet_libraries()
    try:
        run(args)
    except PrunusError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; run the same command again to go on\n")


def run(args: argparse.Namespace) -> None:
    if unknown := [name for name in args.names if name not in known_names()]:
        raise SettingError(f"names = {', '.join(unknown)}: there are {'; '.join(known_names())}")
    wan = Wan(args.model, short=240, long=30, batch_size=8)
    workshop = Workshop(wan, args.out / "importance", PlainVideos(wan, split("train", 1)[::2]))
    chosen = choose(workshop, PlainVideos(wan, split("dev", 1), seeds=2, seed=2000), args.out / "importance")
    print(importance_table(chosen))
    if args.until == "importance":
        return
    folders = {name: made(name, workshop, chosen, args) for name in dict.fromkeys([DENSE, *args.names])}
    if args.until == "healing":
        return
    names = list(folders)
    prompts = split(args.split, 1)[: args.limit]
    about = {"prunus": __version__, "split": args.split, "prompts": len(prompts)}
    home = args.out / args.split
    if args.split == "report" and not any(home.glob("*.json")):  # a run that goes on was counted
        times = count_run({**about, "seeds": args.seeds, "model": str(args.model.resolve())}, names)
        say(f"this is run {times} on the report split with this version and model")
    keys = [(prompt, seed * len(prompts) + at) for seed in range(args.seeds) for at, prompt in enumerate(prompts)]
    for name in names:
        pools(name, folders[name], keys, home / f"{folders[name].name}.json", about)
    study = read_study([home / f"{folders[name].name}.json" for name in names])
    print(search_tables(study, DENSE))
    print(speed_table({name: folders[name] for name in names}, DENSE))
    if args.chart:
        draw(args.chart, study)


if __name__ == "__main__":
    main()
