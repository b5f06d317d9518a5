"""A streaming Wan folder as a model to prune: its ``WanTransformer3DModel``, trained on clips of its world.

| unit | its weights | really removed? |
|---|---|---|
| channel | a row of ``ffn.net.0.proj`` and a column of ``ffn.net.2``; they compete inside a layer | yes, if all layers keep the same number: a Wan config has one ``ffn_dim`` |
| head | its rows of ``to_v`` and columns of ``to_out``, in self- and in cross-attention | no: the config ties the width to the heads, so masks only |
| layer | all weights of a block | yes: ``num_layers`` |

A head's query and key rows are no part of its unit: ``norm_q`` and ``norm_k`` divide by the root mean square over all
heads, so zeros there would sharpen every other head's attention. Without values and output the head adds nothing, and
the others stay as they are, bit for bit. A layer's masks leave the biases of its outputs; removing the block removes
them too.
"""  # noqa: E501

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import ModelError, require
from prunus.generators.video_model import VideoModel
from prunus.import_path import find_object
from prunus.sparse.macs import parameters
from prunus.sparse.masks import Masks
from prunus.sparse.methods.layer_lottery import drop_blocks
from prunus.sparse.models.folder import sizes, write_json, written_whole
from prunus.sparse.models.model import UNIT_KINDS, speed_up
from prunus.sparse.models.plain_data import as_task
from prunus.sparse.models.wan_clips import Clips
from prunus.sparse.scope import Unit, Units, layers
from prunus.sparse.task import Task

STORED = {"F16": torch.float16, "BF16": torch.bfloat16}
IN, OUT = "ffn.net.0.proj", "ffn.net.2"


def load(
    model: str | Path, data: Sequence[str | Path] = (), *,
    short: int = 480, long: int = 60, batch_size: int = 16, seed: int = 0, device: str = "cpu",
) -> Wan:  # fmt: skip
    """The streaming model in a folder. It is trained on clips of its own world, for which ``short``, ``long`` and
    ``batch_size`` are, or by a task of yours: ``data`` is then one ``package.module:task``, a function that takes the
    ``VideoModel`` and gives a ``Task``. SettingError for other data."""
    require(len(data) <= 1, "data", [str(d) for d in data], "none, or one import path, package.module:task")
    maker = find_object("--data", str(data[0])) if data else None
    return Wan(Path(model), short, long, batch_size, seed, device, maker)


