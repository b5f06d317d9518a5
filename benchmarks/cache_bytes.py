"""Bytes that the search holds against the published way's caches, whatever becomes of a chunk that leaves the window.

    python benchmarks/cache_bytes.py

The worst case for sharing: survivors have no parent in common, and the clip is long enough to fill the sinks. Ours is
all that the search holds after a round's candidates are grown (caches, text, latents, decoder features), the partner's
its caches alone. Nothing is copied per child, so the most that ours can need are the survivors' contexts: K x 21 frames
against the partner's (K + K B) x 24.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from published import PublishedSearch
from streaming_video import PROMPT

from prunus import pocket, search
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.rewards import ClipReward, FrameReward
from prunus.roles import Reward
from prunus.strategies import StreamT1

ALWAYS = {"tau_short": -1e9}
GATES: dict[str, dict[str, Any]] = {
    "discard": {"memory": False},
    "ema": {**ALWAYS, "tau_long": 1e9},
    "append": {**ALWAYS, "tau_long": -1e9},
    "as published": {},
}


def compare(
    model: VideoModel, rewards: tuple[Reward, Reward], chunks: int, keep: int, branch: int, gates: str
) -> dict[str, Any]:
    """Our search, and two chunks of the partner's: it allocates whole caches, as many from the second chunk on."""
    chunk = model.streaming.cache.chunk
    settings = StreamT1.published(keep=keep, branch=branch, per_parent=1, **GATES[gates])
    tree = search(PROMPT, StreamingVideo(model, chunks * chunk), list(rewards), settings)
    found = PublishedSearch(model, *rewards, 2 * chunk, settings).run(PROMPT)
    return {
        "search": f"{keep}x{branch}",
        "gates": gates,
        "bytes": tree.spent.peak_bytes,
        "partner_bytes": found.cache_bytes,
        "ratio": round(tree.spent.peak_bytes / found.cache_bytes, 3),
        "limit": round(keep * 21 / (keep * (1 + branch) * 24), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=12, help="at least 10, to fill the sinks")
    chunks = parser.parse_args().chunks
    model = VideoModel.load(pocket.path("video"))
    rewards = FrameReward.load(pocket.path("frame-reward")), ClipReward.load(pocket.path("clip-reward"))
    for keep, branch in ((2, 2), (4, 4)):
        for gates in GATES:
            print(json.dumps(compare(model, rewards, chunks, keep, branch, gates)), flush=True)


if __name__ == "__main__":
    main()
