"""The clip reward, on random weights: parts, lengths, time, price; and the recipe that trains both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunus.errors import ModelError
from prunus.rewards import ClipReward, FrameReward
from prunus.rewards.networks import ClipNetwork, FrameNetwork
from prunus.roles import View
from prunus.testing import check_reward

WORDS = "a red green circle square moving standing left right still".split()
ONE = "a red circle moving left"
TWO = "a red circle moving left and a green square standing still"
ROOT = Path(__file__).parents[2]


def clip(frames, seed=0):
    pixels = torch.randint(0, 256, (frames, 3, 64, 64), generator=torch.Generator().manual_seed(seed))
    return pixels.float() / 255


@pytest.fixture
def reward():
    torch.manual_seed(0)
    network = ClipNetwork(WORDS)
    for weight in network.parameters():
        weight.data *= 2.0 if weight.ndim > 1 else 1.0  # so that what they see makes a difference
    return ClipReward(network)


def rows(scores):
    return [[s.value, *s.parts.values()] for s in scores]


def close(some, others):
    return all(a == pytest.approx(b, abs=1e-5) for a, b in zip(some, others, strict=True))


def test_has_the_parts_of_its_role(reward):
    (score,) = reward.score([clip(6)], [TWO])
    assert list(score.parts) == ["visual", "motion", "text"] and score.finite
    assert (reward.name, reward.view) == ("clip-reward", View(10))
    whole = ClipReward(reward.network, units=None, name="whole-clip-reward")
    assert (whole.name, whole.view) == ("whole-clip-reward", View(None))


def test_a_batch_scores_as_its_members_alone(reward):
    contents = [clip(n, i) for i, n in enumerate((21, 1, 30, 3, 21, 3))]
    prompts = [TWO, ONE, TWO, TWO, ONE, ONE]
    together = rows(reward.score(contents, prompts))
    alone = [rows(reward.score([c], [p]))[0] for c, p in zip(contents, prompts, strict=True)]
    assert close(together, alone)
    assert together == rows(reward.score(contents, prompts))
    backwards = rows(reward.score(contents[::-1], prompts[::-1]))[::-1]
    assert close(together, backwards)
    assert reward.score([], []) == []


def test_what_siblings_share_is_read_once(reward, monkeypatch):
    past, read = clip(9), []
    siblings = [torch.cat([past, clip(3, i)]) for i in (1, 2, 3)]
    alone = [rows(reward.score([c], [TWO]))[0] for c in siblings]
    reader = reward.network.reader.forward
    monkeypatch.setattr(reward.network.reader, "forward", lambda f, asked: (read.append(len(f)), reader(f, asked))[1])
    assert close(rows(reward.score(siblings, [TWO] * 3)), alone) and read == [9 + 3 * 3]
    reward.score([past, past], [ONE, TWO])  # another prompt sees the same frames with other eyes
    assert read[1] == 18


def test_sees_the_order_of_frames(reward):
    content = clip(9)
    forth, back = rows(reward.score([content, content.flip(0)], [TWO, TWO]))
    assert max(abs(a - b) for a, b in zip(forth, back, strict=True)) > 1e-4


def test_a_phrase_has_no_place(reward):
    """The prompt is a set of phrases: their order does not matter, what belongs to which phrase does."""
    first, swapped, mixed = rows(
        reward.score(
            [clip(6)] * 3,
            [
                TWO,
                "a green square standing still and a red circle moving left",
                "a green circle moving left and a red square standing still",
            ],
        )
    )
    assert first == pytest.approx(swapped, abs=1e-5)
    assert first != pytest.approx(mixed, abs=1e-4)


def test_keeps_the_contract(reward):
    check_reward(reward, [clip(6), clip(9), clip(6, 1)], [TWO, ONE, TWO])


def test_long_clips(reward):
    assert all(s.finite for s in reward.score([clip(120)], [TWO]))


def test_cost_is_counted_and_adds_up(reward):
    prices = [reward.cost([n]).flops for n in (1, 2, 7, 10)]
    assert 0 < prices[0] < prices[1] < prices[2] < prices[3]
    assert reward.cost([1, 7, 7]).flops == prices[0] + 2 * prices[2]
    assert 6.5 < prices[2] / prices[0] < 7.5


def test_nan_stays_with_its_candidate(reward):
    scores = reward.score([clip(3), clip(3) * float("nan")], [ONE, ONE])
    assert scores[0].finite and not scores[1].finite


def test_comes_back_from_its_folder(reward, tmp_path):
    reward.save_pretrained(tmp_path / "a")
    first = ClipReward.load(tmp_path / "a", units=4)
    assert first.view == View(4) and first.spec()["units"] == 4
    first.save_pretrained(tmp_path / "b")
    second = ClipReward.load(tmp_path / "b")
    contents = [clip(6), clip(9)]
    assert rows(first.score(contents, [TWO, ONE])) == rows(second.score(contents, [TWO, ONE]))
    assert second.cost([7]) == reward.cost([7])
    assert sum(f.stat().st_size for f in (tmp_path / "a").iterdir()) < 5e6


def test_a_frame_reward_is_not_a_clip_reward(tmp_path):
    FrameReward(FrameNetwork(WORDS)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="FrameNetwork"):
        ClipReward.load(tmp_path)


def test_normalisation_moves_and_scales(reward):
    before = rows(reward.score([clip(6)], [TWO]))[0]
    reward.network.config["normalisation"]["motion"] = [0.5, 2.0]
    after = rows(reward.score([clip(6)], [TWO]))[0]
    assert after == pytest.approx([before[0], before[1], (before[2] - 0.5) / 2, before[3]], abs=1e-6)


def test_recipe_smoke(video_folder, tmp_path):
    """Candidates of both kinds, training, metrics; and run again, it only measures."""

    def run(script, *arguments):
        recipe = [sys.executable, str(ROOT / "recipes" / "rewards" / script), *map(str, arguments), "--smoke"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(recipe, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    candidates = tmp_path / "candidates"
    run("candidates.py", "renderings", "--out", candidates)
    run("candidates.py", "siblings", "--split", "dev", "--model", video_folder, "--out", candidates)
    first = run("train.py", "--candidates", candidates, "--out", tmp_path)
    assert "siblings   clip (overall)" in first and '"step": 3' in first
    again = run("train.py", "--candidates", candidates, "--out", tmp_path)
    assert '"step": 3' not in again and again.splitlines()[1:] == first.splitlines()[3:]
    ClipReward.load(tmp_path / "clip-reward")
    FrameReward.load(tmp_path / "frame-reward")
