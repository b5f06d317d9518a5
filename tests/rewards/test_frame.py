"""The frame reward and its folder, on random weights; the contract is the same for the clip reward where it matters."""

import json

import pytest
import torch

from prunus.errors import FileError, ModelError, SettingError, VideoError
from prunus.rewards import ClipReward, FrameReward
from prunus.rewards.networks import ClipNetwork, FrameNetwork, phrases
from prunus.roles import View
from prunus.testing import check_reward

WORDS = "a red green circle square moving standing left right still".split()
ONE = "a red circle moving left"
TWO = "a red circle moving left and a green square standing still"


def clip(frames, seed=0):
    pixels = torch.randint(0, 256, (frames, 3, 64, 64), generator=torch.Generator().manual_seed(seed))
    return pixels.float() / 255


@pytest.fixture
def reward():
    torch.manual_seed(0)
    network = FrameNetwork(WORDS)
    for weight in network.parameters():
        weight.data *= 2.0 if weight.ndim > 1 else 1.0  # so that what they see makes a difference
    return FrameReward(network)


def values(reward, contents, prompts):
    return [s.value for s in reward.score(contents, prompts)]


def test_is_the_mean_of_its_frames(reward):
    content = clip(3)
    single = values(reward, [content[i : i + 1] for i in range(3)], [TWO] * 3)
    assert values(reward, [content], [TWO])[0] == pytest.approx(sum(single) / 3, abs=1e-6)
    assert len({round(v, 6) for v in single}) == 3


def test_one_score_each_of_any_length(reward):
    contents, prompts = [clip(n, n) for n in (3, 1, 30, 21)], [TWO, ONE, TWO, ONE]
    scores = values(reward, contents, prompts)
    alone = [values(reward, [c], [p])[0] for c, p in zip(contents, prompts, strict=True)]
    assert scores == pytest.approx(alone, abs=1e-5)
    assert scores == values(reward, contents, prompts)
    assert reward.score([], []) == []


def test_keeps_the_contract(reward):
    check_reward(reward, [clip(3), clip(1), clip(3, 1)], [TWO, ONE, TWO])


def test_looks_at_the_new_chunk(reward):
    assert (reward.name, reward.view, reward.range) == ("frame-reward", View(1), "unbounded")


def test_prompts_are_phrases_of_words():
    assert phrases(TWO) == [["a", "red", "circle", "moving", "left"], ["a", "green", "square", "standing", "still"]]
    assert phrases("Sand, red.") == [["sand"], ["red"]]
    assert phrases("") == phrases("and") == [["<unk>"]]


def test_unknown_words_say_nothing(reward):
    content = [clip(3)]
    assert values(reward, content, ["a red elephant moving left"]) == values(reward, content, ["a red moving left"])
    assert values(reward, content, [ONE]) != values(reward, content, ["a green circle moving left"])
    assert all(map(torch.isfinite, torch.tensor(values(reward, content * 2, ["", "ein roter Kreis"]))))


def test_cost_is_counted_and_adds_up(reward):
    one, two = reward.cost([1]).flops, reward.cost([2]).flops
    assert 0 < one < two
    assert reward.cost([1, 2, 1]).flops == 2 * one + two
    assert reward.cost([]).flops == 0
    assert FrameReward(reward.network, chunk_frames=1).cost([1]).flops < one


def test_nan_stays_with_its_candidate(reward):
    bad = clip(3)
    bad[1, 0, 5, 5] = float("nan")
    scores = reward.score([clip(3), bad], [ONE, ONE])
    assert scores[0].finite and not scores[1].finite


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3, 64, 64), torch.zeros(0, 3, 64, 64), torch.zeros(3, 1, 64, 64), torch.zeros(1, 3, 64, 64).byte()],
)
def test_refuses_what_is_not_a_video(reward, content):
    with pytest.raises(VideoError, match="frame-reward"):
        reward.score([content], [ONE])


def test_comes_back_from_its_folder(reward, tmp_path):
    reward.network.config["normalisation"] = {"overall": [0.25, 2.0]}
    reward.save_pretrained(tmp_path / "a")
    first = FrameReward.load(tmp_path / "a", chunk_frames=1)
    assert first.chunk_frames == 1 and first.folder == tmp_path / "a"
    first.save_pretrained(tmp_path / "b")
    second = FrameReward.load(tmp_path / "b")
    content = [clip(3), clip(3, 1)]
    assert values(first, content, [TWO, ONE]) == values(second, content, [TWO, ONE])
    assert values(first, content, [TWO, ONE]) == pytest.approx(values(reward, content, [TWO, ONE]), abs=2e-3)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]
    assert sum(f.stat().st_size for f in (tmp_path / "a").iterdir()) < 5e6


def _edited(change):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "config cut short": (lambda f: (f / "config.json").write_text('{"wid'), "config.json"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "config.json"),
    "weights cut short": (lambda f: (f / "model.safetensors").write_bytes(b"12345678901"), "model.safetensors"),
    "another width": (_edited(lambda c: c.update(width=32)), "does not fit"),
    "an unknown field": (_edited(lambda c: c.update(colour="red")), "colour"),
    "another network": (_edited(lambda c: c.update(architecture="ClipNetwork")), "ClipNetwork"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_names_the_damaged_part(reward, tmp_path, name):
    damage, named = DAMAGE[name]
    reward.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=named):
        FrameReward.load(tmp_path)


def test_refuses_weights_that_are_not_numbers(reward, tmp_path):
    reward.network.judge[0].bias.data[0] = float("nan")
    reward.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="NaN"):
        FrameReward.load(tmp_path)


def test_a_folder_that_cannot_be_written(reward, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot save"):
        reward.save_pretrained(tmp_path / "file")


def test_settings_are_checked(reward):
    with pytest.raises(SettingError, match="chunk_frames = 0"):
        FrameReward(reward.network, chunk_frames=0)
    with pytest.raises(SettingError, match="units = 0"):
        ClipReward(ClipNetwork(WORDS), units=0)
