"""Where the time of a search goes, ours and the published way's: seconds and shares by kind of work.

    python benchmarks/where_time_goes.py --search 2x2

Each side runs three times; the shares are of the median run. What is not named is the rest: the published way's PNG
files, noise, the tree and its books.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import published
import torch
from published import PublishedSearch
from streaming_video import PROMPT, large_model

from prunus import pocket, search
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.rewards import ClipReward, FrameReward
from prunus.strategies import StreamT1


class Clock:
    """Adds up the seconds of the calls that it watches, by kind of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, call: Callable, kind: Callable[..., str] | str) -> Callable:
        def run(*inputs: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = call(*inputs, **options)
            self.seconds[kind if isinstance(kind, str) else kind(*inputs)] += time.perf_counter() - began
            return result

        return run


def measure(run: Callable[[], Any], places: list[tuple[Any, str, Callable[..., str] | str]], runs: int = 3) -> dict:
    """The median run's seconds and the share of each kind of work; ``places`` are (owner, name, kind)."""
    taken = []
    for _ in range(runs):
        clock = Clock()
        with ExitStack() as patches:
            for owner, name, kind in places:
                patches.enter_context(patch.object(owner, name, clock.timed(getattr(owner, name), kind)))
            began = time.perf_counter()
            run()
            total = time.perf_counter() - began
        clock.seconds["the rest"] = total - sum(clock.seconds.values())
        taken.append((total, clock.seconds))
    total, parts = sorted(taken, key=lambda one: one[0])[runs // 2]
    shares = {kind: round(seconds / total, 3) for kind, seconds in sorted(parts.items(), key=lambda part: -part[1])}
    return {"seconds": round(total, 3), "shares": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("pocket", "60m"), default="pocket")
    parser.add_argument("--search", choices=("2x2", "4x4"), default="2x2", help="survivors x children")
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = VideoModel.load(pocket.path("video")) if args.model == "pocket" else large_model()
    short, long = FrameReward.load(pocket.path("frame-reward")), ClipReward.load(pocket.path("clip-reward"))
    settings = StreamT1.published(**dict(zip(("keep", "branch"), map(int, args.search.split("x")), strict=True)))
    generator, chunk = StreamingVideo(model, args.frames), model.streaming.cache.chunk
    partner = PublishedSearch(model, short, long, args.frames, settings)

    def decoding(latents: torch.Tensor, _: Any) -> str:
        return "decoding new frames" if latents.shape[2] == chunk else "decoding windows again"

    models = [
        (model.transformer, "_forward", "network calls"),
        (model.decoder, "decode", decoding),
        (short, "score", "rewards"),
        (long, "score", "rewards"),
    ]
    files = [(published, name, "video files") for name in ("write_video", "read_video")]
    copies = SimpleNamespace(deepcopy=copy.deepcopy)
    partner.run(PROMPT)  # the warm-up
    with patch.object(published, "copy", copies):
        theirs = measure(lambda: partner.run(PROMPT), [*models, *files, (copies, "deepcopy", "copies of candidates")])
    ours = measure(lambda: search(PROMPT, generator, [short, long], settings), models)
    for name, row in (("published way", theirs), ("ours", ours)):
        print(json.dumps({"search": args.search, "side": name, **row}), flush=True)


if __name__ == "__main__":
    main()
