"""Llama-like decoders in transformers: where their channels, heads and layers are.

Told by what stands in each layer, not by the family's name: ``self_attn.{q,k,v,o}_proj`` and
``mlp.{gate,up,down}_proj``, of the shapes that the config says (Llama, Qwen2, Qwen3, Mistral, Gemma, ...). A channel is
a row of gate and of up with its column of down. A head is its rows of q, k and v with its columns of o; query heads
that share a key-value head are one unit with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunus.errors import ModelError
from prunus.sparse.masks import Masks
from prunus.sparse.scope import Units, layers

GATES = ("mlp.gate_proj.weight", "mlp.up_proj.weight")
DOWN = "mlp.down_proj.weight"
QUERY = "self_attn.q_proj.weight"
SHARED = ("self_attn.k_proj.weight", "self_attn.v_proj.weight")
OUT = "self_attn.o_proj.weight"


@dataclass(frozen=True)
class Decoder:
    """``blocks``: names of the layers. ``groups`` key-value heads, each with ``queries`` query heads of ``width``."""

    blocks: tuple[str, ...]
    channels: int
    groups: int
    queries: int
    width: int
    heads_stand_alone: bool
    """False if something else in the attention is as wide as all heads together (a norm over all, sinks)."""

    @classmethod
    def of(cls, model: Any) -> Decoder:
        """Raises ModelError that says what is not as in a Llama."""
        config = model.config
        home, blocks = _layers(model)
        names = ("hidden_size", "num_attention_heads", "intermediate_size", "num_key_value_heads")
        hidden, heads, channels, groups = (getattr(config, name, 0) for name in names)
        groups = groups or heads
        if not all(isinstance(size, int) and size > 0 for size in (hidden, heads, channels, groups)):
            raise ModelError(
                f"a {type(config).__name__} does not say one hidden size, FFN width and number of heads for all "
                "layers, as a Llama's does; prune single weights instead"
            )
        width = getattr(config, "head_dim", None) or hidden // heads
        shapes = dict.fromkeys(GATES, (channels, hidden)) | {DOWN: (hidden, channels)}
        shapes |= {QUERY: (heads * width, hidden), OUT: (hidden, heads * width)}
        shapes |= dict.fromkeys(SHARED, (groups * width, hidden))
        alone = True
        for i, block in enumerate(blocks):
            found = {name: tuple(p.shape) for name, p in block.named_parameters()}
            for name, shape in shapes.items():
                if found.get(name) != shape:
                    raise ModelError(
                        f"layer {i} of this {type(model).__name__} has {name} of shape {found.get(name, 'none')}, a "
                        f"Llama-like decoder of this config has {shape}: where its channels and heads are is not "
                        "known. Prune single weights instead"
                    )
            others = {n: s for n, s in found.items() if n.startswith("self_attn.") and n not in shapes}
            alone &= all(name.endswith("_proj.bias") or shape == (width,) for name, shape in others.items())
        inside = tuple(f"{home}.{i}" for i in range(len(blocks)))
        return cls(inside, channels, groups, heads // groups, width, alone)

    # ---- units -------------------------------------------------------------------------------------------------------

    def units(self, kind: str, masks: Masks) -> Units:
        """A group a layer; ``layers`` are one group."""
        if kind == "layers":
            return layers(masks, self.blocks)
        make: Callable[[str, int], dict[str, tuple]] = self._channel if kind == "channels" else self._group
        count = self.channels if kind == "channels" else self.groups
        groups = {}
        for block in self.blocks:
            units = [make(block, place) for place in range(count)]
            if missing := [name for name in units[0] if name not in masks]:
                raise ModelError(f"{missing[0]} is excluded from pruning, but its {kind} are wanted; do not exclude it")
            groups[block] = units
        return Units(groups)

    def _channel(self, block: str, place: int) -> dict[str, tuple]:
        return {f"{block}.{name}": (place,) for name in GATES} | {f"{block}.{DOWN}": (slice(None), place)}

    def _group(self, block: str, place: int) -> dict[str, tuple]:
        shared, asking = self.shared(place), self.asking(place)
        rows = {f"{block}.{QUERY}": (asking,)} | {f"{block}.{name}": (shared,) for name in SHARED}
        return rows | {f"{block}.{OUT}": (slice(None), asking)}

    def shared(self, group: int) -> slice:
        """A group's rows in k and v."""
        return slice(group * self.width, (group + 1) * self.width)

    def asking(self, group: int) -> slice:
        """A group's rows in q, and its columns in o."""
        return slice(group * self.width * self.queries, (group + 1) * self.width * self.queries)


def _layers(model: Any) -> tuple[str, nn.ModuleList]:
    count = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and name.endswith("layers"):
            return name, module
    raise ModelError(
        f"{type(model).__name__} has no list of {count} layers that is known here; prune single weights instead"
    )
