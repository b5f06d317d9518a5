"""Long videos: does the judge's score drift, and does memory sinking help? (paper 01, claims about 30 s clips)

    python -m prunus.reproductions.long_videos --split dev --out work/long --chart work/drift.png

Three questions, all asked of the same prompts and seeds:

- drift: the judge on sliding windows of 7 chunks, each fitted anew, of plain videos and of Stream-T1's;
- memory: each rule for the chunks that leave the attention window, forced on plain videos;
- curtain: the same while a curtain hides the sprite for 30 frames (``behind_curtain.py``). There is one more rule, an
  oracle: only the last chunk before the curtain is appended.

``--out`` gets a file for each line of the tables; run the command again to go on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunus import __version__, pocket
from prunus.errors import FileError, PrunusError, require
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.behind_curtain import CurtainVideo, afterwards, place_curtain, positions
from prunus.reproductions.long_tables import Measured, drift_curve, tables
from prunus.reproductions.memory_rules import RULES, MemoryRule
from prunus.reproductions.report_split import count_run
from prunus.roles import FunctionReward, Reward, Strategy
from prunus.search import search_many
from prunus.strategies import StreamT1
from prunus.worlds.sprites import LONG, split
from prunus.worlds.sprites.judge import judge
from prunus.worlds.sprites.scene import Curtain

WINDOW = 21  # frames: 7 chunks, a short video
GROUP = 8  # searches that run together
ORACLE = "append last seen"
Key = tuple[str, int]


def window_scores(video: np.ndarray, prompt: str, width: int = WINDOW, step: int = 3) -> list[float]:
    """The judge's scores of all stretches of ``width`` frames that begin ``step`` frames apart, each fitted anew."""
    # All are judged as stretches from the middle, the first as well, so that they compare.
    starts = range(0, max(len(video) - width, 0) + 1, step)
    return [judge(video[at : at + width], prompt, begins=False).value for at in starts]


