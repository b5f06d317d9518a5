"""A noise-aware reward reads each estimate with the network for its number of steps."""

import shutil

import pytest
import torch

from prunus import pocket
from prunus.errors import ModelError, SettingError
from prunus.generators.video_model import Streaming
from prunus.rewards import ClipReward, FrameReward, NoiseAwareReward
from prunus.testing import check_reward

PROMPTS = ["a red circle moving right", "a blue square standing still"]


def contents(*steps):
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(3, 3, 64, 64, generator=generator), step) for step in steps]


@pytest.mark.parametrize(("name", "kind"), [("preview-reward", ClipReward), ("image-preview-reward", FrameReward)])
def test_every_step_has_its_network(name, kind):
    reward = NoiseAwareReward.load(pocket.path(name))
    shown = contents(3, 1, 2, 1)
    found = reward.score(shown, [PROMPTS[0]] * 4)
    for (frames, step), score in zip(shown, found, strict=True):
        network = kind.load(pocket.path(name) / f"step-{step}")
        assert score.value == pytest.approx(network.score([frames], PROMPTS[:1])[0].value, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", ["preview-reward", "image-preview-reward"])
def test_the_packaged_ones_keep_the_contract(name):
    reward = NoiseAwareReward.load(pocket.path(name))
    check_reward(reward, contents(1, 2, 2), [PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    assert reward.cost([1]).flops > 0


def test_a_step_without_a_network_is_an_error_not_the_plain_reward():
    reward = NoiseAwareReward.load(pocket.path("preview-reward"))
    with pytest.raises(SettingError, match="cannot read estimates after 8 steps; it was trained for 1, 2, 3, 4"):
        reward.score(contents(8), PROMPTS[:1])


def test_a_folder_without_networks_is_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no step-1"):
        NoiseAwareReward.load(tmp_path)


def test_it_knows_the_sampler_that_it_was_trained_for(tmp_path):
    streaming = Streaming.load(pocket.path("video"))
    assert NoiseAwareReward.load(pocket.path("preview-reward")).sampler == streaming.euler(8).spec()
    assert NoiseAwareReward.load(pocket.path("image-preview-reward")).sampler == streaming.euler(20).spec()
    shutil.copytree(pocket.path("preview-reward"), tmp_path / "mine")
    (tmp_path / "mine" / "sampler.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        NoiseAwareReward.load(tmp_path / "mine")
