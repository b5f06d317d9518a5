"""The packaged models: small, whole, and what their folders say of them."""

import re

import numpy as np
import pytest
import torch

from prunus import search, search_many
from prunus.errors import ModelError
from prunus.generators.streaming_video import StreamingVideo
from prunus.pocket import path
from prunus.rewards import ClipReward, FrameReward
from prunus.strategies import BestOfN, StreamT1
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
    there = "clip-reward, frame-reward, image-preview-reward, lm, orm, preview-reward, prm, video"
    with pytest.raises(ModelError, match=f"'audio' does not exist; there are {there}"):
        path("audio")


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


def test_plain_videos_of_one_sprite_are_what_the_prompt_asks_for():
    """The gate of the model card, on the prompts of the dev split."""
    prompts = sprites.split("dev", sprites=1)
    generator = StreamingVideo.load(path("video"), frames=21)
    trees = search_many(prompts, generator, lambda frames, prompt: 0.0, BestOfN(1))
    assert np.mean([sprites.judge(tree.best().output.numpy(), tree.prompt).value for tree in trees]) >= 0.5


def test_the_clip_reward_orders_siblings_as_the_judge_does():
    """Pairs of first chunks, which differ most: chance is 0.5, below 0.65 a reward is of no use for search."""
    prompts = sprites.split("dev", sprites=1)
    reward, generator = ClipReward.load(path("clip-reward")), StreamingVideo.load(path("video"), frames=3)
    agreed = []
    for tree in search_many(prompts, generator, reward, BestOfN(6)):
        values = np.array([n.scores["clip-reward"].value for n in tree.finished])
        clips = generator.render(tree.finished, reward.view)
        truth = np.array([sprites.judge(clip.numpy(), tree.prompt).value for clip in clips])
        apart = truth[:, None] - truth >= 0.05
        agreed += (values[:, None] > values)[apart].tolist()
    assert len(agreed) > 150 and np.mean(agreed) >= 0.65
