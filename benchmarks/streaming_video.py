"""Stream-T1 by Prunus against the search as its published code runs it: time, memory and FLOPs, in one process.

    python benchmarks/streaming_video.py                       # pocket model, 2x2 and 4x4, five runs each
    python benchmarks/streaming_video.py --model 60m           # a random Wan where compute is the limit
    python benchmarks/streaming_video.py --search 4x4          # this search alone
    python benchmarks/streaming_video.py --smoke               # once, three chunks: for CI

Both sides take turns, with the same network, seeds, rewards, dtype and threads, and must choose the same video with the
same scores. Printed: wall time of each (median), their ratio, the ratio of the network calls alone, how far ours is
above its floor (the same batched calls, decodes and rewards replayed with nothing between them) and above the time that
the same run spent inside these calls, each with the least and the most of the runs, and the bytes that caches hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from published import PublishedSearch

from prunus import pocket, search
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.rewards import ClipReward, FrameReward
from prunus.strategies import StreamT1

PROMPT = "a green circle moving up"
"""One in which no two candidates' scores are so close that rounding orders them: published seeds depend on the rank."""


def large_model() -> VideoModel:
    """A random Wan of 61 M parameters at 256 tokens a frame, with the pocket model's autoencoder and text encoder."""
    small = VideoModel.load(pocket.path("video"))
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=8,
        attention_head_dim=64,
        in_channels=small.channels,
        out_channels=small.channels,
        text_dim=small.config.text_dim,
        freq_dim=128,
        ffn_dim=2048,
        num_layers=14,
        patch_size=(1, 2, 2),
    )
    vae = AutoencoderKLWan.from_pretrained(pocket.path("video") / "vae", torch_dtype=torch.float32)
    streaming = replace(small.streaming, size=(256, 256))
    return VideoModel(
        transformer.eval().requires_grad_(False),
        vae.eval().requires_grad_(False),
        streaming,
        text_encoder=small._text_encoder,
        tokenizer=small._tokenizer,
    )


class Calls:
    """The calls of a run's models: how long they took, and, if kept, what they were given, to run them again."""

    def __init__(self, keep: bool = False) -> None:
        self.keep, self.made, self.seconds = keep, [], 0.0

    @contextmanager
    def watch(self, *methods: tuple[Any, str]):
        """Watch bound methods, given as (object, name)."""
        for owner, name in methods:
            setattr(owner, name, self._watched(getattr(owner, name)))
        try:
            yield self
        finally:
            for owner, name in methods:
                delattr(owner, name)

    def _watched(self, method: Callable) -> Callable:
        def call(*inputs: Any) -> Any:
            began = time.perf_counter()
            result = method(*inputs)
            self.seconds += time.perf_counter() - began
            if self.keep:
                self.made.append((method, inputs))
            return result

        return call

    def replay(self) -> float:
        """Seconds of the same calls with nothing between them."""
        began = time.perf_counter()
        for method, inputs in self.made:
            method(*inputs)
        return time.perf_counter() - began


def compare(model: VideoModel, frames: int, keep: int, branch: int, runs: int) -> dict[str, Any]:
    short, long = FrameReward.load(pocket.path("frame-reward")), ClipReward.load(pocket.path("clip-reward"))
    settings = StreamT1.published(keep=keep, branch=branch)
    generator = StreamingVideo(model, frames)
    network = (model.transformer, "_forward")
    others = ((model.decoder, "decode"), (short, "score"), (long, "score"))

    def ours() -> Any:
        return search(PROMPT, generator, [short, long], settings)

    partner = PublishedSearch(model, short, long, frames, settings)
    found, tree = partner.run(PROMPT), ours()  # also the warm-up
    check_same(found, tree)

    names = "partner", "ours", "partner_calls", "calls", "floor", "beside_floor", "inside"
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(runs):
        with Calls().watch(network) as calls:
            began = time.perf_counter()
            partner.run(PROMPT)
            seconds["partner"].append(time.perf_counter() - began)
        seconds["partner_calls"].append(calls.seconds)
        began = time.perf_counter()
        ours()
        seconds["ours"].append(time.perf_counter() - began)
        with Calls(keep=True).watch(network, *others) as all_calls:
            ours()
        with torch.no_grad():
            seconds["floor"].append(all_calls.replay())
        del all_calls
        with Calls().watch(*others) as beside, Calls().watch(network) as calls:
            began = time.perf_counter()  # as warm as the floor, where ours above follows the partner
            ours()
            seconds["beside_floor"].append(time.perf_counter() - began)
        seconds["inside"].append(beside.seconds + calls.seconds)
        seconds["calls"].append(calls.seconds)

    def ratio(upper: str, lower: str, less: float = 0) -> dict[str, float]:
        """Of the medians, and the least and most of the runs'."""
        middle = statistics.median(seconds[upper]) / statistics.median(seconds[lower])
        each = [a / b for a, b in zip(seconds[upper], seconds[lower], strict=True)]
        figures = {"of_medians": middle, "least": min(each), "most": max(each)}
        return {name: round(value - less, 3) for name, value in figures.items()}

    return {
        "search": f"{keep}x{branch}",
        "partner_seconds": round(statistics.median(seconds["partner"]), 3),
        "seconds": round(statistics.median(seconds["ours"]), 3),
        "ratio": ratio("ours", "partner"),
        "forwards_ratio": ratio("calls", "partner_calls"),
        "above_floor": ratio("beside_floor", "floor", less=1),
        "between_calls": ratio("beside_floor", "inside", less=1),
        "partner_calls": found.calls,
        "nfe": tree.spent.total.nfe,
        "partner_cache_bytes": found.cache_bytes,
        "cache_bytes": tree.spent.peak_bytes,
        "bytes_ratio": round(tree.spent.peak_bytes / found.cache_bytes, 3),
    }


def check_same(found: Any, tree: Any) -> None:
    """Raise unless both gave the candidates of each chunk the same scores and chose the same video.

    Batches of another size round otherwise: scores may differ by 1e-3, pixels by a step of 8 bits.
    """
    chosen = (tree.best().output * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    steps = int(np.abs(chosen.astype(int) - found.video.astype(int)).max())
    apart = 0.0
    for depth, theirs in enumerate(found.scores, 1):
        nodes = [n for n in tree.nodes if n.depth == depth]
        ours = [[n.scores[name].value for name in ("frame-reward", "clip-reward")] for n in nodes]
        apart = max(apart, float(np.abs(np.sort(ours, 0) - np.sort(theirs, 0)).max()))
    if steps > 1 or apart > 1e-3:
        raise SystemExit(f"the two differ: pixels by {steps} steps, scores by {apart:.2g}; speeds cannot be compared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("pocket", "60m"), default="pocket")
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--search", choices=("2x2", "4x4"), help="survivors x children (default: both)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--smoke", action="store_true", help="one run of three chunks, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.frames, args.runs = 9, 1
    torch.set_num_threads(args.threads)
    model = VideoModel.load(pocket.path("video")) if args.model == "pocket" else large_model()
    rows = []
    for search_size in [args.search] if args.search else ["2x2"] if args.smoke else ["2x2", "4x4"]:
        keep, branch = map(int, search_size.split("x"))
        rows.append(compare(model, args.frames, keep, branch, args.runs))
        print(json.dumps(rows[-1]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
