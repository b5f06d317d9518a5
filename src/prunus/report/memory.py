"""Which chunk went where in a streaming video's memory: the cache of one lineage, replayed without a model.

The rule itself is the cache's own (``prunus.generators.kv_cache``): blocks of a single number go through it as the
model's keys and values did. Chunks are counted from 1 as everywhere in reports, frames from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunus.tree import Node

if TYPE_CHECKING:
    from prunus.generators.kv_cache import Block, Cache, CacheSpec


@dataclass(frozen=True)
class MemoryRow:
    """The memory after one chunk. ``left`` says which chunks left the window for it, and what became of each."""

    chunk: int
    left: tuple[str, ...]
    sinks: tuple[str, ...]
    window: tuple[str, ...]
    attended: int
    append_starts: tuple[int, ...]


def memory_table(lineage: Sequence[Node], spec: CacheSpec, frames: int) -> list[MemoryRow]:
    """One row per chunk of a lineage whose chunks have ``frames`` latent frames; empty if no chunk was gated."""
    if not any(node.how.get("gates") for node in lineage):
        return []
    from prunus.generators.kv_cache import Cache

    cache, rows = Cache(spec), []
    for node in lineage:
        gates = dict(enumerate(node.how.get("gates", ())))
        before = replace(cache, spec=replace(spec, ema=node.how.get("ema", spec.ema)))
        roomy = before.make_room(gates, frames)
        cache = roomy.commit(_block(roomy, frames))
        rows.append(
            MemoryRow(
                node.depth,
                _left(before, roomy, gates),
                tuple(map(_name, cache.sinks)),
                tuple(map(_name, cache.window)),
                cache.frames_attended,
                cache.append_starts,
            )
        )
    return rows


def _block(cache: Cache, frames: int) -> Block:
    import torch

    from prunus.generators.kv_cache import Block

    token = torch.zeros(1, frames, 1, 1)
    return Block(token, token, cache.next_chunk, cache.next_frame, frames)


def _name(block: Block) -> str:
    """The chunks that are mixed in a block; four or more in a row as a range."""
    runs: list[list[int]] = []
    for chunk in sorted(block.mix):
        if runs and runs[-1][-1] == chunk - 1:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    said = [[f"{run[0] + 1}\u2013{run[-1] + 1}"] if len(run) > 3 else [str(chunk + 1) for chunk in run] for run in runs]
    return "+".join(name for names in said for name in names)


def _left(before: Cache, after: Cache, gates: Mapping[int, str]) -> tuple[str, ...]:
    """What became of the chunks that left the window, read off the sinks."""
    stayed = {block.chunk for block in after.window}
    said = []
    for block in before.window:
        if block.chunk in stayed:
            continue
        home = next((sink for sink in after.sinks if block.chunk in sink.mix), None)
        wish = gates.get(block.chunk, "discard")
        if home is None:
            said.append(f"{_name(block)} discarded")
        elif home.chunk == block.chunk:
            said.append(f"{_name(block)} appended")
        else:
            full = " (sinks are full)" if wish == "append" else ""
            said.append(f"{_name(block)} mixed into {home.chunk + 1}{full}")
    return tuple(said)
