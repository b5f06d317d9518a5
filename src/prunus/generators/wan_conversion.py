"""Original Wan weights to diffusers' WanTransformer3DModel: checked as a whole on the meta device, then shard by shard.

Names are mapped by diffusers' own conversion. The configuration is read from the shapes; only the number of heads does
not stand in them: a head has 128 dimensions in every published Wan.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunus.errors import ModelError
from prunus.generators.wan_checkpoint import Checkpoint, bare, refuse, size_of, some
from prunus.generators.wan_lora import Lora

HEAD_DIM = 128


@dataclass(frozen=True)
class Plan:
    """A checked conversion."""

    model: Any
    """A WanTransformer3DModel on the meta device."""
    sources: dict[str, str]
    """Parameter of the model -> name in the checkpoint."""
    parameters: dict[str, torch.Tensor]
    """The same parameters on the meta device, in the checkpoint's dtypes."""

    @property
    def count(self) -> int:
        return sum(tensor.numel() for tensor in self.parameters.values())

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.parameters.values())


def plan(tensors: Mapping[str, torch.Tensor], strays: Iterable[str] = ()) -> Plan:
    """Check that every parameter has exactly one source of its shape. ``tensors`` may be on the meta device.

    Raises ModelError that names what is unknown, missing, doubled or misshapen, or what kind of checkpoint it is.
    """
    from diffusers import WanTransformer3DModel

    config = _config({bare(name): tuple(tensor.shape) for name, tensor in tensors.items()})
    with torch.device("meta"):
        model = WanTransformer3DModel.from_config(config)
    wanted = model.state_dict()
    found: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        for target in _diffusers_names(bare(name), tensor.to("meta")):
            found.setdefault(target, []).append(name)
    refuse(
        "the checkpoint does not fit diffusers' Wan transformer",
        unknown=[*(n for target, names in found.items() if target not in wanted for n in names), *strays],
        missing=[f"{target} {size_of(wanted[target])}" for target in wanted if target not in found],
        doubled=[f"{t} ({' and '.join(n)})" for t, n in found.items() if t in wanted and len(n) > 1],
        misshapen=[
            f"{names[0]} {size_of(tensors[names[0]])} instead of {size_of(wanted[target])}"
            for target, names in found.items()
            if target in wanted and tensors[names[0]].shape != wanted[target].shape
        ],
    )
    sources = {target: found[target][0] for target in wanted}
    return Plan(model, sources, {target: tensors[source].to("meta") for target, source in sources.items()})


def write_transformer(
    planned: Plan,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    lora: Lora | None = None,
    shard: int | str = "1GB",
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> int:
    """Write config and safetensors into ``folder``; one shard of at most ``shard`` bytes is in memory at a time.

    Returns the number of shards. ``progress`` wraps the list of shards. Raises OSError if the folder cannot be written.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    planned.model.save_config(folder)
    split = split_torch_state_dict_into_shards(
        planned.parameters, filename_pattern="diffusion_pytorch_model{suffix}.safetensors", max_shard_size=shard
    )
    for file, targets in progress(list(split.filename_to_tensors.items())):
        weights = checkpoint.read([planned.sources[target] for target in targets])
        if lora is not None:
            lora.merge(weights)
        tensors = {target: weights[planned.sources[target]].contiguous() for target in targets}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors lets only its owner read a file
        del weights, tensors  # before the next shard is read
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return len(split.filename_to_tensors)


def _diffusers_names(name: str, tensor: torch.Tensor) -> list[str]:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    # One at a time: two names that become the same one would hide each other.
    return list(convert_wan_transformer_to_diffusers({name: tensor}))


def _config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    if any(name.startswith("condition_embedder.") for name in shapes):
        raise ModelError("the checkpoint has diffusers' names already; put it into a transformer folder as it is")
    needed = {
        "patch_embedding.weight": 5, "text_embedding.0.weight": 2, "time_embedding.0.weight": 2,
        "blocks.0.ffn.0.weight": 2, "head.head.weight": 2,
    }  # fmt: skip
    if absent := [name for name, axes in needed.items() if len(shapes.get(name, ())) != axes]:
        raise ModelError(
            f"the checkpoint holds no Wan generator: missing {some(absent)}; it holds {some(list(shapes))}"
        )
    dim, channels, *patch = shapes["patch_embedding.weight"]
    out_channels = shapes["head.head.weight"][0] // (patch[0] * patch[1] * patch[2])
    if channels != out_channels or any(name.startswith("img_emb.") for name in shapes):
        raise ModelError(
            f"the checkpoint is an image-to-video model (it reads {channels} channels and writes {out_channels}, or "
            "reads an image's embedding); only text-to-video generators can be converted"
        )
    if dim % HEAD_DIM:
        raise ModelError(f"the checkpoint is {dim} wide; a Wan generator has heads of {HEAD_DIM} dimensions")
    return {
        "patch_size": patch,
        "num_attention_heads": dim // HEAD_DIM,
        "attention_head_dim": HEAD_DIM,
        "in_channels": channels,
        "out_channels": out_channels,
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        # Their number, not the highest: a block that is absent is then named as missing.
        "num_layers": len({match[1] for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))}),
        "cross_attn_norm": any(name.startswith("blocks.0.norm3.") for name in shapes),
    }
