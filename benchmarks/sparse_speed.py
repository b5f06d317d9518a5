"""What pruning gains in wall time against what it removes in multiply-adds: one thread, one process.

    python benchmarks/sparse_speed.py                # the tables of docs/performance.md
    python benchmarks/sparse_speed.py --json
    python benchmarks/sparse_speed.py --smoke        # tiny, two runs: for CI

Structured: rows of convolutions, FFN channels and heads are really removed, in widths of multiples of 16, from a
convolutional network and a Llama whose dense forward takes 20 ms or more. Unstructured: the same dense networks with
90 % of their weights masked to zero. Pocket models lose half of their FFN and are shown only: they are so small that
calls, not multiply-adds, take the time. All kinds take turns in each run; medians of the runs. Seconds on the wall, and
in brackets of the processor alone, which other work on the machine does not touch.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus import pocket
from prunus.sparse import Masks, prune
from prunus.sparse.allocation import Uniform
from prunus.sparse.importance import Magnitude
from prunus.sparse.macs import macs_by_module
from prunus.sparse.models.decoder import Decoder
from prunus.sparse.models.smaller_decoder import smaller
from prunus.sparse.networks import conv_net, drawn
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import channels

SHARES, MASKED, ROUND = (0.75, 0.5, 0.25), 0.1, 16
ASKED, FLOOR = 0.75, 0.020
"""Wall speed-up over multiply-add speed-up that is asked for, and seconds that the dense forward must take for it."""


@dataclass(frozen=True)
class Measured:
    """One network beside its dense form: MACs of the batch, medians of seconds, and what was gained."""

    network: str
    pruned: str
    macs: float
    mac_gain: float
    wall: float
    wall_gain: float
    cpu_gain: float
    dense_wall: float
    asked: bool

    @property
    def ratio(self) -> float:
        """Of what the multiply-adds promise, what the wall clock gives."""
        return self.wall_gain / self.mac_gain

    @property
    def enough(self) -> bool:
        return self.ratio >= ASKED and self.dense_wall >= FLOOR


Forward = Callable[[], Any]


def timed(forwards: dict[str, Forward], runs: int) -> dict[str, tuple[float, float]]:
    """Median wall and processor seconds of one forward of each; all take turns in every run.

    In its turn a network runs for about as long as the slowest: what is short would otherwise fit between two
    interruptions by other work, and look faster than it is. Two runs before do not count.
    """
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in forwards}
    repeats = dict.fromkeys(forwards, 1)
    with torch.inference_mode():
        for run in range(-2, runs):
            for name, forward in forwards.items():
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(repeats[name]):
                    forward()
                spent = time.perf_counter() - wall, time.process_time() - cpu
                seen[name].append((spent[0] / repeats[name], spent[1] / repeats[name]))
            if run == -1:
                slowest = max(some[-1][1] for some in seen.values())
                repeats = {name: max(1, round(slowest / some[-1][1])) for name, some in seen.items()}
                seen = {name: [] for name in forwards}
    return {name: (statistics.median(w for w, _ in s), statistics.median(c for _, c in s)) for name, s in seen.items()}


def compare(
    name: str, networks: dict[str, nn.Module], call: Callable[[nn.Module], Any], runs: int, asked: bool = True
) -> list[Measured]:
    """``networks``: what was pruned -> the network; ``dense`` first. ``call`` runs one forward."""
    costs = {kind: macs_by_module(network, None, lambda m, _: call(m))[""] for kind, network in networks.items()}
    times = timed({kind: lambda n=network: call(n) for kind, network in networks.items()}, runs)
    dense, (wall, cpu) = costs["dense"], times["dense"]
    return [
        Measured(
            name, kind, costs[kind], dense / costs[kind], w, wall / w, cpu / c, wall,
            asked and kind != "dense" and "masked" not in kind,
        )
        for kind, (w, c) in times.items()
    ]  # fmt: skip


def masked(model: nn.Module) -> nn.Module:
    """A copy with most weights at zero: what a mask is to ordinary libraries."""
    copied = copy.deepcopy(model)
    prune(copied, Masks.of(copied), MASKED, Magnitude()).apply(copied)
    return copied


def convolutional(smoke: bool) -> tuple[dict[str, nn.Module], Callable[[nn.Module], Tensor]]:
    """Four 3x3 convolutions of 384, 384, 768 and 768 filters on an image of 32x32."""
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    dense = drawn(lambda: conv_net((384, 384, 768, 768), 3, 32), 0).eval()
    networks: dict[str, nn.Module] = {"dense": dense}
    for share in SHARES[1:2] if smoke else SHARES:
        masks = Masks.of(dense)
        kept = prune(dense, masks, share, Magnitude(), Uniform(), channels(masks, list(masks)[:-1], "norm"))
        networks[f"{share:.0%} of the filters"] = remove_channels(dense, kept, images[:1])
    networks[f"masked to {MASKED:.0%}"] = masked(dense)
    return networks, lambda model: model(images)


def llama(smoke: bool) -> tuple[dict[str, nn.Module], Callable[[nn.Module], Any]]:
    """Four layers of width 512, FFN 1536, eight heads of 64; one text of 128 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=512, intermediate_size=1536, num_hidden_layers=1 if smoke else 4,
        num_attention_heads=8, num_key_value_heads=8, attn_implementation="eager",
    )  # fmt: skip
    dense = drawn(lambda: LlamaForCausalLM(config), 0).eval()
    ids = torch.randint(256, (1, 16 if smoke else 128), generator=torch.Generator().manual_seed(0))
    networks: dict[str, nn.Module] = {"dense": dense}
    for share in SHARES[1:2] if smoke else SHARES[1:]:  # the config cannot say 6 heads of 8
        networks[f"{share:.0%} of the heads and of the FFN"] = without(dense, ("channels", "heads"), share)
    networks[f"masked to {MASKED:.0%}"] = masked(dense)
    return networks, lambda model: model(input_ids=ids, use_cache=False).logits


