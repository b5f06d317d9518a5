"""``prunus plan``: what a search takes, from the model's configuration alone: parameters, memory, forwards, FLOPs.

*Ours* is the search itself, run on the meta device with scripted scores: its own books, its own tensors. *Published* is
the published code's way to the same candidates, see ``published_way``. What depends on scores is run twice. *most*: no
survivors have a parent in common and every chunk that leaves the window is appended to the sinks. *least*: all
survivors are siblings and such chunks are dropped. Memory is that of *most*; of *least* only the books are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus import Reward, View, pocket, search
from prunus.commands.display import print_table
from prunus.commands.methods import METHODS, check_options, settings
from prunus.commands.models import quiet_libraries
from prunus.commands.published_way import Run, candidate_alone, published_way
from prunus.errors import SettingError
from prunus.roles import CHUNK, WHOLE, Strategy
from prunus.strategies import StreamT1, TTSnap
from prunus.tree import Node

if TYPE_CHECKING:
    from prunus.generators.video_model import VideoModel

GPUS = (8, 12, 16, 24, 32, 40, 48, 80, 141)
"""Sizes of GPU memory on the market, in GiB."""
OVERHEAD_BYTES, OVERHEAD_SHARE = 1 << 30, 0.10
ASSUMPTION = "1 GiB for driver and libraries, and 10 % for fragmentation and convolution workspaces"
GIB = 1 << 30


def plan(
    model: str, *, size: str | None, frames: int, method: str, options: Mapping[str, int], dtype: str
) -> dict[str, Any]:
    """The plan as data. Sizes are bytes, a multiply-add is two FLOPs; [least, most] where it depends on the scores.

    Not in it: reward models, the text encoder's forward. Raises SettingError or ModelError for what cannot be planned.
    """
    check_options(method, options)
    pixels = _pixels(size) if size else None
    quiet_libraries()
    from prunus.generators.meta_device import MetaVideo
    from prunus.generators.wan_configurations import KNOWN, PROMPT, build, read_configuration

    folder = pocket.path("video") if model == "pocket" else Path(model)
    configuration = KNOWN.get(model) or read_configuration(folder)
    built = build(configuration, pixels, dtype)
    streaming = built.model.streaming
    keywords = settings(method, streaming.search.get(method, {}), options)
    strategy = METHODS[method].build(**keywords)
    if isinstance(strategy, TTSnap):
        raise SettingError(f"{method} cannot be planned: it prunes inside chunks. Plan the method that it is built on")
    runs = []
    for spread in (False, True):
        video = MetaVideo(built.model, frames, weigh=spread)
        with video.running():
            tree = search(PROMPT, video, _scripted(strategy, spread), strategy)
        runs.append(Run(tree, video))
    least, most = runs
    alone = candidate_alone(built.model, frames, max(most.video.attended))
    weights = {name: part.bytes for name, part in built.weights.items()}
    everything = sum(weights.values())
    resident = everything - weights.get("text_encoder", 0)
    ways = {"published": published_way(least, most, alone, strategy), "ours": _ours(least, most)}
    for way in ways.values():
        held = way.pop("working_bytes")
        way["peak_bytes"] = {"prompts_encoded_before": resident + held, "text_encoder_on_gpu": everything + held}
        way["smallest_gpu_gib"] = {name: smallest_gpu(peak) for name, peak in way["peak_bytes"].items()}
    return {
        "model": model,
        "dtype": dtype,
        "size": list(streaming.size),
        "latent_frames": frames,
        "pixel_frames": _pixel_frames(built.model, frames),
        "method": method,
        "settings": strategy.spec(),
        "parameters": {name: part.parameters for name, part in built.weights.items()},
        "weight_bytes": weights,
        "block_bytes": alone.block_bytes,
        **ways,
        "gpus_gib": list(GPUS),
        "overhead": ASSUMPTION,
    }


class Scripted(Reward):
    """Scores that rise or fall with the depth (``slope``); with ``spread`` the children of all parents take turns."""

    def __init__(self, name: str, view: View, slope: float, spread: bool) -> None:
        self.name, self.view, self.slope, self.spread = name, view, slope, spread

    def score(self, contents: Sequence[Node], prompts: Sequence[str]) -> list[float]:
        return [self.slope * node.depth - 0.01 * self.spread * node.path[-1] for node in contents]


def _scripted(strategy: Strategy, most: bool) -> list[Scripted]:
    """Rewards by the names that the strategy reads. A better chunk after which the clip got worse is appended."""
    if not isinstance(strategy, StreamT1):
        return [Scripted(name, WHOLE, 0, most) for name in strategy.reads or ("reward",)]
    views = {strategy.short: CHUNK, strategy.long: View(strategy.window)}
    if strategy.final is not None:
        views.setdefault(strategy.final, WHOLE)
    rising = 1e3 if most else -1e3
    return [Scripted(n, view, rising if n == strategy.short else -rising, most) for n, view in views.items()]


def _ours(least: Run, most: Run) -> dict[str, Any]:
    spent = [run.tree.spent for run in (least, most)]
    return {
        "nfe": [s.generating.nfe for s in spent],
        "generating_flops": [s.generating.flops for s in spent],
        "decoding_flops": [s.rendering.flops for s in spent],
        "cache_bytes": most.video.cache_bytes,
        "state_bytes": most.tree.spent.peak_bytes,
        "activation_bytes": most.video.activations,
        "working_bytes": max(most.video.peaks.values()),
    }


def smallest_gpu(peak_bytes: int) -> int | None:
    """The smallest GPU class, in GiB, that holds this peak and the overhead; None if none does."""
    need = peak_bytes * (1 + OVERHEAD_SHARE) + OVERHEAD_BYTES
    return next((gpu for gpu in GPUS if need <= gpu * GIB), None)


def _pixels(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if not match:
        raise SettingError(f"--size {size!r} is not a size; write height x width in pixels, as in 480x832")
    return int(match[1]), int(match[2])


def _pixel_frames(model: VideoModel, frames: int) -> int:
    return (frames - 1) * model.decoder.vae.config.scale_factor_temporal + 1


def print_plan(result: Mapping[str, Any], quiet: bool) -> None:
    """The table of both ways, and what it assumes."""
    height, width = result["size"]
    print(
        f"{result['model']} in {result['dtype']}, {height}x{width}, {result['latent_frames']} latent frames = "
        f"{result['pixel_frames']} frames, {result['method']}"
    )
    parts = {name: f"{n / 1e6:,.1f} M" for name, n in result["parameters"].items()}
    print("parameters: " + ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in parts.items()))
    weights = sum(result["weight_bytes"].values())
    print(f"weights: {_size(weights)}; one chunk in the cache: {_size(result['block_bytes'])}")
    ways = [result["published"], result["ours"]]
    rows = [
        ["forwards (NFE)", *(_range(w["nfe"], 1, 0) for w in ways)],
        ["TFLOPs, generating", *(_range(w["generating_flops"], 1e12) for w in ways)],
        ["TFLOPs, decoding", *(_range(w["decoding_flops"], 1e12) for w in ways)],
        ["cache", *(_size(w["cache_bytes"]) for w in ways)],
        ["all states: cache, contexts, features", *(_size(w["state_bytes"]) for w in ways)],
        ["activations of a forward", *(_size(w["activation_bytes"]["transformer"]) for w in ways)],
        ["activations of decoding", *(_size(w["activation_bytes"]["decoder"]) for w in ways)],
    ]
    for key, what in (("text_encoder_on_gpu", "text encoder on the GPU"), ("prompts_encoded_before", "without it")):
        if "text_encoder" not in result["parameters"] and key == "text_encoder_on_gpu":
            continue
        rows.append([f"peak memory, {what}", *(_size(w["peak_bytes"][key]) for w in ways)])
        rows.append(["  fits GPUs of", *(_class(w["smallest_gpu_gib"][key]) for w in ways)])
    print_table(["", "published way", "ours"], rows, plain=quiet)
    print("least - most, where it depends on the scores; memory is for most. Reward models are not included.")
    print(f"GPU classes: {', '.join(map(str, GPUS))} GiB; added to the peak: {ASSUMPTION}.")


def _class(gib: int | None) -> str:
    return f"none up to {GPUS[-1]} GiB" if gib is None else f"{gib} GiB and more"


def _size(count: int) -> str:
    return f"{count / GIB:,.2f} GiB" if count >= GIB / 10 else f"{count / (1 << 20):,.2f} MiB"


def _range(values: Sequence[int], unit: float, digits: int = 1) -> str:
    least, most = sorted(value / unit for value in values)
    digits = max(digits, 4) if digits and most < 1 else digits
    low, high = f"{least:,.{digits}f}", f"{most:,.{digits}f}"
    return low if low == high else f"{low} - {high}"
