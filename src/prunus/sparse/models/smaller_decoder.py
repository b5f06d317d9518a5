"""Smaller Llama-like decoders that their config can say: one FFN width, one number of heads, and how many layers."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import ModelError
from prunus.sparse.masks import Masks
from prunus.sparse.models.decoder import DOWN, GATES, OUT, QUERY, SHARED, Decoder
from prunus.sparse.removal import removal_steps
from prunus.sparse.task import evaluating


def smaller(model: Any, masks: Masks, round_to: int = 1) -> nn.Module:
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


def _config(model: Any, decoder: Decoder, stay: list[int], channels: int, groups: int) -> Any:
    new = _with_layers(model.config, stay)
    new |= {"intermediate_size": channels, "head_dim": decoder.width}
    new |= {"num_attention_heads": groups * decoder.queries, "num_key_value_heads": groups}
    try:
        return type(model.config).from_dict(new)
    except Exception as error:  # each config has checks of its own
        hidden = new["hidden_size"]
        fits = [n for n in range(1, decoder.groups + 1) if hidden % (n * decoder.queries) == 0]
        raise ModelError(
            f"{groups * decoder.queries} heads in {groups} groups cannot be said by a {type(model.config).__name__} "
            f"({str(error).strip().splitlines()[-1].strip()}); of {decoder.groups} groups keep "
            f"{' or '.join(map(str, fits))}, or save the masks"
        ) from error


def _with_layers(config: Any, stay: list[int]) -> dict[str, Any]:
    """A config of these layers only; lists with an entry a layer shrink too."""
    old = config.to_dict()
    return {
        name: [value[i] for i in stay]
        if "layer" in name and isinstance(value, list) and len(value) == config.num_hidden_layers
        else value
        for name, value in old.items()
    } | {"num_hidden_layers": len(stay)}


def with_own_config(model: Any) -> nn.Module:
    """``model`` if its config says its shapes. If layers were dropped from it (``drop_blocks``), a copy whose config
    knows. ModelError if it was made smaller in another way."""
    left = list(range(model.config.num_hidden_layers))
    for step in removal_steps(model):
        gone = {int(name.rpartition(".")[2]) for name in step.get("dropped", ())}
        left = [layer for place, layer in enumerate(left) if place not in gone]
    if len(left) == model.config.num_hidden_layers:
        made, whole = model, _empty(model, model.config, "meta")
    else:
        made = whole = _empty(model, type(model.config).from_dict(_with_layers(model.config, left)))
    found, wanted = ({n: tuple(v.shape) for n, v in m.state_dict().items()} for m in (whole, model))
    if odd := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
        raise ModelError(
            f"{odd[0]} is {wanted.get(odd[0], 'missing')} in the model, {found.get(odd[0], 'missing')} by its config; "
            "only what remove (or drop_blocks) made smaller can be exported"
        )
    if made is not model:
        made.load_state_dict(model.state_dict())
        made.train(model.training)
    return made


def _empty(model: Any, config: Any, device: Any = None) -> nn.Module:
    from transformers import AutoModelForCausalLM

    weight = next(model.parameters())
    attention = model.config._attn_implementation
    device = weight.device if device is None else device
    with torch.random.fork_rng([]), torch.device("meta" if device == "meta" else "cpu"):
        made = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=weight.dtype)
    made.generation_config = copy.deepcopy(model.generation_config)
    return made.to(device)


def _state(
    model: Any,
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
def _check_same(model: Any, masks: Masks, made: nn.Module, dropped: list[str]) -> None:
    """ModelError unless both say the same of a few tokens: a family may scale by what has become smaller."""
    config = model.config
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