def without(dense: nn.Module, kinds: tuple[str, ...], share: float) -> nn.Module:
    """A smaller copy of a decoder with this share of each layer's units of these kinds, FFNs in multiples of 16."""
    decoder, masks = Decoder.of(dense), Masks.of(dense)
    for kind in kinds:
        masks = prune(dense, masks, share, Magnitude(), Uniform(), decoder.units(kind, masks))
    return smaller(dense, masks, ROUND)


def pocket_lm() -> tuple[dict[str, nn.Module], Callable[[nn.Module], Any]]:
    from transformers import AutoModelForCausalLM

    folder = pocket.path("lm")
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(25, (16, 48), generator=torch.Generator().manual_seed(0))
    networks = {"dense": dense, "half of the FFN": without(dense, ("channels",), 0.5)}
    return networks, lambda model: model(input_ids=ids, use_cache=False).logits


def pocket_video() -> tuple[dict[str, nn.Module], Callable[[nn.Module], Any]]:
    """The packaged Wan by its config alone, with random weights: time does not depend on them."""
    from diffusers import WanTransformer3DModel

    config = WanTransformer3DModel.load_config(pocket.path("video") / "transformer")
    half = -(-config["ffn_dim"] // 2 // ROUND) * ROUND
    networks = {
        kind: WanTransformer3DModel.from_config({**config, "ffn_dim": width}).eval()
        for kind, width in (("dense", config["ffn_dim"]), ("half of the FFN", half))
    }
    latents, text = torch.randn(4, config["in_channels"], 3, 16, 16), torch.randn(4, 12, config["text_dim"])
    return networks, lambda model: model(latents, torch.full((4,), 500), text, return_dict=False)[0]


def markdown(found: list[Measured]) -> str:
    lines = ["| network | what is left | MACs, M | fewer MACs | ms | faster | of what was removed |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    for row in found:
        head = f"| {row.network} | {row.pruned} | {row.macs / 1e6:.0f} | "
        if row.pruned == "dense":
            lines.append(f"{head}| {1e3 * row.wall:.1f} | | |")
        else:
            gain = f"{row.wall_gain:.2f}x [{row.cpu_gain:.2f}x]"
            lines.append(f"{head}{row.mac_gain:.2f}x | {1e3 * row.wall:.1f} | {gain} | {verdict(row)} |")
    return "\n".join(lines)


def verdict(row: Measured) -> str:
    if "masked" in row.pruned:
        return "none asked: masks are zeros that are multiplied"
    if not row.asked:
        return f"{row.ratio:.2f} (shown only)"
    return f"{row.ratio:.2f}" + ("" if row.enough else f": below {ASKED}, or the dense forward is below {FLOOR} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="alternating runs, of which the median is taken")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--smoke", action="store_true", help="tiny, two runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = 2 if options.smoke else options.runs
    found = [
        *compare("conv net", *convolutional(options.smoke), runs),
        *compare("Llama", *llama(options.smoke), runs),
        *compare("pocket/lm", *pocket_lm(), runs, asked=False),
        *compare("pocket/video", *pocket_video(), runs, asked=False),
    ]
    if options.json:
        print(json.dumps({"rows": [{**asdict(row), "ratio": row.ratio} for row in found], "runs": runs}))
    else:
        print(markdown(found))


if __name__ == "__main__":
    main()
