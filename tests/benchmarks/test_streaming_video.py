"""The benchmark's partner gives what our search gives, whatever becomes of a chunk that leaves the window."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

from prunus import Score, View, search
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.generators.wan_decoder import StreamingDecoder
from prunus.roles import CHUNK, FunctionReward
from prunus.strategies import StreamT1

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ALWAYS = {"tau_short": -1e9, "ema": 0.5}


@pytest.fixture
def framewise_model(video_folder):
    """Chunks look the same decoded alone, as the published code does, and in the stream."""
    model = VideoModel.load(video_folder)
    for module in model.decoder.vae.modules():
        if isinstance(module, WanCausalConv3d):
            module.weight[:, :, :-1] = 0
    model.decoder = StreamingDecoder(model.decoder.vae)
    return model


@pytest.mark.parametrize(
    ("gates", "kinds"),
    [
        ({"memory": False}, set()),
        ({**ALWAYS, "tau_long": 1e9}, {"ema"}),
        ({**ALWAYS, "tau_long": -1e9}, {"append"}),
        ({}, {"discard", "ema"}),
    ],
    ids=["no memory", "ema", "append", "as published"],
)
def test_the_partner_gives_the_same_videos_and_scores(framewise_model, monkeypatch, gates, kinds):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from published import PublishedSearch
    from streaming_video import PROMPT, check_same

    # Far apart for the noise that an untrained model makes, so that rounding does not choose.
    short = FunctionReward(lambda frames, _: Score(100 * float(frames[:, 0].mean())), "frame-reward", CHUNK)
    long = FunctionReward(lambda frames, _: Score(100 * float(frames[:, 2].std())), "clip-reward", View(10))
    settings = StreamT1.published(**gates)
    tree = search(PROMPT, StreamingVideo(framewise_model, 24), [short, long], settings)
    check_same(PublishedSearch(framewise_model, short, long, 24, settings).run(PROMPT), tree)
    assert kinds <= {gate for node in tree.nodes for gate in node.how.get("gates", ())[1:]}


@pytest.mark.parametrize(
    ("gates", "keep", "branch", "most"),
    [(gates, 2, 2, 0.35) for gates in ("discard", "ema", "append", "as published")] + [("append", 4, 4, 0.2)],
)
def test_what_is_held_is_a_small_part_of_the_published_caches_for_any_gates(
    framewise_model, monkeypatch, gates, keep, branch, most
):
    """Survivors share nothing and the sinks are full: K x 21 frames against (K + K B) x 24, and what is not a cache."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from cache_bytes import compare

    short = FunctionReward(lambda frames, _: Score(100 * float(frames[:, 0].mean())), "frame-reward", CHUNK)
    long = FunctionReward(lambda frames, _: Score(100 * float(frames[:, 2].std())), "clip-reward", View(10))
    row = compare(framewise_model, (short, long), 12, keep, branch, gates)
    assert row["limit"] == pytest.approx(21 / (1 + branch) / 24, abs=1e-3)
    assert row["ratio"] <= most
    if gates == "append":
        assert row["ratio"] > row["limit"]


def test_shares_of_the_time_are_of_the_median_run(monkeypatch):
    """Runs of 4, 2 and 8 ticks, half of each in the work: the median took 4, shared alike."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import where_time_goes

    clock, ticks = SimpleNamespace(now=0.0), iter((2, 1, 4))
    worker = SimpleNamespace(work=lambda length: setattr(clock, "now", clock.now + length))
    monkeypatch.setattr(where_time_goes.time, "perf_counter", lambda: clock.now)

    def run():
        length = next(ticks)
        worker.work(length)
        clock.now += length

    row = where_time_goes.measure(run, [(worker, "work", lambda length: "long" if length > 1 else "short")])
    assert row == {"seconds": 4.0, "shares": {"long": 0.5, "the rest": 0.5}}


def test_the_benchmark_runs():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "streaming_video.py", "--smoke"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["search"] == "2x2" and row["nfe"] < row["partner_calls"] == 60 and row["bytes_ratio"] < 1
