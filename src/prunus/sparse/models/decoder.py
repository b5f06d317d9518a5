"""Llama-like decoders in transformers: where their units are, and smaller ones that their config can say.

Told by what stands in each layer, not by the family's name: ``self_attn.{q,k,v,o}_proj`` and
``mlp.{gate,up,down}_proj``, of the shapes that the config says (Llama, Qwen2, Qwen3, Mistral, Gemma, ...). A channel is
a row of gate and of up with its column of down. A head is its rows of q, k and v with its columns of o; query heads
that share a key-value head are one unit with it.

A config says one FFN width, one number of heads, and how many layers, for the whole network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import ModelError
from prunus.sparse.masks import Masks
from prunus.sparse.scope import Units, layers
from prunus.sparse.task import evaluating

GATES, DOWN = ("mlp.gate_proj.weight", "mlp.up_proj.weight"), "mlp.down_proj.weight"
QUERY, SHARED, OUT = (
    "self_attn.q_proj.weight",
    ("self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    ("self_attn.o_proj.weight"),
)


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
    def of(cls, model: nn.Module) -> Decoder:
        """Raises ModelError that says what is not as in a Llama."""
        config = model.config  # type: ignore[union-attr]
        home, blocks = _layers(model)
        heads = getattr(config, "num_attention_heads", 0) or 0
        groups = getattr(config, "num_key_value_heads", None) or heads
        width = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
        channels, hidden = getattr(config, "intermediate_size", 0), config.hidden_size
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
        names = tuple(f"{home}.{i}" for i in range(len(blocks)))
        return cls(names, channels, groups, heads // groups, width, alone)

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


def _layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    count = getattr(model.config, "num_hidden_layers", None)  # type: ignore[union-attr]
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and name.endswith("layers"):
            return name, module
    raise ModelError(
        f"{type(model).__name__} has no list of {count} layers that is known here; prune single weights instead"
    )


# ---- smaller ---------------------------------------------------------------------------------------------------------


def smaller(model: nn.Module, masks: Masks, round_to: int = 1) -> nn.Module:
    """A copy without the layers, heads and channels that are wholly pruned, whose outputs are the masked model's.

    Widths may differ by one between layers (an exact count seldom divides evenly), and are rounded up to a multiple of
    ``round_to``: a layer that keeps fewer is filled up with pruned units, which are zero. (Where layers have biases at
    their outputs, the outputs are those with the removed layers' biases at zero too.) Raises ModelError.
    """
    decoder = Decoder.of(model)
    kept = {kind: decoder.units(kind, masks).kept(masks) if _has(decoder, kind, masks) else {} for kind in _PARTS}
    stay = [i for i, block in enumerate(decoder.blocks) if any(_inside(masks, block))]
    if not stay:
        raise ModelError("all layers are wholly pruned; keep at least one")
    channels = _places(decoder, kept["channels"], stay, decoder.channels, "channels", "FFN width", round_to)
    groups = _places(decoder, kept["heads"], stay, decoder.groups, "heads", "number of heads", 1)
    if len(stay) == len(decoder.blocks) and len(channels[0]) == decoder.channels and len(groups[0]) == decoder.groups:
        raise ModelError(
            "no whole channel, head or layer is pruned in all layers alike, so nothing can be removed; prune one of "
            "these units, or save the masks, which make nothing faster"
        )
    if len(groups[0]) < decoder.groups and not decoder.heads_stand_alone:
        raise ModelError(
            f"the attention of {type(model).__name__} has weights over all heads together, so that removing some "
            "changes the others; save the masks instead"
        )
    config = _config(model, decoder, stay, len(channels[0]), len(groups[0]))
    made = _empty(model, config)
    made.load_state_dict(_state(model, masks, decoder, stay, channels, groups), strict=False)
    made.train(model.training)
    _check_same(model, masks, made, [b for i, b in enumerate(decoder.blocks) if i not in stay])
    return made


_PARTS = ("channels", "heads")


def _has(decoder: Decoder, kind: str, masks: Masks) -> bool:
    names = (*GATES, DOWN) if kind == "channels" else (QUERY, *SHARED, OUT)
    return all(f"{block}.{name}" in masks for block in decoder.blocks for name in names)


def _inside(masks: Masks, block: str) -> list[bool]:
    return [bool(mask.any()) for name, mask in masks.items() if name.startswith(f"{block}.")] or [True]


def _places(
    decoder: Decoder, kept: dict[str, Tensor], stay: list[int], all_of: int, kind: str, what: str, round_to: int
) -> list[list[int]]:
    """For each layer that stays the units to keep, in order, equally many in each."""
    if not kept:
        return [list(range(all_of)) for _ in stay]
    found = [kept[decoder.blocks[i]] for i in stay]
    counts = [int(keep.sum()) for keep in found]
    rounded = {min(all_of, -(-max(1, n) // round_to) * round_to) for n in counts}
    if len(rounded) > 1 and max(counts) - min(counts) > 1:
        raise ModelError(
            f"the layers keep {', '.join(map(str, counts))} {kind}, and the config says one {what} for all; "
            f"prune {kind} uniformly by layer (allocation Uniform), or save the masks"
        )
    width = max(rounded)
    places = []
    for keep in found:
        more = (~keep).nonzero().flatten()[: width - int(keep.sum())].tolist()
        places.append(sorted(keep.nonzero().flatten().tolist() + more))
    return places


def _config(model: nn.Module, decoder: Decoder, stay: list[int], channels: int, groups: int) -> Any:
    """The config of the smaller model; also lists with an entry a layer shrink."""
    old = model.config.to_dict()  # type: ignore[union-attr,operator]
    new = {
        name: [value[i] for i in stay]
        if "layer" in name and isinstance(value, list) and len(value) == len(decoder.blocks)
        else value
        for name, value in old.items()
    }
    new |= {"num_hidden_layers": len(stay), "intermediate_size": channels, "head_dim": decoder.width}
    new |= {"num_attention_heads": groups * decoder.queries, "num_key_value_heads": groups}
    try:
        return type(model.config).from_dict(new)  # type: ignore[union-attr]
    except Exception as error:  # each config has checks of its own
        hidden = old["hidden_size"]
        fits = [n for n in range(1, decoder.groups + 1) if hidden % (n * decoder.queries) == 0]
        raise ModelError(
            f"{groups * decoder.queries} heads in {groups} groups cannot be said by a {type(model.config).__name__} "
            f"({str(error).strip().splitlines()[-1].strip()}); of {decoder.groups} groups keep "
            f"{' or '.join(map(str, fits))}, or save the masks"
        ) from error


def _empty(model: nn.Module, config: Any) -> nn.Module:
    from transformers import AutoModelForCausalLM

    weight = next(model.parameters())
    attention = model.config._attn_implementation  # type: ignore[union-attr]
    with torch.random.fork_rng([]):
        made = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=weight.dtype)
    made.generation_config = copy.deepcopy(model.generation_config)
    return made.to(weight.device)


def _state(
    model: nn.Module,
    masks: Masks,
    decoder: Decoder,
    stay: list[int],
    channels: list[list[int]],
    groups: list[list[int]],
) -> dict[str, Tensor]:
    """The masked model's weights, cut to the new shapes, under the new layers' names."""
    state = dict(model.state_dict())
    for name, mask in masks.items():
        state[name] = state[name].masked_fill(~mask.to(state[name].device), 0)
    home = decoder.blocks[0].rpartition(".")[0]
    new = {name: value for name, value in state.items() if not name.startswith(f"{home}.")}
    for place, i in enumerate(stay):
        asking = [r for g in groups[place] for r in range(*decoder.asking(g).indices(10**9))]
        shared = [r for g in groups[place] for r in range(*decoder.shared(g).indices(10**9))]
        rows = dict.fromkeys(GATES, channels[place]) | {QUERY: asking} | dict.fromkeys(SHARED, shared)
        rows |= {name.replace(".weight", ".bias"): where for name, where in rows.items()}
        columns = {DOWN: channels[place], OUT: asking}
        for name, value in state.items():
            if not name.startswith(f"{decoder.blocks[i]}."):
                continue
            inside = name.removeprefix(f"{decoder.blocks[i]}.")
            value = value[rows[inside]] if inside in rows else value
            new[f"{home}.{place}.{inside}"] = value[:, columns[inside]] if inside in columns else value
    return new


@torch.no_grad()
def _check_same(model: nn.Module, masks: Masks, made: nn.Module, dropped: list[str]) -> None:
    """ModelError unless both say the same of a few tokens: a family may scale by what has become smaller."""
    config = model.config  # type: ignore[union-attr]
    tokens = torch.arange(8, device=next(model.parameters()).device).unsqueeze(0) % config.vocab_size
    biases = {n: p for n, p in model.named_parameters() if n.endswith(".bias") and n.rsplit(".", 3)[0] in dropped}
    saved = {name: p.clone() for name, p in biases.items()}
    try:
        with masks.virtual(model), evaluating(model), evaluating(made):
            for p in biases.values():
                p.zero_()
            wanted, found = model(tokens).logits.float(), made(tokens).logits.float()
    finally:
        for name, p in biases.items():
            p.copy_(saved[name])
    tolerance = 3e-2 if next(model.parameters()).dtype in (torch.float16, torch.bfloat16) else 1e-4
    if not bool((wanted - found).abs().max() <= tolerance * wanted.abs().max().clamp(min=1)):
        raise ModelError(
            f"a smaller {type(model).__name__} says other things than the masked one (logits differ by "
            f"{float((wanted - found).abs().max()):.2g}); its family is not known here, save the masks instead"
        )
