"""Streaming video: grows a clip chunk by chunk with a frozen Wan transformer (paper 01; DESIGN: a diffusers folder).

One unit is a chunk of latent frames. It is sampled in a few flow-matching steps, see ``flow_sampler``. An ask may stop
after some of them: the node then ends inside its chunk and shows the clean estimate x0 of the last step. The chunk's
keys and values enter the cache in one more pass at noise 0, which is run when the candidate is first grown from.

A draw depends on (seed, path, depth) alone, unless the ask names a seed or reuses its parent's (published Stream-T1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from prunus.budget import Cost
from prunus.errors import SettingError, require
from prunus.generators.flow_sampler import FlowSampler
from prunus.generators.kv_cache import Cache, unique_bytes
from prunus.generators.video_model import VideoModel
from prunus.generators.wan_decoder import Features
from prunus.generators.wan_streaming import Context, Text
from prunus.roles import Ask, Generator, Grown, How, View
from prunus.tree import Node, seed_of


@dataclass(frozen=True)
class VideoHow(How):
    """How to grow one chunk. Stream-T1's three mechanics; the thresholds behind them are the strategy's.

    ``steps`` is how many denoising steps to take now, at most (None: all that are left of the chunk).
    ``noise_mix`` is beta in x_n = beta x_{n-1} + sqrt(1 - beta^2) eps, with ``unit_variance`` divided by the deviation
    that seed reuse would give it. ``reuse_seed`` draws with the parent's seed, ``seed`` with a given one. ``gates``
    says for every earlier chunk what becomes of it when it leaves the window, ``ema`` how much of a sink EMA keeps; all
    children of a parent must agree in what becomes of the chunks that leave now, unless one batch grows them all.
    """

    steps: int | None = None
    noise_mix: float = 0.0
    unit_variance: bool = True
    reuse_seed: bool = False
    seed: int | None = None
    gates: tuple[str, ...] = ()
    ema: float = 0.999

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1, or None for all")
        require(-1 < self.noise_mix < 1, "noise_mix", self.noise_mix, "between -1 and 1")
        require(0 <= self.ema <= 1, "ema", self.ema, "from 0 to 1")


@dataclass(eq=False)
class VideoState:
    """A partial video as its children need it: an immutable value, but for two results that are computed at most once.

    ``cache`` is what this chunk attended to, with room for it; ``committed`` the cache with the chunk in it, made when
    the node is first grown from (``context`` is then let go). If that makes chunks leave it, alike for all children,
    they are let go as well: both caches are then what the children attend to, and ``left`` says how they left.
    ``features`` are the decoder's after this chunk, ``before`` those before it, until it is decoded.
    """

    text: Text
    cache: Cache
    context: Context | None = None
    latents: torch.Tensor | None = None
    committed: Cache | None = None
    left: tuple[tuple[str, ...], float] | None = None
    before: Features | None = None
    features: Features | None = None

    def tensors(self):
        for part in (self.text, self.cache, self.committed, self.before, self.features):
            if part is not None:
                yield from part.tensors()
        if self.latents is not None:
            yield self.latents


@dataclass
class _Row:
    """One ask on its way: the step that comes next and the one at which it stops, and the stream of its draws."""

    ask: Ask
    state: VideoState
    context: Context
    step: int
    stop: int
    stream: torch.Generator
    unit: dict[str, Any]


class StreamingVideo(Generator):
    """Videos of ``frames`` frames from a model folder; one frame is an image. ``sampler``: None is the model's own.

    Frames are shown as float32 (frames, 3, height, width) in [0, 1], in steps of 1/255.
    """

    how: ClassVar[type[How]] = VideoHow

    def __init__(self, model: VideoModel, frames: int = 21, sampler: FlowSampler | None = None) -> None:
        """Raises SettingError if ``frames`` is neither 1 nor a multiple of the chunk, or more than the positions."""
        chunk = model.streaming.cache.chunk
        require(
            frames == 1 or (frames >= chunk and frames % chunk == 0),
            "frames",
            frames,
            f"1 or a multiple of the chunk of {chunk} frames",
        )
        limit = model.max_frames
        require(frames <= limit, "frames", frames, f"at most {limit}, the end of the model's position table")
        self.model, self.frames = model, frames
        self.name = "streaming-video"
        self.chunks = 1 if frames == 1 else frames // chunk
        self.chunk_frames = 1 if frames == 1 else chunk
        self.sampler = sampler or model.streaming.sampler
        self.steps = len(self.sampler.sigmas)

    @classmethod
    def load(cls, folder: str | Path, frames: int = 21, device: str = "cpu", dtype: str = "float32") -> StreamingVideo:
        """Load a diffusers folder. Raises ModelError that names a missing or damaged part."""
        return cls(VideoModel.load(folder, device, dtype), frames)

    # ---- growing -----------------------------------------------------------------------------------------------

    def begin(self, prompt: str) -> VideoState:
        cache = self.model.transformer.cache(self.model.streaming.cache)
        return VideoState(self.model.text(prompt), cache, committed=cache)

    @torch.no_grad()
    def grow(self, asks: Sequence[Ask]) -> list[Grown]:
        begun = [a for a in asks if a.parent.boundary]
        committed = self._commit([a.parent.state for a in begun])
        # The earliest child pays for its parent's commit, whatever the order of rows.
        payer = {state: min(a.path for a in begun if a.parent.state is state) for state in committed}
        prices = {state: self._forward_cost(state.cache, 1) for state in committed}
        contexts = iter(self._contexts(begun))
        rows = [self._begin(a, *next(contexts)) if a.parent.boundary else self._go_on(a) for a in asks]
        x = torch.stack([r.unit.pop("noisy") for r in rows]).to(self.model.device)
        x0 = torch.empty_like(x)
        while on := [i for i, r in enumerate(rows) if r.step < r.stop]:
            x[on], x0[on] = self._step(x[on], [rows[i] for i in on])
        grown = []
        for i, row in enumerate(rows):
            ask, state, whole = row.ask, row.state, row.stop == self.steps
            state.latents = x0[i].clone()
            unit = {**row.unit, "latents": state.latents.cpu()}
            if not whole:
                unit |= {"noisy": x[i].cpu().clone(), "step": row.stop}
            cost = self._forward_cost(state.cache, len(self._steps(ask)))
            if ask.parent.boundary and payer.get(ask.parent.state) == ask.path:
                cost += prices[ask.parent.state]
            done = whole and ask.parent.depth + ask.parent.boundary == self.chunks
            grown.append(Grown(unit, state, done=done, boundary=whole, cost=cost))
        return grown

    def _steps(self, ask: Ask) -> range:
        """The denoising steps that this ask takes."""
        assert isinstance(ask.how, VideoHow)
        first = 0 if ask.parent.boundary else ask.parent.unit["step"]
        return range(first, min(self.steps, first + (ask.how.steps or self.steps)))

    def _begin(self, ask: Ask, cache: Cache, context: Context) -> _Row:
        stream, noise, notes = self._noise(ask)
        parent = ask.parent.state
        state = VideoState(parent.text, cache, context, before=parent.features)
        return _Row(ask, state, context, 0, self._steps(ask).stop, stream, {"noise": noise, **notes, "noisy": noise})

    def _go_on(self, ask: Ask) -> _Row:
        """A chunk that was left unfinished; its stream of draws is where it would be if it had not been."""
        parent, unit, steps = ask.parent.state, ask.parent.unit, self._steps(ask)
        stream = torch.Generator().manual_seed(unit["seed"])
        for _ in range(1 + self.sampler.draws(steps.start)):
            torch.randn(unit["noise"].shape, generator=stream)
        state = VideoState(parent.text, parent.cache, parent.context, before=parent.before)
        kept = {name: unit[name] for name in ("noise", "seed", "weights", "noisy")}
        return _Row(ask, state, parent.context, steps.start, steps.stop, stream, kept)

    def _step(self, x: torch.Tensor, rows: Sequence[_Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """One denoising step of rows that may be at different ones: what comes next, and the clean estimates."""
        levels = torch.tensor([1000 * self.sampler.sigmas[r.step] for r in rows], device=x.device)
        velocity = self.model.transformer.velocity(x, levels, [r.context for r in rows])
        out = self.sampler.step(x, velocity, [r.step for r in rows], [r.stream for r in rows])
        for row in rows:
            row.step += 1
        return out

    def _commit(self, states: Sequence[VideoState]) -> list[VideoState]:
        """Run the clean pass of the states that never were grown from; returns them."""
        new = [s for s in dict.fromkeys(states) if s.committed is None]
        if new:
            latents = torch.stack([s.latents for s in new])  # type: ignore[misc]
            blocks = self.model.transformer.commit(latents, [s.context for s in new])  # type: ignore[misc]
            for state, block in zip(new, blocks, strict=True):
                state.committed, state.context = state.cache.commit(block), None
        return new

    def _contexts(self, asks: Sequence[Ask]) -> list[tuple[Cache, Context]]:
        """For each ask the cache with room for a chunk, and what is attended to in it; siblings share both."""
        made: dict[tuple, tuple[Cache, Context]] = {}
        out = []
        for ask in asks:
            how, state = ask.how, ask.parent.state
            assert isinstance(how, VideoHow)
            key = (id(state), how.gates, how.ema)
            if key not in made:
                made[key] = self._context(state, how.gates, how.ema)
            out.append(made[key])
        for state in {id(ask.parent.state): ask.parent.state for ask in asks}.values():
            rooms = [(cache, gates, ema) for (parent, gates, ema), (cache, _) in made.items() if parent == id(state)]
            if len(rooms) == 1 and rooms[0][0].blocks != state.committed.blocks:
                state.cache = state.committed = rooms[0][0]
                state.left = rooms[0][1:]
        return out

    def _context(self, parent: VideoState, gates: Sequence[str], ema: float) -> tuple[Cache, Context]:
        assert parent.committed is not None
        if parent.left not in (None, (gates, ema)):
            raise SettingError(
                f"gates = {gates}, ema = {ema} are not those that this parent was grown with before, "
                f"{parent.left}; grow its children with the same ones, or all of them in one batch"
            )
        cache = parent.committed
        if cache.spec.ema != ema:
            cache = replace(cache, spec=replace(cache.spec, ema=ema))
        cache = cache.make_room(dict(enumerate(gates)), self.chunk_frames)
        return cache, self.model.transformer.context(cache, parent.text, self.model.latent_size)

    def _noise(self, ask: Ask) -> tuple[torch.Generator, torch.Tensor, dict[str, Any]]:
        """The candidate's stream, its initial noise (c, f, h, w), and what its children must know of it."""
        how, parent = ask.how, ask.parent.unit
        assert isinstance(how, VideoHow)
        if how.reuse_seed and parent is None:
            raise SettingError("reuse_seed needs a parent chunk; the first chunk has none")
        seed = parent["seed"] if how.reuse_seed else how.seed
        if seed is None:
            seed = seed_of(ask.seed, ask.path, ask.parent.depth)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.model.channels, self.chunk_frames, *self.model.latent_size, generator=generator)
        # The noise is a sum of independent draws, one per seed: its deviation follows from their weights.
        weights = {str(seed): 1.0}
        if how.noise_mix and parent is not None:
            rest = math.sqrt(1 - how.noise_mix**2)
            weights = {k: how.noise_mix * w for k, w in parent["weights"].items()}
            weights[str(seed)] = weights.get(str(seed), 0.0) + rest
            noise = how.noise_mix * parent["noise"] + rest * noise
            if how.unit_variance:
                deviation = math.sqrt(sum(w * w for w in weights.values()))
                noise, weights = noise / deviation, {k: w / deviation for k, w in weights.items()}
        return generator, noise, {"seed": seed, "weights": weights}

    # ---- costs -------------------------------------------------------------------------------------------------

    def _forward_cost(self, cache: Cache, forwards: int) -> Cost:
        return self._forwards(cache.frames_attended, forwards)

    def _forwards(self, context_frames: int, forwards: int) -> Cost:
        flops = self.model.flops(self.chunk_frames, context_frames)
        return Cost(nfe=forwards, flops=flops * forwards)

    def cost(self, asks: Sequence[Ask]) -> Cost:
        total, paid = Cost(), set()
        for ask in asks:
            state = ask.parent.state
            if ask.parent.boundary and state.committed is None and id(state) not in paid:
                paid.add(id(state))
                total += self._forward_cost(state.cache, 1)
            total += self._forwards(self._attended(ask), len(self._steps(ask)))
        return total

    def _attended(self, ask: Ask) -> int:
        """Frames of context that this ask's chunk will attend to."""
        how, state = ask.how, ask.parent.state
        assert isinstance(how, VideoHow)
        if not ask.parent.boundary:
            return state.cache.frames_attended
        if state.committed is not None:
            return state.committed.make_room(dict(enumerate(how.gates)), self.chunk_frames).frames_attended
        # Not committed yet: at most what it attended to and itself, within what the window can hold.
        return min(state.cache.frames_attended + self.chunk_frames, self._most_context("append" in how.gates))

    def _most_context(self, appended: bool) -> int:
        spec = self.model.streaming.cache
        if spec.rolling is None:
            return self.frames
        return (spec.max_sink if appended else spec.sink) + spec.rolling - self.chunk_frames

    def finish_cost(self, ask: Ask) -> Cost:
        chunks = self.chunks - ask.parent.depth - ask.parent.boundary
        rest = self._forwards(self._attended(ask), self.steps - self._steps(ask).stop)
        return rest + self._forwards(min(self.frames, self._most_context(True)), (self.steps + 1) * chunks)

    def units_left(self, node: Node) -> int:
        return self.chunks - node.depth

    def state_bytes(self, states: Sequence[VideoState]) -> int:
        return unique_bytes(states)

    # ---- showing -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def render(self, nodes: Sequence[Node], view: View) -> list[Any]:
        self._decode(self._unseen(nodes, view))
        shown = [torch.cat([n.rendering for n in node.units(view.units)]).float().div_(255) for node in nodes]
        if not view.progress:
            return shown
        return [(frames, node.unit.get("step", self.steps)) for frames, node in zip(shown, nodes, strict=True)]

    def _unseen(self, nodes: Sequence[Node], view: View) -> list[Node]:
        """The nodes to decode for this view, ancestors first; a decoder with memory needs all ancestors' features."""
        decoder = self.model.decoder
        wanted: dict[Node, None] = {}  # nodes of several trees: their ids are not unique
        for node in nodes:
            for n in node.units(view.units):
                if n.rendering is None:
                    wanted[n] = None
                    while not decoder.framewise and n.fork is not None and n.fork.parent is not None:
                        if n.state is not None and n.state.before is not None:
                            break
                        n = n.fork
                        wanted[n] = None
        return sorted(wanted, key=lambda n: n.depth)

    def _decode(self, nodes: Sequence[Node]) -> None:
        """Decode chunks in as few calls as their order allows, and keep the frames as 8-bit."""
        decoder = self.model.decoder
        after: dict[Node | None, Features] = {}
        waves = [list(nodes)] if decoder.framewise else []
        for node in () if decoder.framewise else nodes:
            if not waves or waves[-1][0].depth != node.depth:
                waves.append([])
            waves[-1].append(node)
        for wave in waves:
            if not wave:
                continue
            before = [after.get(n.fork) or (n.state.before if n.state else None) for n in wave]
            latents = torch.stack([n.unit["latents"] for n in wave]).to(self.model.device)
            frames, features = decoder.decode(latents, before)
            for node, shown, feature in zip(wave, frames, features, strict=True):
                node.rendering = shown.mul(255).round().to(torch.uint8).cpu()
                after[node] = feature
                if node.state is not None and node.boundary:  # an estimate's features lead nowhere
                    node.state.features, node.state.before = feature, None

    def render_cost(self, nodes: Sequence[Node], view: View) -> Cost:
        unseen = self._unseen(nodes, view)
        return Cost(flops=sum(self.model.decode_flops(self.chunk_frames, node.depth == 1) for node in unseen))

    def render_price(self) -> Cost:
        return Cost(flops=self.model.decode_flops(self.chunk_frames, self.chunks == 1))

    # ---- going on ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def restore(self, nodes: Sequence[Node], prompt: str) -> list[tuple[VideoState, Cost]]:
        """Rebuild states by committing the lineages' chunks again; what nodes share is rebuilt once."""
        states: dict[int, VideoState] = {n.id: self.begin(prompt) for n in nodes if n.parent is None}
        lineages = [n.units() for n in nodes]
        costs = [Cost()] * len(nodes)
        for depth in range(max(len(x) for x in lineages)):
            level = {x[depth].id: (x[depth], i) for i, x in reversed(list(enumerate(lineages))) if len(x) > depth}
            for node, payer in level.values():
                parent = node.fork
                assert parent is not None
                if parent.id not in states:  # the root
                    states[parent.id] = self.begin(prompt)
                done = self._commit([states[parent.id]])
                costs[payer] += sum((self._forward_cost(s.cache, 1) for s in done), Cost())
                how = VideoHow(**{**node.how, "gates": tuple(node.how.get("gates", ()))})
                cache, context = self._context(states[parent.id], how.gates, how.ema)
                states[node.id] = VideoState(
                    self.model.text(prompt), cache, context, node.unit["latents"].to(self.model.device)
                )
        for i, node in enumerate(nodes):
            if node.boundary and node.children:  # it was grown from before: its commit was paid for, and is rebuilt
                costs[i] += sum((self._forward_cost(s.cache, 1) for s in self._commit([states[node.id]])), Cost())
        return [(states[n.id], c) for n, c in zip(nodes, costs, strict=True)]

    def spec(self) -> dict:
        return {
            "name": self.name, "model": str(self.model.folder), "frames": self.frames, "sampler": self.sampler.spec()
        }  # fmt: skip
