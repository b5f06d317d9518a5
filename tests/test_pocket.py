"""The packaged models: small, whole, and what their folders say of them."""

import re

import pytest
import torch

from prunus import search
from prunus.errors import ModelError
from prunus.generators.streaming_video import StreamingVideo
from prunus.pocket import path
from prunus.rewards import ClipReward, FrameReward
from prunus.strategies import StreamT1
from prunus.worlds import sprites


@pytest.fixture(scope="module")
def video():
    return StreamingVideo.load(path("video"), frames=9)


@pytest.mark.parametrize(("name", "most"), [("video", 20e6), ("frame-reward", 5e6), ("clip-reward", 5e6)])
def test_each_is_small_and_has_a_card(name, most):
    files = [f for f in path(name).rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= most
    assert (path(name) / "README.md").is_file()
    assert {f.suffix for f in files} <= {".json", ".safetensors", ".md"}


def test_an_unknown_one_is_refused():
    with pytest.raises(ModelError, match="'lm' does not exist; there are clip-reward, frame-reward, video"):
        path("lm")


def test_the_grammar_is_the_world_s(video):
    pattern = video.model.streaming.grammar.pattern
    for prompt in (*sprites.split("dev"), *sprites.split("report")):
        assert re.fullmatch(pattern, prompt)
    for prompt in ("a pink circle moving left", "a red circle", "a red circle moving left and a red cross moving up"):
        assert not re.fullmatch(pattern, prompt)


def test_the_autoencoder_draws_each_frame_by_itself(video):
    assert video.model.decoder.framewise


def test_stream_t1_runs_on_them(video):
    rewards = [FrameReward.load(path("frame-reward")), ClipReward.load(path("clip-reward"))]
    tree = search("a red circle moving right", video, rewards, StreamT1())
    frames = tree.best().output
    assert frames.shape == (9, 3, 64, 64)
    assert torch.isfinite(frames).all()
    assert tree.spent.scoring.flops > 0
