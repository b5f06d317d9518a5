"""Pruning a Wan transformer: units, removal against masks, export, and the clips that it is trained on."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from prunus.errors import FileError, ModelError, SettingError
from prunus.generators.video_model import VideoModel
from prunus.generators.wan_streaming import StreamingTransformer
from prunus.sparse import Masks
from prunus.sparse.importance import RewardDrop
from prunus.sparse.macs import macs
from prunus.sparse.models import load as load_model
from prunus.sparse.models.wan import Wan, bands
from prunus.sparse.scope import Units
from prunus.worlds import sprites


@pytest.fixture(scope="module")
def wan(video_folder):
    return Wan(video_folder, short=4, long=2, batch_size=2)


@pytest.fixture
def model(wan):
    return wan.build()


@pytest.fixture
def masks(wan, model):
    return Masks.of(model, wan.exclude())


def velocity(model):
    """Of two clips of two frames, under the streaming attention, with random latents and text."""
    draws = torch.Generator().manual_seed(1)
    latents, text = torch.randn(2, 4, 2, 8, 8, generator=draws), torch.randn(2, 5, 16, generator=draws)
    with torch.no_grad():
        return StreamingTransformer(model.eval()).clip_velocity(latents, torch.full((2, 2), 300.0), text)


def gone(units, **places):
    """A group of ``units`` -> which of its units are pruned; groups by the end of their names."""
    return {
        group: torch.tensor([i in next((v for k, v in places.items() if group.endswith(k)), []) for i in range(len(u))])
        for group, u in units.groups.items()
    }


def test_a_removed_channel_is_a_masked_channel_and_the_config_says_so(wan, model, masks):
    units = wan.units("channels", masks)
    pruned = units.without(masks, gone(units, ffn=[0, 7, 47]))
    smaller = wan.remove(model, pruned)
    assert smaller.config.ffn_dim == 45 and smaller.blocks[1].ffn.net[0].proj.weight.shape == (45, 48)
    assert model.config.ffn_dim == 48
    pruned.apply(model)
    assert torch.allclose(velocity(smaller), velocity(model), atol=1e-5)


def test_single_weights_that_are_pruned_stay_zero_in_what_is_left(wan, model, masks):
    units = wan.units("channels", masks)
    name = "blocks.0.ffn.net.0.proj.weight"
    rows = masks[name].clone()
    rows[3:9] = False  # rows alone: their biases still speak
    pruned = units.without(masks.changed({name: rows}), gone(units, ffn=[8, 20]))
    smaller = wan.remove(model, pruned)
    assert smaller.config.ffn_dim == 46
    pruned.apply(model)
    assert torch.allclose(velocity(smaller), velocity(model), atol=1e-5)


def test_a_removed_layer_is_one_that_adds_nothing(wan, model, masks):
    units = wan.units("layers", masks)
    smaller = wan.remove(model, units.without(masks, gone(units, layers=[0])))
    assert (smaller.config.num_layers, len(smaller.blocks), len(model.blocks)) == (1, 1, 2)
    with torch.no_grad():
        for parameter in model.blocks[0].parameters():
            parameter.zero_()
    assert torch.allclose(velocity(smaller), velocity(model), atol=1e-5)


def test_a_pruned_head_leaves_the_others_as_they_are(wan, model, masks):
    units = wan.units("heads", masks)
    assert set(units.groups) == {f"blocks.{i}.attn{j}" for i in (0, 1) for j in (1, 2)}
    pruned = units.without(masks, gone(units, attn1=[1], attn2=[0]))

    def without(lost):  # the slow way: what the attention hands to its output, with the head's part at zero
        def hook(module, inputs):
            heads = inputs[0].clone()
            heads[..., 24 * lost : 24 * lost + 24] = 0
            return (heads,)

        return hook

    slow = wan.build()
    for block in slow.blocks:
        block.attn1.to_out[0].register_forward_pre_hook(without(1))
        block.attn2.to_out[0].register_forward_pre_hook(without(0))
    pruned.apply(model)
    assert torch.allclose(velocity(model), velocity(slow), atol=1e-6)
    with pytest.raises(ModelError, match="ties the width"):
        wan.remove(model, pruned)


def test_what_a_config_cannot_say_is_refused(wan, model, masks):
    channels, layers = wan.units("channels", masks), wan.units("layers", masks)
    uneven = channels.without(masks, {"blocks.0.ffn": torch.arange(48) < 3})
    with pytest.raises(ModelError, match=r"widths left differ \(blocks.0 45, blocks.1 48\)"):
        wan.remove(model, uneven)
    both = layers.without(uneven, gone(layers, layers=[1]))
    assert wan.remove(model, both).config.ffn_dim == 45  # one layer, one width
    with pytest.raises(ModelError, match="nothing can be removed"):
        wan.remove(model, masks)
    with pytest.raises(ModelError, match="keep at least one"):
        wan.remove(model, layers.without(masks, gone(layers, layers=[0, 1])))
    with pytest.raises(ModelError, match="keep at least one in each layer"):
        wan.remove(model, channels.without(masks, gone(channels, ffn=range(48))))
    with pytest.raises(SettingError, match="kind"):
        wan.units("filters", masks)
    with pytest.raises(SettingError, match="data"):
        load_model(wan.folder, ["clips.jsonl"])


def test_bands_part_the_channels_by_their_ranks(wan, masks):
    scores = {f"blocks.{i}.ffn": torch.randperm(48, generator=torch.Generator().manual_seed(i)) for i in (0, 1)}
    for group, units in bands(masks, scores, 8).groups.items():
        places = [unit[f"{group}.net.0.proj.weight"][0].tolist() for unit in units]
        assert sorted(i for band in places for i in band) == list(range(48)) and {len(band) for band in places} == {6}
        assert [scores[group][band].max().item() for band in places] == [5, 11, 17, 23, 29, 35, 41, 47]
        assert all(torch.equal(u[f"{group}.net.2.weight"][1], u[f"{group}.net.0.proj.weight"][0]) for u in units)


def test_the_drop_of_a_reward_is_that_of_the_network_without_the_unit(wan, model, masks):
    before = {name: p.clone() for name, p in model.named_parameters()}

    def reward(network):
        return float(velocity(network).square().mean())

    layers = Units(wan.units("layers", masks).groups, "mean")
    found = layers.scores(RewardDrop(reward, layers).scores(model, masks))["layers"]
    for place in (0, 1):
        lost = wan.remove(model, layers.without(masks, gone(layers, layers=[place])))
        assert float(found[place]) == pytest.approx(reward(model) - reward(lost), abs=1e-5)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


SHOW = """
import sys, torch
from prunus.generators.streaming_video import StreamingVideo
from prunus import search
from prunus.strategies import BestOfN
video = StreamingVideo.load(sys.argv[1], frames=6)
tree = search("a red circle moving right", video, lambda frames, prompt: float(frames.mean()), BestOfN(1))
print(video.model.config.ffn_dim, video.model.config.num_layers, float(tree.best().output.double().sum()))
print(tree.spent.generating.flops)
"""


def shown(folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SHOW, folder], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_exported_folder_streams_in_another_process(wan, model, masks, tmp_path):
    channels, layers = wan.units("channels", masks), wan.units("layers", masks)
    pruned = channels.without(masks, gone(channels, ffn=range(24)))
    facts = wan.export(wan.remove(model, pruned), None, tmp_path / "narrow")
    assert facts["files"]["streaming.json"] > 0 and "real on any" in facts["speed_up"]
    width, depth, pixels, flops = shown(tmp_path / "narrow")
    assert (width, depth) == ("24", "2")
    masked = wan.export(model, pruned, tmp_path / "masked")
    assert "none on ordinary" in masked["speed_up"] and Masks.load(tmp_path / "masked" / "masks.safetensors") == pruned
    assert bool(model.blocks[0].ffn.net[0].proj.weight[0].any())  # the caller's model is as it was
    _, _, pixels_of_masked, flops_of_masked = shown(tmp_path / "masked")
    assert float(pixels) == pytest.approx(float(pixels_of_masked), rel=1e-4)
    # Three chunks' worth of forwards at 48 tokens: 4 + 1 + 4, each with 2 layers of 2 * 24 * 48 fewer products a token.
    assert int(flops_of_masked) - int(flops) == 2 * 9 * 48 * 2 * (2 * 24 * 48)
    short = wan.remove(model, layers.without(masks, gone(layers, layers=[1])))
    wan.export(short, None, tmp_path / "short")
    config = json.loads((tmp_path / "short" / "transformer" / "config.json").read_text())
    assert config["num_layers"] == 1 and str(wan.folder) not in json.dumps(config)
    with pytest.raises(FileError, match="exists"):
        wan.export(short, None, tmp_path / "short")


def test_weights_are_written_in_the_format_that_they_were_stored_in(wan, video_folder, tmp_path):
    half = wan.build().half()
    half.save_pretrained(tmp_path / "half" / "transformer")
    for part in video_folder.iterdir():
        if part.name != "transformer":
            (tmp_path / "half" / part.name).symlink_to(part)
    again = Wan(tmp_path / "half")
    again.export(again.build(), None, tmp_path / "again")
    from safetensors import safe_open

    with safe_open(tmp_path / "again" / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert file.get_slice("blocks.0.ffn.net.2.weight").get_dtype() == "F16"


def test_batches_are_of_the_train_split_and_follow_from_order_and_step(wan, model, monkeypatch):
    asked = []
    usual = sprites.split

    def split(name, sprites=None):
        asked.append(name)
        return tuple(p for p in usual(name, sprites) if not {"purple", "yellow", "cyan"} & set(p.split()))

    monkeypatch.setattr(sprites, "split", split)
    task = wan.task
    batch, again, other = task.batch(0, 3), task.batch(0, 3), task.batch(1, 3)
    assert set(asked) == {"train"}
    assert torch.equal(batch.clips.latents, again.clips.latents) and torch.equal(batch.text, again.text)
    assert batch.clips.latents.shape != other.clips.latents.shape or not torch.equal(
        batch.clips.latents, other.clips.latents
    )
    loss = task.loss(model, batch)
    loss.backward()
    assert loss.item() > 0 and all(p.grad is not None for p in model.blocks.parameters())
    before = task.evaluate(model, "validation")
    assert before == task.evaluate(model, "validation") and before.score == -before.loss
    assert set(asked) == {"train"}
    with pytest.raises(SettingError, match="split"):
        task.evaluate(model, "dev")


def test_counting_knows_the_smaller_network(wan, model, masks):
    example = wan.task.example
    units = wan.units("channels", masks)
    smaller = wan.remove(model, units.without(masks, gone(units, ffn=range(12))))
    assert macs(model, example) - macs(smaller, example) == 2 * 48 * (2 * 12 * 48)  # layers, tokens, products
    assert isinstance(model, nn.Module) and VideoModel.load(wan.folder).config.ffn_dim == 48


def test_a_folder_of_another_world_has_no_data_here(video_folder, tmp_path):
    for part in video_folder.iterdir():
        (tmp_path / part.name).symlink_to(part) if part.name != "streaming.json" else None
    streaming = {**json.loads((video_folder / "streaming.json").read_text()), "world": None}
    (tmp_path / "streaming.json").write_text(json.dumps(streaming))
    with pytest.raises(ModelError, match="Task of your own"):
        _ = Wan(tmp_path).task
