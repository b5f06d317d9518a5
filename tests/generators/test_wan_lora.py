"""LongLive's LoRA: merged, it gives what the generator gives with the LoRA beside it."""

import original_wan as wan
import pytest
import torch
from diffusers import WanTransformer3DModel

from prunus.errors import ModelError
from prunus.generators.wan_checkpoint import Checkpoint
from prunus.generators.wan_conversion import plan, write_transformer
from prunus.generators.wan_lora import open_lora


class Beside(torch.nn.Module):
    """A linear layer with its LoRA at run time: W x + alpha / rank * B (A x)."""

    def __init__(self, layer, a, b, scale):
        super().__init__()
        self.layer, self.a, self.b, self.scale = layer, a, b, scale

    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.a.T) @ self.b.T


@pytest.fixture
def generator(tmp_path):
    torch.save({"generator": wan.original(wan.transformer())}, tmp_path / "base.pt")
    return Checkpoint.open(tmp_path / "base.pt")


@pytest.mark.parametrize("alpha, scale", [(None, 1.0), (2.0, 0.5)])
def test_merged_equals_beside(tmp_path, generator, alpha, scale):
    factors = wan.lora(rank=4)
    torch.save({"generator_lora": factors, "critic_lora": wan.lora(rank=2)}, tmp_path / "lora.pt")
    changes = open_lora(tmp_path / "lora.pt", generator, alpha)
    assert changes.ranks == (4,) and len(changes.factors) == 20
    write_transformer(plan(generator.tensors), generator, tmp_path / "out", lora=changes, shard=200_000)

    beside = wan.transformer()
    for i in range(2):
        for name in wan.LINEAR:
            path = f"blocks.{i}.{wan.BLOCK[name]}"
            layer = f"base_model.model.blocks.{i}.{name}"
            a, b = (factors[f"{layer}.lora_{x}.weight"] for x in "AB")
            beside.set_submodule(path, Beside(beside.get_submodule(path), a, b, scale))
    merged = WanTransformer3DModel.from_pretrained(tmp_path / "out").eval()
    assert torch.allclose(wan.output(merged), wan.output(beside), atol=1e-5)
    assert not torch.allclose(wan.output(merged), wan.output(wan.transformer()), atol=1e-2)


def test_a_lora_of_another_model_is_named(tmp_path, generator):
    factors = wan.lora()
    layer = "base_model.model.blocks.0.self_attn"
    factors[f"{layer}.q.lora_magnitude_vector"] = torch.ones(1)
    factors["base_model.model.blocks.7.self_attn.q.lora_A.weight"] = torch.ones(4, 128)
    factors[f"{layer}.v.lora_A.default.weight"] = torch.ones(4, 128)
    factors[f"{layer}.k.lora_A.weight"] = torch.ones(4, 64)
    del factors[f"{layer}.o.lora_B.weight"]
    torch.save(factors, tmp_path / "lora.pt")
    with pytest.raises(ModelError) as refused:
        open_lora(tmp_path / "lora.pt", generator)
    message = str(refused.value)
    assert f"unknown: {layer}.q.lora_magnitude_vector, base_model.model.blocks.7.self_attn.q.lora_A.weight;" in message
    assert "missing: lora_B of blocks.0.self_attn.o.weight;" in message
    assert "doubled: blocks.0.self_attn.v.weight (" in message
    assert "misshapen: blocks.0.self_attn.k.weight: B 128x4, A 4x64, W 128x128" in message
