"""The published code's way to a search's candidates, in numbers (paper 01, Stream-T1).

Candidates are grown one after another. Each has a deep copy of the whole allocated cache (window + most sinks - sink
frames), of which every layer clones its part in every step; parents' copies live until the last child is made. Every
candidate is committed at once (steps + 1 forwards a chunk). Each reward's view is decoded anew, latent frame by latent
frame, and the finished beams of Stream-T1 once more. Methods that finish what they begin hold one cache at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunus import Tree
from prunus.roles import Strategy
from prunus.strategies import StreamT1
from prunus.tree import Node

if TYPE_CHECKING:
    from prunus.generators.meta_device import MetaVideo
    from prunus.generators.video_model import VideoModel


@dataclass(frozen=True)
class Run:
    """A search on the meta device: its tree and its measuring generator."""

    tree: Tree
    video: MetaVideo


@dataclass(frozen=True)
class Alone:
    """What one candidate by itself takes: bytes, and FLOPs of decoding the first latent frame and each later one."""

    transformer: int
    decoder: int
    block_bytes: int
    text_bytes: int
    decode_flops: tuple[int, int]


def candidate_alone(model: VideoModel, frames: int, context_frames: int) -> Alone:
    """Measured on the meta device: a forward over ``context_frames``, and diffusers' own decoding of a whole video."""
    import torch

    from prunus.generators.kv_cache import Block, unique_bytes
    from prunus.generators.meta_device import MetaVideo
    from prunus.generators.wan_configurations import PROMPT
    from prunus.generators.wan_flops import flop_counter
    from prunus.generators.wan_streaming import Context

    video, text, vae = MetaVideo(model, frames), model.text(PROMPT), model.decoder.vae
    rows, columns = model.transformer.grid(model.latent_size)
    tokens = context_frames * rows * columns
    layers, _, heads, width = text.keys.shape
    kept = text.keys.new_empty(layers, tokens, heads, width)
    blocks = (Block(kept, kept, 0, 0, context_frames),) if tokens else ()
    context = Context(text, model.latent_size, 0, 0, blocks)
    latents = torch.empty(1, model.channels, frames, *model.latent_size, device="meta", dtype=vae.dtype)
    decoding: list[int] = []
    with torch.no_grad(), video.running():
        block = model.transformer.commit(latents[:, :, : video.chunk_frames].float(), [context])[0]
        video.activations["transformer"] = 0  # recording is a commit's, not the published forward's
        model.transformer.velocity(latents[:, :, : video.chunk_frames].float(), latents.new_empty(1), [context])
        with video.memory.watch(lambda before, most: decoding.append(most - before)):
            vae.decode(latents, return_dict=False)
    counts = []
    for several in (1, 2):
        with torch.no_grad(), flop_counter() as counter:
            vae.decode(latents.new_empty(1, model.channels, several, *model.latent_size))
        counts.append(counter.get_total_flops())
    transformer = video.activations["transformer"]
    decode_flops = counts[0], counts[1] - counts[0]
    return Alone(transformer, decoding[0], unique_bytes([block]), unique_bytes([text]), decode_flops)


def published_way(least: Run, most: Run, alone: Alone, strategy: Strategy) -> dict[str, Any]:
    """What the published way to the candidates of these searches takes; [least, most] where scores decide."""
    video, spec = most.video, most.video.model.streaming.cache
    calls = video.steps + 1
    allocated = video.frames if spec.window is None else spec.window + spec.max_sink - spec.sink
    cache = alone.block_bytes // video.chunk_frames * allocated
    layers = video.model.config.num_layers
    # A layer's clone of its part of the cache, and the chunk's keys and values that are written after the last layer.
    forward = alone.transformer + cache // layers + alone.block_bytes
    caches = 1 if strategy.finishes_all else _most_caches(most.tree)
    return {
        "nfe": [calls * len(run.video.attended) for run in (least, most)],
        "generating_flops": [
            calls * sum(video.model.flops(video.chunk_frames, context) for context in run.video.attended)
            for run in (least, most)
        ],
        "decoding_flops": [_decoding_anew(run, alone, strategy) for run in (least, most)],
        "cache_bytes": caches * cache,
        "state_bytes": caches * cache + alone.text_bytes,
        "activation_bytes": {"transformer": forward, "decoder": alone.decoder},
        "working_bytes": caches * cache + alone.text_bytes + max(forward, alone.decoder),
    }


def _most_caches(tree: Tree) -> int:
    """Parents and children of one round: the parents' caches are copied from until the last child is made."""
    rounds: dict[int, list[Node]] = {}
    for node in tree.nodes[1:]:
        rounds.setdefault(node.round, []).append(node)
    return max(len(nodes) + len({n.parent for n in nodes}) for nodes in rounds.values())


def _decoding_anew(run: Run, alone: Alone, strategy: Strategy) -> int:
    first, later = alone.decode_flops
    views = list(run.video.shown)
    if isinstance(strategy, StreamT1):  # the finished beams are decoded once more to choose among them
        views += [node.depth for node in run.tree.finished]
    return sum(first + (chunks * run.video.chunk_frames - 1) * later for chunks in views)
