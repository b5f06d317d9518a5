"""Checkpoints of Wan generators as their trainers wrote them: which tensors are there, and a few of them at a time.

``.pt`` files are read with ``weights_only=True`` and are mapped into memory, not loaded; ``.safetensors`` may be one
file or shards with an index. Every reading maps the files anew: only the tensors that were asked for become resident.

    Self-Forcing   {"generator": ..., "generator_ema": ..., "critic": ..., ...}   names start with ``model.``
    CausVid        {"generator": ...} or {"model": ...}                           likewise
    LongLive       {"generator": ...} and, in a file of its own, a LoRA           {"generator_lora": ..., ...}
    Wan 2.1        the tensors themselves

FSDP, activation checkpointing and ``torch.compile`` leave their own segments in names; ``bare`` removes them.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunus.errors import FileError, ModelError, SettingError

GENERATORS = ("generator_ema", "generator", "model")
"""Where generators stand in a checkpoint; of several the first is taken, because averaged weights are the better."""
WRAPPERS = re.compile(r"(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
OUTER = re.compile(r"^(?:(?:generator_ema|generator|module|base_model|model|diffusion_model)\.)+")


def bare(name: str) -> str:
    """A tensor's name in the original model, without what wrappers added."""
    return OUTER.sub("", WRAPPERS.sub("", name))


def some(names: Collection[str]) -> str:
    """At most ten names, and how many more there are."""
    shown = ", ".join(list(names)[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def size_of(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def refuse(what: str, **problems: list[str]) -> None:
    """Raise ModelError that names the problems by kind, unless there are none."""
    if named := [f"{kind}: {some(names)}" for kind, names in problems.items() if names]:
        raise ModelError(f"{what}; " + "; ".join(named))


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one model in a checkpoint; ``open`` makes it, ``read`` maps some of its tensors."""

    files: tuple[Path, ...]
    nest: str | None
    """The key under which they stand; None if they stand at the top."""
    others: tuple[str, ...]
    """Other keys under which generators stand, not taken."""
    tensors: dict[str, torch.Tensor]
    """Shapes and dtypes (on the meta device) by the names in the file."""
    strays: tuple[str, ...] = ()
    """Entries among the tensors that are none."""

    @classmethod
    def open(cls, path: Path, nests: tuple[str, ...] = GENERATORS, wanted: str | None = None) -> Checkpoint:
        """Look into a file or folder; ``wanted`` names the key to take, by default the first of ``nests`` there is.

        Raises FileError (cannot be read), ModelError (no checkpoint) or SettingError (``wanted`` is not there).
        """
        files = _files(path)
        content = _load(files)
        nested = [key for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
        if wanted is not None and wanted not in nested:
            there = f"it holds {some(nested)}" if nested else "its tensors stand at the top: leave the option out"
            raise SettingError(f"{path} holds no weights named {wanted!r}; {there}")
        nest = wanted or next((key for key in nests if key in nested), None)
        if nest is None and not _has_tensors(content):
            hint = "; a LoRA is given with --lora, beside its generator" if any("lora" in key for key in nested) else ""
            raise ModelError(
                f"{path} holds {some([str(key) for key in content]) or 'nothing'}, and none of {', '.join(nests)}: "
                f"it is not a checkpoint of a generator{hint}"
            )
        found = content if nest is None else content[nest]
        tensors = {str(name): value.to("meta") for name, value in found.items() if isinstance(value, torch.Tensor)}
        strays = tuple(str(name) for name, value in found.items() if not isinstance(value, torch.Tensor))
        return cls(files, nest, tuple(key for key in nested if key in nests and key != nest), tensors, strays)

    def read(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        """The named tensors, mapped from the files."""
        content = _load(self.files, names if self.nest is None else None)
        found = content if self.nest is None else content[self.nest]
        return {name: found[name] for name in names}


def _has_tensors(values: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in values.values())


def _files(path: Path) -> tuple[Path, ...]:
    """The files of a checkpoint: itself, the only checkpoint in a folder, or the shards that an index lists."""
    if path.is_dir():
        suffixes = ("*.safetensors.index.json",), ("*.safetensors", "*.pt", "*.pth")
        found = next((f for s in suffixes if (f := sorted(p for pattern in s for p in path.glob(pattern)))), [])
        if len(found) != 1:
            there = f"{len(found)} checkpoints ({some([p.name for p in found])})" if found else "no checkpoint"
            raise FileError(f"{path} holds {there}; name the .pt or .safetensors file itself")
        path = found[0]
    if not path.is_file():
        raise FileError(f"{path} is not there; name a .pt or .safetensors checkpoint, or the folder of a sharded one")
    if not path.name.endswith(".index.json"):
        return (path,)
    try:
        shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is no index of a sharded checkpoint ({error}); fetch it again") from error
    if absent := [shard for shard in shards if not (path.parent / shard).is_file()]:
        raise FileError(f"{path} lists shards that are not beside it: {some(absent)}; fetch them")
    return tuple(path.parent / shard for shard in shards)


def _load(files: tuple[Path, ...], names: Collection[str] | None = None) -> dict[Any, Any]:
    """What stands in the files, its tensors mapped. Of safetensors only the named ones, if ``names`` are given."""
    if files[0].suffix != ".safetensors":
        return _load_torch(files[0])
    from safetensors import SafetensorError, safe_open

    content: dict[Any, Any] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():
                    if name in content:
                        raise ModelError(f"{name} stands in {file} and in another shard as well; fetch both again")
                    if names is None or name in names:
                        content[name] = opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise FileError(f"{file} cannot be read as safetensors ({error}); fetch it again") from error
    return content


def _load_torch(file: Path) -> dict[Any, Any]:
    try:
        if not zipfile.is_zipfile(file):
            raise FileError(
                f"{file} is not a checkpoint that torch can map: a download cut short, a git-lfs pointer, another kind "
                "of file, or one that torch wrote before 1.6. Fetch it again, or load and save it with a newer torch"
            )
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{file} cannot be read: {error.strerror}") from error
    except Exception as error:  # torch raises several kinds for files that are not its own
        if refused := re.search(r"Unsupported \w+: (?:GLOBAL )?(\S+)", str(error)):
            raise ModelError(
                f"{file} holds more than tensors ({refused[1]}), which is not unpickled because it could run code; "
                "where you trust the file, load it with torch and save only its state dict"
            ) from None
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise FileError(f"{file} is damaged or no checkpoint ({reason}); fetch it again") from None
    if not isinstance(content, Mapping):
        raise ModelError(f"{file} holds a {type(content).__name__}, not named tensors: it is not a checkpoint")
    return dict(content)
