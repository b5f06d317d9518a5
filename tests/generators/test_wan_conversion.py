"""Original weights to diffusers: every parameter has one source, and the converted model computes the same."""

import original_wan as wan
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from prunus.errors import ModelError
from prunus.generators.wan_checkpoint import Checkpoint
from prunus.generators.wan_conversion import plan, write_transformer


def test_the_published_model_is_read_from_its_shapes_and_every_parameter_has_one_source():
    """Wan2.1-T2V-1.3B: sizes of its published config.json, shapes worked out from them, nothing in memory."""
    dim, feed, layers = 1536, 8960, 30
    shapes = {
        "patch_embedding.weight": (dim, 16, 1, 2, 2), "patch_embedding.bias": (dim,),
        "text_embedding.0.weight": (dim, 4096), "text_embedding.2.weight": (dim, dim),
        "time_embedding.0.weight": (dim, 256), "time_embedding.2.weight": (dim, dim),
        "time_projection.1.weight": (6 * dim, dim), "head.head.weight": (64, dim), "head.modulation": (1, 2, dim),
    }  # fmt: skip
    for i in range(layers):
        block = {f"{part}_attn.{x}.weight": (dim, dim) for part in ("self", "cross") for x in "qkvo"}
        block |= {f"{part}_attn.norm_{x}.weight": (dim,) for part in ("self", "cross") for x in "qk"}
        block |= {"ffn.0.weight": (feed, dim), "ffn.2.weight": (dim, feed)}
        block |= {"norm3.weight": (dim,), "modulation": (1, 6, dim)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    names = wan.names(layers)
    for name in names:
        if name not in shapes:  # a bias is as long as its weight has rows
            shapes[name] = shapes[name.removesuffix("bias") + "weight"][:1]
    with torch.device("meta"):
        planned = plan({f"model.{name}": torch.empty(shape) for name, shape in shapes.items()})
    config = planned.model.config
    assert (config.num_layers, config.num_attention_heads, config.attention_head_dim) == (30, 12, 128)
    assert (config.ffn_dim, config.text_dim, config.freq_dim, config.in_channels) == (8960, 4096, 256, 16)
    assert len(planned.sources) == 825 and planned.count == 1_418_996_800
    assert {source.removeprefix("model."): target for target, source in planned.sources.items()} == names


@pytest.mark.parametrize("prefix", ["model.", "model._fsdp_wrapped_module.", "", "model.diffusion_model."])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_round_trip_gives_equal_outputs(tmp_path, prefix, suffix):
    source = wan.transformer()
    file, folder = tmp_path / f"checkpoint.{suffix}", tmp_path / "transformer"
    tensors = wan.original(source, prefix)
    save_file(tensors, file) if suffix == "safetensors" else torch.save({"generator": tensors}, file)
    checkpoint = Checkpoint.open(file)
    files = write_transformer(plan(checkpoint.tensors), checkpoint, folder, shard=200_000)
    assert files > 3 and len(list(folder.glob("*.safetensors"))) == files
    converted = WanTransformer3DModel.from_pretrained(folder).eval()
    assert torch.equal(wan.output(converted), wan.output(source))
    assert converted.config.num_layers == 2


def test_a_checkpoint_keeps_its_dtype(tmp_path):
    file = tmp_path / "checkpoint.pt"
    torch.save({"model": {n: t.bfloat16() for n, t in wan.original(wan.transformer()).items()}}, file)
    checkpoint = Checkpoint.open(file)
    assert write_transformer(plan(checkpoint.tensors), checkpoint, tmp_path / "transformer") == 1
    weights = Checkpoint.open(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").tensors
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (tmp_path / "transformer").iterdir())


@pytest.fixture
def tensors():
    return wan.original(wan.transformer())


def test_what_does_not_fit_is_named(tensors):
    del tensors["model.blocks.1.cross_attn.k.bias"]
    tensors["model.blocks.0.extra"] = torch.ones(1)
    tensors["model._fsdp_wrapped_module.head.modulation"] = tensors["model.head.modulation"]
    tensors["model.blocks.0.norm3.bias"] = torch.ones(7)
    with pytest.raises(ModelError) as refused:
        plan(tensors, strays=["model.note"])
    message = str(refused.value)
    assert "unknown: model.blocks.0.extra, model.note;" in message
    assert "missing: blocks.1.attn2.to_k.bias 128;" in message
    assert (
        "doubled: scale_shift_table (model.head.modulation and model._fsdp_wrapped_module.head.modulation)" in message
    )
    assert "misshapen: model.blocks.0.norm3.bias 7 instead of 128" in message


def test_many_names_are_counted(tensors):
    """A block has 27 parameters; without the first of three, the two that are left cannot be the first two."""
    three = wan.original(wan.transformer(3))
    lost = {n: t for n, t in three.items() if not n.startswith("model.blocks.1.")}
    with pytest.raises(ModelError, match=r"unknown: (model\.blocks\.2\.\S+ ?){10}and 17 more; missing: .* and 17 more"):
        plan(lost)


def test_other_models_are_told_apart(tensors):
    image = {**tensors, "model.img_emb.proj.0.weight": torch.ones(1)}
    with pytest.raises(ModelError, match="image-to-video"):
        plan(image)
    wider = {**tensors, "model.patch_embedding.weight": torch.ones(128, 36, 1, 2, 2)}
    with pytest.raises(ModelError, match=r"image-to-video model \(it reads 36 channels and writes 4"):
        plan(wider)
    with pytest.raises(ModelError, match=r"no Wan generator: missing patch_embedding\.weight, .*it holds layer"):
        plan({"layer": torch.ones(1)})
    with pytest.raises(ModelError, match="diffusers' names already"):
        plan(wan.transformer().state_dict())
