"""The rolling key-value cache of a streaming video as an immutable value made of shared blocks (paper 01, Stream-T1).

A *block* holds the keys and values of one committed chunk for all layers. A *cache* is two tuples of blocks: sinks,
which are attended for ever, and a rolling window. Forking is sharing the value, growing adds one block, and only an EMA
merge writes a new one; nothing is ever changed in place.

What happens to the oldest windowed block when a new chunk needs its room is told by its gate:

    append   it becomes the newest sink, without a copy, if ``max_sink`` allows; otherwise it is merged as for ``ema``
    ema      last sink <- ema * last sink + (1 - ema) * block, token by token; then the block is dropped
    discard  the block is dropped; a block without a gate is discarded as well

Keys are kept as attention reads them, rotated to their chunk's place in the video, so that blocks are attended to where
they lie. An EMA merge first moves the keys that it mixes in to the sink's place, see ``Cache.turn``.

What differs from the published code: it rotates all keys anew in every step; chunks may differ in length (a clip may
start with a single frame), and ``sink`` may be any number of frames. Blocks are kept whole: the base sink is the fewest
first blocks that hold ``sink`` frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

GATES = ("append", "ema", "discard")


Turn = Callable[[torch.Tensor, int], torch.Tensor]


def unmoved(keys: torch.Tensor, frames: int) -> torch.Tensor:
    """The turn of keys that have no positions."""
    return keys


class HasTensors(Protocol):
    """Whatever can list the tensors that it keeps alive."""

    def tensors(self) -> Iterable[torch.Tensor]: ...


def unique_bytes(holders: Iterable[HasTensors]) -> int:
    """Bytes that many caches, contexts or features keep alive together, each tensor storage counted once."""
    # By identity, not by address: on torch's meta device, where searches are planned, storages have none.
    storages = (tensor.untyped_storage() for holder in holders for tensor in holder.tensors())
    return sum(storage.nbytes() for storage in {id(storage): storage for storage in storages}.values())


@dataclass(frozen=True)
class CacheSpec:
    """Sizes of a cache in latent frames. The defaults are those of the published code of paper 01."""

    chunk: int = 3
    """Frames that are generated at a time."""
    window: int | None = 12
    """Frames attended while no sink has been appended: the base sink, the rolling window, the new chunk. None: all."""
    sink: int = 3
    """Frames at the start of the video that are never evicted; 0 is a plain sliding window."""
    max_sink: int = 15
    """Most frames that the base sink and the appended sinks may hold together."""
    ema: float = 0.999
    """What remains of the last sink when a block is merged into it."""

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}; it must be at least 1 frame.")
        if self.sink < 0:
            raise ValueError(f"sink is {self.sink}; it must be at least 0 frames.")
        if self.window is not None and self.window < self.sink + self.chunk:
            raise ValueError(
                f"window is {self.window}; it must be None (unlimited) or at least sink + chunk = "
                f"{self.sink + self.chunk} frames."
            )
        if self.max_sink < self.sink:
            raise ValueError(f"max_sink is {self.max_sink}; it must be at least sink = {self.sink} frames.")
        if not 0 <= self.ema <= 1:
            raise ValueError(f"ema is {self.ema}; it must lie in [0, 1].")

    @property
    def rolling(self) -> int | None:
        """Frames of the rolling window, the new chunk among them; None if nothing is ever evicted."""
        return None if self.window is None else self.window - self.sink


@dataclass(frozen=True, eq=False)
class Block:
    """Keys and values of one committed chunk.

    ``keys`` and ``values`` are (layers, tokens, heads, dim), tokens frame by frame. Keys are normalised and rotated to
    the frames from ``start`` on, which they keep for ever.
    """

    keys: torch.Tensor
    values: torch.Tensor
    chunk: int
    """Index of the chunk in the video."""
    start: int
    """Latent frame in the video at which the chunk starts."""
    frames: int
    mix: Mapping[int, float] = field(default_factory=dict)
    """Chunk -> weight of what an EMA merge made of this block; by default the chunk itself with weight 1."""

    def __post_init__(self) -> None:
        if self.keys.ndim != 4 or self.keys.shape != self.values.shape:
            raise ValueError(
                f"keys are {tuple(self.keys.shape)} and values {tuple(self.values.shape)}; both must be the same "
                "(layers, tokens, heads, dim)."
            )
        if self.frames < 1 or self.keys.shape[1] % self.frames:
            raise ValueError(f"frames is {self.frames}; it must divide the {self.keys.shape[1]} tokens of the block.")
        if not self.mix:
            object.__setattr__(self, "mix", {self.chunk: 1.0})

    @property
    def end(self) -> int:
        """First latent frame after the chunk."""
        return self.start + self.frames

    @property
    def name(self) -> str:
        """The chunks that are in the block, as in ``6+7+8``."""
        return "+".join(map(str, self.mix))

    def tensors(self) -> Iterator[torch.Tensor]:
        yield self.keys
        yield self.values

    def merge(self, other: Block, ema: float, turn: Turn) -> Block:
        """A new block in this one's place: ``ema * self + (1 - ema) * other``, computed in at least float32.

        ``turn`` moves the other's keys to this block's place, see ``Cache``.

        Tokens meet at the same frame offset and spatial cell. If the blocks differ in length, the frames that only one
        of them has stay out: this block's own further frames are kept as they are.
        """
        tokens = self.keys.shape[1] // self.frames * min(self.frames, other.frames)
        exact = torch.promote_types(self.keys.dtype, torch.float32)

        def blend(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
            merged = mine.clone()
            merged[:, :tokens] = torch.lerp(mine[:, :tokens].to(exact), theirs, 1 - ema)
            return merged

        keys = turn(other.keys[:, :tokens].to(exact), self.start - other.start)
        values = other.values[:, :tokens].to(exact)
        mix = {chunk: ema * weight for chunk, weight in self.mix.items()}
        for chunk, weight in other.mix.items():
            mix[chunk] = mix.get(chunk, 0.0) + (1 - ema) * weight
        return replace(self, keys=blend(self.keys, keys), values=blend(self.values, values), mix=mix)


def _frames(blocks: Iterable[Block]) -> int:
    return sum(block.frames for block in blocks)


@dataclass(frozen=True, eq=False)
class Cache:
    """What a partial video may still attend to. Attention reads the sinks, then the window, then the new chunk.

    A chunk is grown in two moves: ``roomy = cache.make_room(...)`` before it is attended, once for all children of a
    parent; ``child = roomy.commit(block)`` when the chunk is kept.
    """

    spec: CacheSpec = CacheSpec()
    turn: Turn = unmoved
    """Moves rotated keys by so many frames, by the model's rotary embedding. By default keys have no positions."""
    sinks: tuple[Block, ...] = ()
    window: tuple[Block, ...] = ()
    next_chunk: int = 0
    """Index of the chunk that comes next."""
    next_frame: int = 0
    """Latent frame at which the next chunk starts."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in the order in which they are attended."""
        return self.sinks + self.window

    @property
    def frames_attended(self) -> int:
        """Frames that the cache holds; after a commit, what the newest chunk attended, itself included."""
        return _frames(self.blocks)

    @property
    def append_starts(self) -> tuple[int, ...]:
        """Start frames of the sinks that were appended to the base sink, oldest first."""
        base = 0
        while base < len(self.sinks) and _frames(self.sinks[:base]) < self.spec.sink:
            base += 1
        return tuple(block.start for block in self.sinks[base:])

    def make_room(self, gates: Mapping[int, str] | None = None, frames: int | None = None) -> Cache:
        """The cache that a new chunk of ``frames`` (default: the spec's) is grown on.

        ``gates`` maps the chunks of *this* lineage to ``append``, ``ema`` or ``discard``; a missing one is discarded.
        Returns this very cache if there is room already. A chunk longer than the whole rolling window empties it.
        """
        rolling = self.spec.rolling
        if rolling is None:
            return self
        new = self.spec.chunk if frames is None else frames
        cache = self
        while cache.window and _frames(cache.window) + new > rolling:
            cache = cache._evict((gates or {}).get(cache.window[0].chunk, "discard"))
        return cache

    def _evict(self, gate: str) -> Cache:
        victim, window = self.window[0], self.window[1:]
        if gate not in GATES:
            raise ValueError(f"The gate of chunk {victim.chunk} is {gate!r}; it must be one of {', '.join(GATES)}.")
        sinks = self.sinks
        if gate == "append" and _frames(sinks) + victim.frames <= self.spec.max_sink:
            sinks = (*sinks, victim)
        elif gate != "discard" and sinks:
            sinks = (*sinks[:-1], sinks[-1].merge(victim, self.spec.ema, self.turn))
        return replace(self, sinks=sinks, window=window)

    def commit(self, block: Block) -> Cache:
        """The cache with one more chunk. Raises ValueError if it is not the next chunk or if no room was made."""
        if (block.chunk, block.start) != (self.next_chunk, self.next_frame):
            raise ValueError(
                f"Chunk {block.chunk} at frame {block.start} cannot be committed; "
                f"the next one is chunk {self.next_chunk} at frame {self.next_frame}."
            )
        after = replace(self, next_chunk=block.chunk + 1, next_frame=block.end)
        if _frames(self.sinks) < self.spec.sink and not self.window:
            return replace(after, sinks=(*self.sinks, block))
        if self.make_room(frames=block.frames) is not self:
            raise ValueError(f"There is no room for the {block.frames} frames of chunk {block.chunk}: call make_room.")
        return replace(after, window=(*self.window, block))

    def tensors(self) -> Iterator[torch.Tensor]:
        for block in self.blocks:
            yield from block.tensors()

    def layout(self) -> dict[str, Any]:
        """What stands where, ready for a trace: names and weights of the blocks, frames attended, appended starts."""
        return {
            "sinks": [block.name for block in self.sinks],
            "window": [block.name for block in self.window],
            "weights": [dict(block.mix) for block in self.blocks],
            "starts": [block.start for block in self.blocks],
            "frames_attended": self.frames_attended,
            "append_starts": list(self.append_starts),
        }