class Study:
    """Grows videos row by row and keeps what was measured of them in files of ``folder``."""

    def __init__(self, generator: StreamingVideo, keys: Sequence[Key], folder: Path, about: Mapping[str, Any]) -> None:
        self.generator, self.keys, self.folder, self.about = generator, list(keys), folder, dict(about)
        self.curtains: dict[Key, Curtain] = {}

    def row(
        self,
        name: str,
        rewards: Sequence[Reward],
        strategy: Strategy,
        measure: Callable[[np.ndarray, Key], Measured],
        generator: StreamingVideo | None = None,
    ) -> list[Measured]:
        """What ``measure`` finds in each (prompt, seed)'s video, from the row's file if that is there."""
        path = self.folder / f"{name.replace(' ', '-').lower()}.json"
        if path.exists():
            saved = json.loads(path.read_text())
            if saved["about"] != self.about:
                raise FileError(f"{path} is of other settings ({saved['about']}); give another --out")
            return saved["clips"]
        clips: list[Measured] = []
        for at in range(0, len(self.keys), GROUP):
            some = self.keys[at : at + GROUP]
            trees = search_many(
                [p for p, _ in some], generator or self.generator, list(rewards), strategy, seeds=[s for _, s in some]
            )
            for key, tree in zip(some, trees, strict=True):
                video = tree.best().output.numpy()
                cost = tree.spent.total
                clip = {"prompt": key[0], "seed": key[1], "nfe": cost.nfe, "flops": cost.flops}
                clip |= {"judge": judge(video, key[0]).value, "positions": positions(video, key[0])}
                clips.append(clip | measure(video, key))
            print(f"{name}: {len(clips)} of {len(self.keys)}", file=sys.stderr, flush=True)
        write_json(path, {"about": self.about, "clips": clips})
        return clips

    # ---- the three questions ------------------------------------------------------------------------------------

    def drift(self, rewards: Sequence[Reward], strategy: Strategy) -> dict[str, list[Measured]]:
        def windows(video: np.ndarray, key: Key) -> Measured:
            return {"windows": window_scores(video, key[0])}

        return {"Stream-T1": self.row("Stream-T1", rewards, strategy, windows)}

    def memory(self) -> dict[str, list[Measured]]:
        """Every rule on plain videos; ``discard`` is plain generation, whose videos also say where curtains hang."""

        def plain(video: np.ndarray, key: Key) -> Measured:
            curtain = place_curtain(video, *key)
            hangs = {"left": curtain.left, "start": curtain.start}
            return {"windows": window_scores(video, key[0]), "curtain": hangs, **afterwards(video, key[0], curtain)}

        rows = {"discard": self.row("plain discard", [NOTHING], RULES["discard"], plain)}
        self.curtains = {(c["prompt"], c["seed"]): Curtain(**c["curtain"]) for c in rows["discard"]}

        def measure(video: np.ndarray, key: Key) -> Measured:
            return {"windows": window_scores(video, key[0]), **afterwards(video, key[0], self.curtains[key])}

        for name, rule in RULES.items():
            if name not in rows:
                rows[name] = self.row(f"plain {name}", [NOTHING], rule, measure)
        return rows

    def curtain(self) -> dict[str, list[Measured]]:
        """Every rule behind curtains, and the oracle's."""
        generator = CurtainVideo(self.generator.model, self.generator.frames, self.curtains)
        last_seen = {key: curtain.start // generator.chunk_frames - 1 for key, curtain in self.curtains.items()}
        rules = {**RULES, ORACLE: MemoryRule(gate="append", only=last_seen)}

        def measure(video: np.ndarray, key: Key) -> Measured:
            return afterwards(video, key[0], self.curtains[key])

        return {n: self.row(f"curtain {n}", [NOTHING], rule, measure, generator) for n, rule in rules.items()}


NOTHING = FunctionReward(lambda frames, prompt: 0.0, "none")  # a single candidate needs no reward


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data) + "\n")
    temporary.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m prunus.reproductions.long_videos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--split", choices=("dev", "report"), default="dev", help="one-sprite prompts of this split")
    parser.add_argument("--limit", type=int, default=20, help="prompts")
    parser.add_argument("--seeds", type=int, default=2, help="videos of each prompt")
    parser.add_argument("--frames", type=int, default=LONG)
    parser.add_argument("--model", type=Path, default=pocket.path("video"))
    parser.add_argument("--out", type=Path, required=True, help="the folder of the rows")
    parser.add_argument("--chart", type=Path, help="draw the drift into this PNG file")
    args = parser.parse_args(arguments)
    from prunus.commands.models import load_generator  # the entry point stands where the command line does

    try:
        run(args, load_generator(args.model, args.frames, "cpu", "float32"))
    except PrunusError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; run the same command again to go on\n")


def run(args: argparse.Namespace, generator: StreamingVideo) -> None:
    from prunus.report.curves import Curve, write_curves
    from prunus.rewards import ClipReward, FrameReward

    shortest = 2 * Curtain(0, 0).frames + 3
    require(args.frames >= shortest, "frames", args.frames, f"at least {shortest}, or nothing follows the curtain")
    prompts = split(args.split, 1)[: args.limit]
    about = {"prunus": __version__, "split": args.split, "prompts": len(prompts), "seeds": args.seeds}
    about["frames"] = args.frames
    if args.split == "report" and not any(args.out.glob("*.json")):  # a run that goes on was counted
        times = count_run({**about, "model": str(args.model.resolve())}, ["long videos"])
        print(f"This is run {times} on the report split with this version and model.")
    study = Study(generator, [(p, s) for p in prompts for s in range(args.seeds)], args.out, about)
    rewards = [FrameReward.load(pocket.path("frame-reward")), ClipReward.load(pocket.path("clip-reward"))]
    search = StreamT1(**generator.model.streaming.search.get("stream-t1", {}))
    memory = study.memory()
    drift = study.drift(rewards, search)
    curtain = study.curtain()
    print(tables(drift, memory, curtain))
    if args.chart:
        curves = [Curve("plain", drift_curve(memory["discard"]))]
        curves += [Curve(name, drift_curve(clips)) for name, clips in drift.items()]
        write_curves(args.chart, curves, "judge score of 7 chunks", "first chunk of the window")


if __name__ == "__main__":
    main()
