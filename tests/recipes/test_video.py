"""The video model's recipe at tiny size: it trains, goes on from its checkpoint, and exports a folder that streams."""

import os
import subprocess
import sys
from pathlib import Path

from prunus import search
from prunus.generators.streaming_video import StreamingVideo
from prunus.strategies import BestOfN

RECIPES = Path(__file__).parents[2] / "recipes" / "video"


def run(script, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, RECIPES / script, *map(str, arguments), "--smoke"],
        capture_output=True, text=True, env=environment, check=True,
    ).stdout  # fmt: skip


def test_the_recipe_trains_noise_aware_rewards(tmp_path):
    script = RECIPES.parent / "rewards" / "noise_aware.py"
    assert "step 3:" in run(script, "--out", tmp_path / "chunks")
    assert "step 2:" in run(script, "--out", tmp_path / "images", "--images", "--euler-steps", 4, "--until", 2)
    assert sorted(p.name for p in (tmp_path / "images").glob("step-*")) == ["step-1", "step-2"]


def test_the_recipe_trains_a_model_that_streams(tmp_path):
    assert "held-out mse" in run("autoencoder.py", "--out", tmp_path / "vae")
    first = run("transformer.py", "--vae", tmp_path / "vae" / "vae", "--out", tmp_path / "video")
    assert "from step 0" in first
    assert '"step": 3' in first
    again = run("transformer.py", "--vae", tmp_path / "vae" / "vae", "--out", tmp_path / "video")
    assert "from step 3" in again
    warm = ("--start-from", tmp_path / "video" / "model")
    assert "from step 0" in run("transformer.py", "--vae", tmp_path / "vae" / "vae", "--out", tmp_path / "warm", *warm)
    video = StreamingVideo.load(tmp_path / "video" / "model", frames=6)
    tree = search("a red circle moving right", video, lambda frames, prompt: float(frames.mean()), BestOfN(2))
    assert tree.best().output.shape == (6, 3, 64, 64)
