"""A transformers causal language model with JSONL text: any folder for masks, Llama-like ones for removing units."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunus.errors import ModelError, SettingError, require
from prunus.sparse.macs import parameters
from prunus.sparse.masks import Masks, prunable
from prunus.sparse.models.decoder import Decoder
from prunus.sparse.models.folder import sizes, write_json, written_whole
from prunus.sparse.models.model import speed_up
from prunus.sparse.models.smaller_decoder import smaller, with_own_config
from prunus.sparse.models.text_data import Packed, Texts, documents, pack, split_texts
from prunus.sparse.scope import Units

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, eq=False)
class CausalLM:
    """``network`` is never changed: ``build`` gives copies. ``round_to``: FFN widths are rounded up to its multiples
    (16 for speed)."""

    network: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    texts: Texts = field(repr=False)
    round_to: int = 1
    kind: str = field(default="causal-lm", init=False)
    pretrained: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        require(self.round_to >= 1, "round_to", self.round_to, "at least 1")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        data: Sequence[str | Path],
        *,
        seed: int = 0,
        shares: Sequence[float] = (0.8, 0.1, 0.1),
        length: int | None = None,
        batch_size: int = 8,
        round_to: int = 1,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> CausalLM:
        """``data``: one JSONL file that is split by ``shares`` and ``seed``, or three. ``length`` of a row in tokens:
        by default 512, or as many positions as the model has. Weights are read, and written again, as ``dtype``.

        Raises ModelError, FileError, SettingError.
        """
        pairs = split_texts(data, shares, seed)
        network, tokenizer = _read(Path(folder), device, dtype)
        positions = getattr(network.config, "max_position_embeddings", None) or 512
        length = min(512, positions) if length is None else length
        require(2 <= length <= positions, "length", length, f"from 2 to the {positions} positions of the model")
        texts = [pack(documents(part, tokenizer), length, tokenizer.pad_token_id or 0) for part in pairs]
        top = network.config.vocab_size
        if any(int(part.tokens.max()) >= top for part in texts):
            raise ModelError(f"{folder}: the tokenizer writes tokens that its model of {top} tokens does not have")
        parts = [Packed(p.tokens.to(device), p.positions.to(device), p.targets.to(device)) for p in texts]
        train, validation, test = parts
        return cls(network, tokenizer, Texts(train, validation, test, batch_size), round_to)

    @property
    def task(self) -> Texts:
        return self.texts

    def build(self) -> nn.Module:
        """Without a cache of keys and values: nothing is generated while it is pruned."""
        made = copy.deepcopy(self.network)
        made.config.use_cache = False
        return made

    def exclude(self) -> tuple[str, ...]:
        """The output layer, where it is not the embedding."""
        head = self.network.get_output_embeddings()
        names = [name for name, weight in prunable(self.network).items() if head is not None and weight is head.weight]
        return tuple(names)

    def unit_kinds(self) -> tuple[str, ...]:
        try:
            decoder = Decoder.of(self.network)
        except ModelError:
            return ()
        return ("channels", "heads", "layers") if decoder.heads_stand_alone else ("channels", "layers")

    def units(self, kind: str, masks: Masks) -> Units:
        if kind not in (kinds := self.unit_kinds()):
            if not kinds:
                Decoder.of(self.network)  # says why
            raise SettingError(f"{kind!r} is no unit of this {type(self.network).__name__}: it has {', '.join(kinds)}")
        return Decoder.of(self.network).units(kind, masks)

    def remove(self, model: nn.Module, masks: Masks) -> nn.Module:
        return smaller(model, masks, self.round_to)

    def export(self, model: nn.Module, masks: Masks | None, out: Path) -> dict[str, Any]:
        """Config, safetensors and tokenizer; with ``masks`` also these, and zeros in the weights."""
        out, model = Path(out), with_own_config(copy.deepcopy(model))
        model.config.use_cache = self.network.config.use_cache  # type: ignore[union-attr]
        if masks is not None:
            masks.apply(model)
        facts: dict[str, Any] = {
            "kind": self.kind,
            "load": "transformers.AutoModelForCausalLM.from_pretrained(folder)",
            "speed_up": speed_up(masks, parameters(model) < parameters(self.network)),
        }
        with written_whole(out) as draft:
            model.save_pretrained(draft)  # type: ignore[operator]
            self.tokenizer.save_pretrained(draft)
            if masks is not None:
                masks.save(draft / "masks.safetensors", {"kind": self.kind})
            write_json(draft / "pruning.json", facts)
        return {**facts, "files": sizes(out)}


def _read(folder: Path, device: str, dtype: str) -> tuple[Any, Any]:
    """The network with eager attention, whose multiply-adds torch counts exactly, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    require(dtype in DTYPES, "dtype", dtype, f"one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True, "output_loading_info": True}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **options)
    except Exception as error:  # every library under it has its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder} cannot be loaded as a causal language model: {line}") from error
    network, info = loaded
    if lost := sorted({*info["missing_keys"], *(str(k) for k in info["mismatched_keys"])}):
        raise ModelError(f"{folder} lacks weights of a {type(network).__name__}: {', '.join(lost[:5])}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder} has no tokenizer that can be loaded: {line}") from error
    try:
        return network.to(device).eval(), tokenizer
    except RuntimeError as error:
        raise ModelError(f"{folder} cannot be put on device {device!r}: {str(error).splitlines()[0]}") from error
