"""Floating-point operations of a Wan transformer when it streams, from its configuration alone.

Counted, a multiply-add as two: patch embedding, time embedding, all linear layers, and attention over the tokens that
are attended (own chunk, context, text). Not counted: norms, activations, rotary positions, softmax.
"""

from __future__ import annotations

import math
from typing import Any

from prunus.generators.wan_attention import FLASH_WITH_LSE


def flops(
    config: Any, rows: int, frames: int, size: tuple[int, int], context_frames: int = 0, text_tokens: int = 0
) -> int:
    """FLOPs of one forward of ``rows`` chunks: ``frames`` latent frames each, latents of ``size`` (height, width).

    The commit pass costs the same. Rows with contexts of different lengths: add them up.
    """
    width = config.num_attention_heads * config.attention_head_dim
    patch = math.prod(config.patch_size)
    per_frame = size[0] * size[1] // (config.patch_size[1] * config.patch_size[2])
    own, attended = frames * per_frame, (frames + context_frames) * per_frame
    # Self-attention has four projections, cross-attention two (keys and values of the text are made once per prompt).
    layer = own * (6 * width**2 + 2 * width * config.ffn_dim + 2 * width * (attended + text_tokens))
    ends = own * width * patch * (config.in_channels + (config.out_channels or config.in_channels))
    # Time embedding, and the one empty text token that the condition embedder always projects.
    conditions = config.freq_dim * width + 7 * width**2 + config.text_dim * width + width**2
    return 2 * rows * (config.num_layers * layer + ends + conditions)


def text_flops(config: Any, text_tokens: int) -> int:
    """FLOPs of a prompt's cross-attention keys and values, once per prompt, the text encoder not included."""
    width = config.num_attention_heads * config.attention_head_dim
    return 2 * text_tokens * (config.text_dim * width + width**2 + config.num_layers * 2 * width**2)


def flop_counter() -> Any:
    """torch's own counter, for what has no formula here; it is taught the CPU's attention, which it does not know."""
    from torch.utils.flop_counter import FlopCounterMode

    def attention(query: Any, key: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
        rows, heads, own, width = query
        return 4 * rows * heads * own * key[2] * width

    known = {} if FLASH_WITH_LSE is None else {FLASH_WITH_LSE: attention}
    return FlopCounterMode(display=False, custom_mapping=known)
