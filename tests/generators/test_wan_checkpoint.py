"""Checkpoints as trainers write them: what is taken, under which names, and what is refused."""

import json
import os

import original_wan as wan
import pytest
import torch
from safetensors.torch import save_file

from prunus.errors import FileError, ModelError, SettingError
from prunus.generators.wan_checkpoint import Checkpoint, bare, some


@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.self_attn.q.weight",
        "model.blocks.0.self_attn.q.weight",
        "model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.self_attn.q.weight",
        "module.model._orig_mod.blocks.0._checkpoint_wrapped_module.self_attn.q.weight",
        "model.diffusion_model.blocks.0.self_attn.q.weight",
        "base_model.model.blocks.0.self_attn.q.weight",
    ],
)
def test_wrappers_leave_no_trace_in_names(name):
    assert bare(name) == "blocks.0.self_attn.q.weight"


def test_ten_names_are_told_and_how_many_more_there_are():
    assert some([str(i) for i in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert some([str(i) for i in range(13)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more"


def test_the_averaged_generator_is_taken_unless_another_is_wanted(tmp_path):
    file = tmp_path / "model.pt"
    a, b, c = (torch.full((2, 3), float(i)) for i in range(3))
    torch.save({"generator": {"w": a}, "generator_ema": {"w": b}, "critic": {"w": c}, "step": 7}, file)
    taken = Checkpoint.open(file)
    assert (taken.nest, taken.others) == ("generator_ema", ("generator",))
    assert taken.tensors["w"].is_meta and taken.tensors["w"].shape == (2, 3)
    assert torch.equal(taken.read(["w"])["w"], b)
    assert torch.equal(Checkpoint.open(file, wanted="generator").read(["w"])["w"], a)
    assert torch.equal(Checkpoint.open(file, wanted="critic").read(["w"])["w"], c)
    with pytest.raises(SettingError, match="no weights named 'ema'; it holds generator, generator_ema, critic"):
        Checkpoint.open(file, wanted="ema")


def test_shards_of_safetensors_are_one_checkpoint(tmp_path):
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    for name, tensor in tensors.items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    for path in (tmp_path, index):
        taken = Checkpoint.open(path)
        assert taken.nest is None and set(taken.tensors) == {"a", "b"}
        assert torch.equal(taken.read(["b"])["b"], tensors["b"])
    os.remove(tmp_path / "b.safetensors")
    with pytest.raises(FileError, match=r"not beside it: b\.safetensors"):
        Checkpoint.open(tmp_path)


def test_a_folder_must_hold_one_checkpoint(tmp_path):
    with pytest.raises(FileError, match="holds no checkpoint"):
        Checkpoint.open(tmp_path)
    for name in ("a.pt", "b.pt"):
        torch.save({"model": {"w": torch.ones(1)}}, tmp_path / name)
    with pytest.raises(FileError, match=r"2 checkpoints \(a.pt, b.pt\)"):
        Checkpoint.open(tmp_path)


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_of_more_than_tensors_is_refused_and_not_run(tmp_path):
    file, made = tmp_path / "model.pt", tmp_path / "made"
    torch.save({"generator": {"w": torch.ones(1)}, "config": Touch(made)}, file)
    with pytest.raises(ModelError, match=r"more than tensors \(\S*open\S*\), which is not unpickled"):
        Checkpoint.open(file)
    assert not made.exists()


def test_what_is_no_checkpoint_is_told(tmp_path):
    text = tmp_path / "pointer.pt"
    text.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(FileError, match="git-lfs pointer"):
        Checkpoint.open(text)
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save({"model": {"w": torch.ones(1000)}}, whole)
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(FileError, match="cut short"):
        Checkpoint.open(cut)
    old = tmp_path / "old.pt"
    torch.save({"model": {"w": torch.ones(1)}}, old, _use_new_zipfile_serialization=False)
    with pytest.raises(FileError, match=r"before 1\.6"):
        Checkpoint.open(old)
    numbers = tmp_path / "numbers.pt"
    torch.save([1, 2], numbers)
    with pytest.raises(ModelError, match="holds a list"):
        Checkpoint.open(numbers)
    adapter = tmp_path / "lora.pt"
    torch.save({"generator_lora": wan.lora(), "critic_lora": wan.lora()}, adapter)
    with pytest.raises(ModelError, match="not a checkpoint of a generator; a LoRA is given with --lora"):
        Checkpoint.open(adapter)
    broken = tmp_path / "broken.safetensors"
    broken.write_text("x")
    with pytest.raises(FileError, match="cannot be read as safetensors"):
        Checkpoint.open(broken)
    with pytest.raises(FileError, match="is not there"):
        Checkpoint.open(tmp_path / "absent.pt")
