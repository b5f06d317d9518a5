"""A causal language model with its tokenizer: a transformers folder, a hub id, or a GGUF file that transformers reads.

Only safetensors and GGUF are read. Candidates share their prefixes if the model's attention is plain causal attention;
otherwise (sliding windows, recurrent layers) every candidate has a copy, which is said once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from prunus.errors import ModelError, PromptError
from prunus.generators.copied_rows import CopiedRows
from prunus.generators.shared_prefixes import SharedPrefixes

DTYPES = ("float32", "bfloat16", "float16")


class TextModel:
    """``engine`` reads and writes tokens, see ``shared_prefixes``; ``why_copied`` says why candidates are copied."""

    def __init__(self, network: Any, tokenizer: Any, name: str = "") -> None:
        self.network, self.tokenizer, self.name = network.eval().requires_grad_(False), tokenizer, name
        self.config = network.config.get_text_config()
        self.why_copied = ""
        self.engine: SharedPrefixes | CopiedRows
        try:
            self.engine = SharedPrefixes(network)
        except ModelError as error:
            self.engine, self.why_copied = CopiedRows(network), str(error)
            warnings.warn(
                f"{name or type(network).__name__}: candidates do not share the memory of what they have in common, "
                f"each has a copy; {self.why_copied}",
                stacklevel=3,
            )
        ends = network.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self.ends = frozenset(() if ends is None else ends if isinstance(ends, list | tuple) else (ends,))
        self.positions: int | None = getattr(self.config, "max_position_embeddings", None)
        self._count_weights()

    @classmethod
    def load(cls, name: str | Path, device: str = "cpu", dtype: str = "float32") -> TextModel:
        """Read a folder, a hub id, a ``.gguf`` file, or one in a hub repository (``owner/repository/file.gguf``).

        Raises ModelError that says what is missing or damaged.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if dtype not in DTYPES:
            raise ModelError(f"dtype {dtype!r} is not known; take one of {', '.join(DTYPES)}")
        where, options = _place(str(name))
        loading: dict[str, Any] = {"dtype": getattr(torch, dtype), "output_loading_info": True, **options}
        loading |= _unpacked() if options else {"use_safetensors": True}
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(where, **loading)
        except Exception as error:  # every library under it has its own
            raise ModelError(
                f"{name} cannot be loaded as a causal language model: {_line(error)}; name a transformers folder, a "
                "hub id or a GGUF file"
            ) from error
        network, info = loaded
        if lost := sorted({*info["missing_keys"], *(str(k) for k in info["mismatched_keys"])}):
            raise ModelError(
                f"{name} lacks weights of a {type(network).__name__}: {', '.join(lost[:5])}; they would be random"
            )
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
        except Exception as error:
            raise ModelError(f"{name} has no tokenizer that can be loaded: {_line(error)}") from error
        try:
            return cls(network.to(device), tokenizer, str(name))
        except RuntimeError as error:  # a device that is not there
            raise ModelError(f"{name} cannot be put on device {device!r}: {_line(error)}") from error

    @property
    def device(self) -> torch.device:
        return self.network.device

    # ---- text and tokens ---------------------------------------------------------------------------------------

    def encode(self, prompt: str, chat: bool | None = None) -> list[int]:
        """A prompt's tokens: as one turn of a chat, or raw. ``chat`` None: a chat if the tokenizer has a template.

        A ``Prompt`` may say all turns itself, or the tokens. Raises PromptError for an empty prompt, one with
        characters that the tokenizer cannot write, and one that does not fit into the context.
        """
        template = getattr(self.tokenizer, "chat_template", None)
        said = list(getattr(prompt, "messages", ()))
        if (chat or said) and not template:
            raise ModelError(f"{self.name}'s tokenizer has no chat template; give the prompt raw (chat=False)")
        if given := getattr(prompt, "tokens", ()):
            tokens = list(given)
            if odd := [t for t in tokens if not 0 <= t < self.config.vocab_size]:
                raise PromptError(f"token {odd[0]} is not one of the model's, 0 to {self.config.vocab_size - 1}")
        elif said or (template and chat is not False):
            turns = said or [{"role": "user", "content": str(prompt)}]
            for turn in turns:
                self._check_characters(turn["content"])
            try:
                text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            except Exception as error:  # a template refuses turns in its own way
                raise PromptError(f"the model's chat template refuses these messages: {_line(error)}") from error
            tokens = self.tokenizer(text, add_special_tokens=False).input_ids
        else:
            self._check_characters(prompt)
            tokens = self.tokenizer(prompt).input_ids
            if len(tokens) > 1 and tokens[-1] in self.ends:
                tokens = tokens[:-1]  # a tokenizer that ends every text: this one goes on
        if not tokens:
            raise PromptError("the prompt is empty; this model's tokenizer begins a text with no token of its own")
        if self.positions is not None and len(tokens) >= self.positions:
            raise PromptError(
                f"the prompt has {len(tokens)} tokens and {self.name or 'the model'} reads {self.positions}, with the "
                "answer; shorten the prompt"
            )
        return tokens

    def _check_characters(self, text: str) -> None:
        """Raise PromptError that names the characters of which the tokenizer would make an unknown token or nothing."""
        if not getattr(self.tokenizer, "is_fast", False):
            if self.tokenizer.unk_token_id in self.tokenizer(text, add_special_tokens=False).input_ids:
                raise PromptError(f"the tokenizer cannot write all of {text!r}; use the characters that it knows")
            return
        told = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        unknown = self.tokenizer.unk_token_id
        dropped, odd = set(range(len(text))), set[int]()
        for token, (start, end) in zip(told.input_ids, told.offset_mapping, strict=True):
            dropped -= set(range(start, end))
            if token == unknown and text[start:end] != self.tokenizer.unk_token:
                odd |= set(range(start, end))
        odd |= {i for i in dropped if not text[i].isspace()}  # words may be split at white space that is no token
        if odd:
            shown = ", ".join(repr(c) for c in dict.fromkeys(text[i] for i in sorted(odd)))
            raise PromptError(f"the tokenizer cannot write {shown}; use the characters that it knows")

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, without special ones and without tidying."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # ---- counting ----------------------------------------------------------------------------------------------

    def _count_weights(self) -> None:
        embedding = self.network.get_input_embeddings().weight
        head = self.network.get_output_embeddings().weight
        weights = sum(p.numel() for p in self.network.parameters())  # tied ones once
        self._body = weights - embedding.numel() - (0 if head is embedding else head.numel())
        self._head = head.numel()
        config = self.config
        heads = getattr(config, "num_attention_heads", 0) or 0
        width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
        self._attention = 4 * config.num_hidden_layers * heads * width

    def flops(self, tokens: int, context: int, outputs: int) -> int:
        """FLOPs of reading ``tokens`` new tokens after ``context`` others, with logits after ``outputs`` of them.

        A multiply-add is two: 2 for each weight of the layers and token, for each weight of the head and output, and 4
        for each pair of a token and one that it attends to, head and dimension, in every layer. Norms, activations and
        rotations are not counted; a mixture of experts counts them all, a window as if it were none.
        """
        attended = tokens * context + tokens * (tokens + 1) // 2
        return 2 * (self._body * tokens + self._head * outputs) + self._attention * attended


def _place(name: str) -> tuple[str, dict[str, str]]:
    """Where transformers finds a model, and the options that say which file."""
    if not name.endswith(".gguf"):
        return name, {}
    path = Path(name)
    if not path.is_file() and len(path.parts) > 2:
        return "/".join(path.parts[:2]), {"gguf_file": "/".join(path.parts[2:])}
    return str(path.parent), {"gguf_file": path.name}


def _unpacked() -> dict[str, Any]:
    """Options that have a GGUF's weights unpacked as they are read, in the dtype that was asked for.

    Newer versions of transformers may leave them packed, for kernels that compute in float32 alone, and say so.
    """
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
