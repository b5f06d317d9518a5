"""``prunus convert``: a trainer's Wan checkpoint becomes a model folder, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunus.commands.display import Show
from prunus.commands.models import quiet_libraries
from prunus.errors import FileError, ModelError, SettingError, require
from prunus.generators.wan_families import ASSUMED, FAMILIES, guess_family

NEEDED = ("vae", "text_encoder", "tokenizer")
PARTS = (*NEEDED, "scheduler", "model_index.json")


def convert(
    src: Path,
    dst: Path,
    *,
    weights: str | None = None,
    lora: Path | None = None,
    lora_alpha: float | None = None,
    family: str | None = None,
    base: Path | None = None,
    force: bool = False,
    show: Show,
) -> dict[str, Any]:
    """Convert ``src`` into the folder ``dst``; returns what was done, assumed and is missing.

    Raises FileError, ModelError or SettingError, and then leaves ``dst`` as it was.
    """
    require(family is None or family in FAMILIES, "--family", family, f"one of {', '.join(FAMILIES)}")
    require(lora_alpha is None or lora is not None, "--lora-alpha", lora_alpha, "left out where no --lora is given")
    require(lora_alpha is None or lora_alpha > 0, "--lora-alpha", lora_alpha, "above 0")
    _check_output(src, dst, force)
    quiet_libraries()
    from prunus.generators.wan_checkpoint import Checkpoint
    from prunus.generators.wan_conversion import plan, write_transformer
    from prunus.generators.wan_lora import open_lora

    checkpoint = Checkpoint.open(src, wanted=weights)
    planned = plan(checkpoint.tensors, checkpoint.strays)
    changes = open_lora(lora, checkpoint, lora_alpha) if lora is not None else None
    parts = _parts(base, planned.model.config) if base is not None else []
    assumed = []
    if family is None:
        family, reason = guess_family(src, lora is not None, checkpoint.nest is not None)
        assumed.append(f"family {family} ({reason}; --family names another)")
    if changes is not None and lora_alpha is None:
        assumed.append("alpha = rank in the LoRA (as LongLive's; the file does not say; --lora-alpha)")
    assumed += ASSUMED[family]

    def write(folder: Path) -> int:
        count = write_transformer(planned, checkpoint, folder / "transformer", lora=changes, progress=_progress(show))
        for part in parts:
            _take(part, folder / part.name)
        if FAMILIES[family]:
            (folder / "streaming.json").write_text(json.dumps(FAMILIES[family], indent=2) + "\n")
        return count

    shards = _whole(dst, planned.bytes, write)
    embeds = (dst / "prompt_embeds.safetensors").exists()
    config = planned.model.config
    return {
        "out": str(dst),
        "parameters": planned.count,
        "layers": config.num_layers,
        "heads": config.num_attention_heads,
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in planned.parameters.values()}),
        "shards": shards,
        "weights": checkpoint.nest,
        "not_taken": list(checkpoint.others),
        "lora": None if changes is None else {"weights": len(changes.factors), "ranks": list(changes.ranks)},
        "family": family,
        "streaming": FAMILIES[family] or None,
        "assumed": assumed,
        "missing": [p for p in NEEDED if not (dst / p).is_dir() and not (embeds and p != "vae")],
    }


def print_converted(result: dict[str, Any]) -> None:
    """What a person needs to know of a conversion, on stdout."""
    print(
        f"{result['out']}/transformer  {_count(result['layers'], 'layer')}, {_count(result['heads'], 'head')}, "
        f"{result['parameters']:,} parameters, {', '.join(result['dtypes'])}, {_count(result['shards'], 'file')}"
    )
    taken = f"{result['weights']} of the checkpoint" if result["weights"] else "all tensors of the checkpoint"
    left = f" (also there: {', '.join(result['not_taken'])}; --weights chooses)" if result["not_taken"] else ""
    print(f"weights   {taken}{left}")
    if result["lora"]:
        ranks = ", ".join(map(str, result["lora"]["ranks"]))
        print(f"lora      merged into {result['lora']['weights']} weights, rank {ranks}")
    if result["streaming"]:
        fields = (f"{key} {value}" for key, value in result["streaming"].items())
        print(f"streaming {result['family']}: {', '.join(fields)}")
    else:
        print("streaming none: a bidirectional model cannot stream; if it was distilled for it, name its --family")
    for assumption in result["assumed"]:
        print(f"assumed   {assumption}")
    if result["missing"]:
        print(
            f"missing   {', '.join(result['missing'])}: copy them from a diffusers folder of the same Wan, "
            "or convert again with --base DIR --force"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _check_output(src: Path, dst: Path, force: bool) -> None:
    if dst.resolve() in (src.resolve(), *src.resolve().parents):
        raise FileError(f"{src} lies in {dst}, which would be replaced; name another folder to write")
    if not os.path.lexists(dst) or (dst.is_dir() and not any(dst.iterdir())):
        return
    if not force:
        raise FileError(f"{dst} exists; name another folder, or replace the model in it with --force")
    if not (dst / "transformer").is_dir():
        raise FileError(f"{dst} holds no transformer folder: it is not a model folder and is not replaced")


def _parts(base: Path, config: Any) -> list[Path]:
    """The parts of a diffusers Wan folder, after a look whether they belong to such a transformer."""
    if not (base / "vae").is_dir():
        raise FileError(f"--base {base} has no vae folder; name a diffusers folder of the Wan that was distilled")
    for part, field, wanted in (("vae", "z_dim", config.in_channels), ("text_encoder", "d_model", config.text_dim)):
        file = base / part / "config.json"
        try:
            value = json.loads(file.read_text()).get(field, wanted) if file.is_file() else wanted
        except (OSError, ValueError, AttributeError) as error:
            raise FileError(f"{file} cannot be read ({error}); fetch it again") from error
        if value != wanted:
            raise ModelError(f"{file} has {field} {value}, this transformer needs {wanted}; take another --base")
    return [base / part for part in PARTS if (base / part).exists()]


def _take(part: Path, target: Path) -> None:
    """Copy a part; weights, which nobody edits, are hard links where the file system allows it."""

    def copy(source: str, to: str) -> None:
        if source.endswith(".safetensors"):
            try:
                os.link(os.path.realpath(source), to)
                return
            except OSError:
                pass  # another file system
        shutil.copy(source, to)

    if part.is_dir():
        shutil.copytree(part, target, copy_function=copy)
    else:
        copy(str(part), str(target))


def _whole(dst: Path, size: int, write: Callable[[Path], int]) -> int:
    """Write into a folder beside ``dst`` and rename it once it is whole."""
    from safetensors import SafetensorError

    made = dst.absolute().parent / f".{dst.absolute().name}-{os.getpid()}"
    try:
        made.mkdir(parents=True)
        free = shutil.disk_usage(made).free
        if free < size:
            raise SettingError(
                f"{dst.absolute().parent} has {free / 1e9:.1f} GB free; the transformer needs {size / 1e9:.1f} GB. "
                "Free some space or name another folder"
            )
        result = write(made)
        _install(made, dst)
        return result
    except (OSError, SafetensorError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot write {dst}: {reason}; nothing was changed") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _install(made: Path, dst: Path) -> None:
    if not dst.exists():
        made.rename(dst)
        return
    new = list(made.iterdir())
    replaced = made / ".replaced"
    replaced.mkdir()
    # A streaming.json goes with the transformer that it described, also where the new one has none.
    for name in {"streaming.json", *(part.name for part in new)}:
        if os.path.lexists(dst / name):
            (dst / name).rename(replaced / name)
    for part in new:
        part.rename(dst / part.name)


def _progress(show: Show) -> Callable[[list[Any]], Any]:
    """A bar over the shards where stderr is a terminal."""

    def track(shards: list[Any]) -> Any:
        from rich.progress import track

        quiet = show.quiet or not show.console.is_terminal
        return track(shards, "writing", console=show.console, transient=True, disable=quiet)

    return track
