"""A video chunk by chunk on diffusers' unchanged ``WanTransformer3DModel``, over a rolling key-value cache (paper 01).

    model = StreamingTransformer(transformer)
    text = model.text(prompt_embeds)                             # once per prompt
    cache = model.cache(spec)
    context = model.context(cache.make_room(gates), text, size)  # once per chunk and parent
    velocity = model.velocity(latents, timesteps, [context, context, other])   # per step: all rows in one batch
    blocks = model.commit(clean, [context])                      # the clean pass at timestep 0, for survivors

Rows share the blocks that their contexts have in common without a copy. Parents in one batch may differ in prompt, in
length of the context and in position. Rotary positions are absolute latent frames: the base sink keeps 0.., an appended
sink its own for ever, the window the true ones. So a key is rotated once, when it is made.
``clip_velocity`` is the same network over whole clips under a mask, for training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from prunus.errors import ModelError
from prunus.generators.kv_cache import Block, Cache, CacheSpec
from prunus.generators.wan_attention import (
    WORK,
    ChunkWork,
    ClipWork,
    Shared,
    StreamingProcessor,
    Work,
    rotate,
    runs,
    text_keys_values,
)


@dataclass(frozen=True, eq=False)
class Text:
    """Cross-attention keys and values of a prompt, (layers, text tokens, heads, dim)."""

    keys: torch.Tensor
    values: torch.Tensor

    def tensors(self) -> Iterator[torch.Tensor]:
        yield self.keys
        yield self.values


@dataclass(frozen=True, eq=False)
class Context:
    """All that the next chunk of a parent attends to besides itself. It holds references, no memory of its own."""

    text: Text
    size: tuple[int, int]
    """Latent height and width."""
    chunk: int
    """Index of the chunk that comes next."""
    start: int
    """Latent frame at which it starts."""
    blocks: tuple[Block, ...] = ()


class StreamingTransformer:
    """Streaming on a Wan transformer; installs its attention processors once. Without it the model works as before."""

    def __init__(self, transformer: Any) -> None:
        """Raises ModelError for what cannot stream: image-to-video inputs, temporal patches."""
        config = transformer.config
        if config.added_kv_proj_dim is not None or config.image_dim is not None:
            raise ModelError("This is an image-to-video transformer (image_dim is set); give a text-to-video one.")
        if config.patch_size[0] != 1:
            raise ModelError(f"The transformer's patch_size is {tuple(config.patch_size)}; streaming needs 1 frame.")
        self.transformer = transformer
        self._table = _rotary_table(transformer.rope)
        self.chunk_rotation = lru_cache(maxsize=8)(self._chunk_rotation)
        processors = {}
        for name, usual in transformer.attn_processors.items():
            usual = usual.usual if isinstance(usual, StreamingProcessor) else usual
            processors[name] = StreamingProcessor(int(name.split(".")[1]), usual)
        transformer.set_attn_processor(processors)

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in (norms and rotary tables apart)."""
        return self.transformer.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.transformer.patch_embedding.weight.device

    @torch.no_grad()
    def text(self, prompt_embeds: torch.Tensor) -> Text:
        """Keys and values of one prompt's embeddings (tokens, width), without padding, for all layers."""
        embeds = prompt_embeds.to(self.device, self.dtype)[None]
        embedded = self.transformer.condition_embedder.text_embedder(embeds)
        pairs = [text_keys_values(block.attn2, embedded) for block in self.transformer.blocks]
        return Text(torch.cat([key for key, _ in pairs]), torch.cat([value for _, value in pairs]))

    def cache(self, spec: CacheSpec) -> Cache:
        """An empty cache for this model's keys."""
        return Cache(spec, self.turn)

    def context(self, cache: Cache, text: Text, size: tuple[int, int]) -> Context:
        """What the chunk after ``cache`` attends to; ``size`` is the latents' height and width."""
        return Context(text, size, cache.next_chunk, cache.next_frame, cache.blocks)

    @torch.no_grad()
    def velocity(self, latents: torch.Tensor, timesteps: torch.Tensor, contexts: Sequence[Context]) -> torch.Tensor:
        """The flow-matching velocity (n, c, f, h, w) of noisy chunks ``latents`` (n, c, f, h, w).

        ``timesteps`` (n,) are floats in [0, 1000]; ``contexts`` has one entry per row, siblings name the same object.
        """
        return self._run(latents, timesteps, contexts)[0]

    @torch.no_grad()
    def commit(self, latents: torch.Tensor, contexts: Sequence[Context]) -> list[Block]:
        """The clean pass at timestep 0 (paper 01: context noise 0): each row's keys and values as a block."""
        timesteps = torch.zeros(len(latents), device=latents.device)
        _, order, work = self._run(latents, timesteps, contexts, record=True)
        blocks = []
        for context, place in zip(contexts, torch.tensor(order).argsort().tolist(), strict=True):
            # stack copies: a block owns its memory, so that it is freed without its batch.
            keys = torch.stack([layer[place] for layer in work.keys])
            values = torch.stack([layer[place] for layer in work.values])
            blocks.append(Block(keys, values, context.chunk, context.start, latents.shape[2]))
        return blocks

    def _run(
        self, latents: torch.Tensor, timesteps: torch.Tensor, contexts: Sequence[Context], record: bool = False
    ) -> tuple[torch.Tensor, list[int], ChunkWork]:
        """Velocity in the caller's order, the order in which rows were run, and the work that was done."""
        n, frames, size = len(latents), latents.shape[2], tuple(latents.shape[3:])
        if not n == len(contexts) == len(timesteps):
            raise ValueError(f"latents has {n} rows, timesteps {len(timesteps)} and contexts {len(contexts)}.")
        for context in contexts:
            if context.size != size:
                raise ValueError(f"latents are {size} high and wide, but a context was made for {context.size}.")
        # Rows of one prompt stand together, and in them those that have their first blocks in common.
        texts = [id(context.text) for context in contexts]
        place = {block: i for i, block in enumerate(dict.fromkeys(b for context in contexts for b in context.blocks))}
        order = sorted(range(n), key=lambda row: (texts.index(texts[row]), [place[b] for b in contexts[row].blocks]))
        ordered = [contexts[row] for row in order]
        starts = [context.start for context in ordered]
        spans = {start: self.chunk_rotation(start, frames, ordered[0].size) for start in set(starts)}
        work = ChunkWork(
            rotation=spans[starts[0]] if len(spans) == 1 else torch.stack([spans[start] for start in starts]),
            blocks=[Shared(rows, *block.tensors()) for block in place for rows in _rows(block, ordered)],
            texts=[Shared(rows, *text.tensors()) for rows, text in runs([context.text for context in ordered])],
            record=record,
        )
        if order == list(range(n)):
            return self._forward(latents, timesteps, work), order, work
        velocity = self._forward(latents[order], timesteps[order], work)
        return velocity[torch.tensor(order).argsort().to(velocity.device)], order, work

    def _forward(self, latents: torch.Tensor, timesteps: torch.Tensor, work: Work) -> torch.Tensor:
        # The text is in the work; the condition embedder projects one empty token instead of it.
        no_text = latents.new_zeros((len(latents), 1, self.transformer.config.text_dim), dtype=self.dtype)
        token = WORK.set(work)
        try:
            return self.transformer(latents.to(self.dtype), timesteps, no_text, return_dict=False)[0].type_as(latents)
        finally:
            WORK.reset(token)

    def clip_velocity(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        prompt_embeds: torch.Tensor,
        mask: torch.Tensor | None = None,
        frames: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Velocity (n, c, f, h, w) of whole clips under a mask, differentiable: for training and as a reference.

        ``latents`` (n, c, f, h, w); ``timesteps`` (n, f): each frame has its own; ``prompt_embeds`` (n, tokens, width)
        with ``text_mask`` (n, tokens), True for real tokens; ``mask`` (f, f) or (n, f, f), True where a frame (row) may
        look at another, see ``block_causal``; ``frames`` (f,) or (n, f): absolute positions, default 0 .. f - 1. So the
        clean chunks and the noisy one may stand in one sequence, at the same or at other positions.
        Raises ModelError with gradient checkpointing, whose second pass would run without this work.
        """
        if self.transformer.gradient_checkpointing and torch.is_grad_enabled():
            raise ModelError("Streaming excludes gradient checkpointing: call disable_gradient_checkpointing().")
        n, _, f, height, width = latents.shape
        size = height, width
        tokens = math.prod(self.grid(size))
        positions = torch.arange(f) if frames is None else frames
        if mask is not None:
            mask = mask.repeat_interleave(tokens, -1).repeat_interleave(tokens, -2)
            mask = mask.view(-1, 1, f * tokens, f * tokens)
        if text_mask is not None:
            text_mask = text_mask[:, None, None, :]
        text = self.transformer.condition_embedder.text_embedder(prompt_embeds.to(self.dtype))
        rows = latents.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        work = ClipWork(f, self.rotations(positions, size), mask, text, text_mask)
        velocity = self._forward(rows, timesteps.flatten(), work)
        return velocity.squeeze(2).unflatten(0, (n, f)).transpose(1, 2)

    def turn(self, keys: torch.Tensor, frames: int) -> torch.Tensor:
        """Rotated keys (..., heads, dim) moved by ``frames``, forwards or backwards in time."""
        time, high, wide = self._table
        angles = time[abs(frames)] if frames >= 0 else time[-frames].conj()
        still = torch.ones(high.shape[1] + wide.shape[1], dtype=angles.dtype)
        return rotate(keys, torch.cat((angles, still)).to(keys.device))

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens in a latent frame of ``size``."""
        _, high, wide = self.transformer.config.patch_size
        if size[0] % high or size[1] % wide:
            raise ValueError(f"size is {size}; it must be divisible by the transformer's patches of {(high, wide)}.")
        return size[0] // high, size[1] // wide

    def rotations(self, frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Rotations (..., tokens, 1, dim / 2), as complex numbers, for the tokens of latent frames ``frames`` (..., f).

        Raises ModelError beyond the end of the model's rotary table (1024 latent frames).
        """
        time, high, wide = self._table
        if int(frames.max()) >= len(time):
            raise ModelError(
                f"Latent frame {int(frames.max())} is beyond the model's {len(time)} rotary positions; "
                f"a video may have at most {len(time)} latent frames."
            )
        rows, columns = self.grid(size)
        shape = (*frames.shape, rows, columns, -1)
        parts = time[frames.cpu()][..., None, None, :], high[:rows, None], wide[:columns]
        rotation = torch.cat([part.expand(shape) for part in parts], -1)
        return rotation.flatten(-4, -2).unsqueeze(-2).to(self.device)

    def _chunk_rotation(self, start: int, frames: int, size: tuple[int, int]) -> torch.Tensor:
        return self.rotations(torch.arange(start, start + frames), size)


def _rows(block: Block, contexts: Sequence[Context]) -> Iterator[slice]:
    """The neighbouring rows whose contexts hold the block."""
    return (rows for rows, held in runs([block in context.blocks for context in contexts]) if held)


def _rotary_table(rope: Any) -> tuple[torch.Tensor, ...]:
    """The model's rotary table as complex numbers (positions, pairs) for time, height and width."""
    if rope.freqs_cos.dtype in (torch.float16, torch.bfloat16):
        # The whole model was cast with .to(dtype), which rounds positions too: compute them anew.
        rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len)
    table = torch.complex(rope.freqs_cos[:, 0::2].float(), rope.freqs_sin[:, 1::2].float()).cpu()
    return table.split([rope.t_dim // 2, rope.h_dim // 2, rope.w_dim // 2], 1)


def block_causal(chunks: torch.Tensor) -> torch.Tensor:
    """Mask (..., f, f) for ``clip_velocity``: a frame sees its own and earlier ``chunks`` (..., f)."""
    return chunks.unsqueeze(-1) >= chunks.unsqueeze(-2)