@dataclass(frozen=True, eq=False)
class Wan:
    """The folder at ``folder``; ``short`` and ``long`` are how many clips of each length to train on."""

    folder: Path
    short: int = 480
    long: int = 60
    batch_size: int = 16
    seed: int = 0
    device: str = "cpu"
    maker: Callable[[VideoModel], Task] | None = None
    """Makes another task than ``Clips``."""

    kind = "wan"
    pretrained = True

    @cached_property
    def video(self) -> VideoModel:
        return VideoModel.load(self.folder, self.device)

    @cached_property
    def task(self) -> Task:
        if self.maker is not None:
            return as_task(self.maker(self.video))
        return Clips(self.video, self.short, self.long, batch_size=self.batch_size, seed=self.seed)

    def build(self) -> nn.Module:
        return copy.deepcopy(self.video.transformer.transformer).requires_grad_(True)

    def exclude(self) -> tuple[str, ...]:
        """All that stands outside the blocks."""
        return ("proj_out.*", "patch_embedding.*", "condition_embedder.*")

    def unit_kinds(self) -> tuple[str, ...]:
        return UNIT_KINDS

    def units(self, kind: str, masks: Masks) -> Units:
        require(kind in UNIT_KINDS, "kind", kind, ", ".join(UNIT_KINDS))
        blocks = sorted({int(name.split(".")[1]) for name in masks if name.startswith("blocks.")})
        if kind == "layers":
            return layers(masks, [f"blocks.{i}" for i in blocks])
        if kind == "channels":
            return channels(masks, blocks)
        width = self.video.config.attention_head_dim
        names = [f"blocks.{i}.{attention}" for i in blocks for attention in ("attn1", "attn2")]
        return Units({name: _heads(name, masks, width) for name in names})

    def generator(self, model: nn.Module) -> VideoModel:
        """The folder's other parts with another transformer, ready to stream; it is in evaluation mode then."""
        return self.video.with_transformer(model.eval())

    def remove(self, model: nn.Module, masks: Masks) -> nn.Module:
        return remove(model, masks)

    def export(self, model: nn.Module, masks: Masks | None, out: Path) -> dict[str, Any]:
        """The folder with this transformer, in the old one's number format; with ``masks`` also these, and zeros.

        Its README is left out: what it says is of the old transformer.
        """
        if masks is not None:
            model = copy.deepcopy(model)
            masks.apply(model)
        facts = {
            "kind": self.kind,
            "load": "prunus video --model FOLDER",
            "speed_up": speed_up(masks, parameters(model) < parameters(self.video.transformer.transformer)),
        }
        with written_whole(Path(out)) as draft:
            for part in self.folder.iterdir():
                if part.is_dir() and part.name != "transformer":
                    shutil.copytree(part, draft / part.name)
                elif part.name in ("streaming.json", "model_index.json", "prompt_embeds.safetensors"):
                    shutil.copy(part, draft / part.name)
            smaller: Any = copy.deepcopy(model).to(_stored_as(self.folder / "transformer"))
            smaller.save_pretrained(draft / "transformer")
            config = draft / "transformer" / "config.json"
            # Where the dense one was loaded from is nobody's business.
            write_json(config, {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"})
            if masks is not None:
                masks.save(draft / "masks.safetensors", {"kind": self.kind})
            write_json(draft / "pruning.json", facts)
        return {**facts, "files": sizes(Path(out))}


def _stored_as(transformer: Path) -> torch.dtype:
    """The number format that most of the weights are stored in."""
    from safetensors import safe_open

    counts: dict[torch.dtype, int] = {}
    for file in sorted(transformer.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                tensor = opened.get_slice(name)
                kind = STORED.get(tensor.get_dtype(), torch.float32)
                counts[kind] = counts.get(kind, 0) + math.prod(tensor.get_shape())
    return max(counts, key=lambda kind: counts[kind], default=torch.float32)


def channels(masks: Masks, blocks: Sequence[int], reduce: str = "sum") -> Units:
    """The feed-forward channels, a group a block."""
    groups = {}
    for block in blocks:
        rows, columns = (f"blocks.{block}.{part}.weight" for part in (IN, OUT))
        groups[f"blocks.{block}.ffn"] = [_channels(rows, columns, [i]) for i in range(len(masks[rows]))]
    return Units(groups, reduce)


def bands(masks: Masks, scores: Mapping[str, Tensor], count: int) -> Units:
    """The same channels in ``count`` units a block, of equal ranks by ``scores`` (a group of ``channels`` -> (n,)):
    coarse enough to ask a slow reward about each. They reduce by ``mean``."""
    groups = {}
    for group, values in scores.items():
        rows, columns = (f"{group.removesuffix('ffn')}{part}.weight" for part in (IN, OUT))
        require(1 <= count <= len(values), "count", count, f"from 1 to the {len(values)} channels")
        order = values.argsort(stable=True)
        groups[group] = [_channels(rows, columns, sorted(band.tolist())) for band in order.tensor_split(count)]
    return Units(groups, "mean")


def _channels(rows: str, columns: str, places: Sequence[int]) -> Unit:
    index = torch.tensor(places)
    return {rows: (index,), columns: (slice(None), index)}


def _heads(attention: str, masks: Masks, width: int) -> list[Unit]:
    values, out = f"{attention}.to_v.weight", f"{attention}.to_out.0.weight"
    parts = [slice(start, start + width) for start in range(0, len(masks[values]), width)]
    return [{values: (part,), out: (slice(None), part)} for part in parts]


def remove(model: Any, masks: Masks) -> Any:
    """A copy with fewer blocks and a narrower feed-forward, whose config says so.

    A channel goes if nothing reads it: if its column of ``ffn.net.2`` is wholly pruned (a pruned row alone leaves the
    constant that its bias makes). Raises ModelError for what a Wan config cannot say: other shapes, different widths.
    """
    names = [f"blocks.{i}" for i in range(len(model.blocks))]
    gone = [name for name in names if not any(bool(m.any()) for n, m in masks.items() if n.startswith(f"{name}."))]
    if len(gone) == len(names):
        raise ModelError("all blocks are pruned; keep at least one")
    _check_heads(model, masks, gone)
    every = torch.ones(1, model.config.ffn_dim, dtype=torch.bool)
    kept = {name: masks.get(f"{name}.{OUT}.weight", every).any(0) for name in names if name not in gone}
    widths = {name: int(channels.sum()) for name, channels in kept.items()}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ModelError(
            f"the feed-forward widths left differ ({listed}), and a Wan config has one ffn_dim; prune the same number "
            "of channels in each layer (allocation Uniform), or export masks"
        )
    width = next(iter(widths.values()))
    if width == 0:
        raise ModelError("all feed-forward channels are pruned; keep at least one in each layer")
    if not gone and width == model.config.ffn_dim:
        raise ModelError("no layer and no feed-forward channel is wholly pruned: nothing can be removed; export masks")
    smaller: Any = copy.deepcopy(model)
    masks.apply(smaller)
    with torch.no_grad():
        for name, channels in kept.items():
            net = smaller.get_submodule(name).ffn.net
            net[0].proj, net[2] = _linear(net[0].proj, rows=channels), _linear(net[2], columns=channels)
    smaller = drop_blocks(smaller, gone)
    smaller.register_to_config(ffn_dim=width, num_layers=len(smaller.blocks))
    return smaller


def _check_heads(model: Any, masks: Masks, gone: Sequence[str]) -> None:
    size = model.config.attention_head_dim
    for name, mask in masks.items():
        if name.rpartition(".attn")[0] in gone or not name.endswith(".to_v.weight"):
            continue
        if pruned := [i for i, head in enumerate(mask.split(size)) if not head.any()]:
            raise ModelError(
                f"{name.removesuffix('.to_v.weight')} has lost head {', '.join(map(str, pruned))}, but a Wan config "
                "ties the width of the whole network to its heads: they cannot be removed. Export masks, or prune "
                "channels or layers"
            )


def _linear(old: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Linear:
    weight = old.weight if rows is None else old.weight[rows]
    weight = weight if columns is None else weight[:, columns]
    new = nn.Linear(weight.shape[1], len(weight), bias=old.bias is not None, device=weight.device, dtype=weight.dtype)
    new.weight.copy_(weight)
    if old.bias is not None:
        new.bias.copy_(old.bias if rows is None else old.bias[rows])
    new.requires_grad_(old.weight.requires_grad)
    return new
