"""The frames of a candidate as the 8-bit pictures that vision-language models and servers read."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from prunus.errors import VideoError

if TYPE_CHECKING:
    from PIL.Image import Image


def pictures(content: Any, most: int | None, who: str) -> list[Image]:
    """At most ``most`` frames of a content (None: all), evenly spaced, in order, the first and the last among them.

    Frame i of k stands at round(i (f - 1) / (k - 1)); of one it is the middle. A content is float (f, 3, h, w) in
    [0, 1], which is rounded to 8 bits. Raises VideoError, which names ``who``, for anything else.
    """
    from PIL import Image

    frames = torch.as_tensor(content)
    if frames.ndim != 4 or frames.shape[1] != 3 or len(frames) == 0 or not frames.is_floating_point():
        raise VideoError(
            f"content has shape {tuple(frames.shape)} and dtype {frames.dtype}; "
            f"{who} reads float frames (frames, 3, height, width) in [0, 1]"
        )
    shown = frames[evenly_spaced(len(frames), most)].detach().float().cpu()
    if not torch.isfinite(shown).all():
        raise VideoError(f"content has values that are NaN or infinite; {who} reads frames in [0, 1]")
    pixels = shown.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).contiguous()
    return [Image.fromarray(frame.numpy()) for frame in pixels]


def evenly_spaced(length: int, most: int | None) -> list[int]:
    """At most ``most`` of the numbers 0 to ``length`` - 1, both ends among them; of one it is the middle."""
    if most is None or length <= most:
        return list(range(length))
    if most == 1:
        return [length // 2]
    return [round(i * (length - 1) / (most - 1)) for i in range(most)]


def png(pictures: Sequence[Image]) -> list[str]:
    """The pictures as PNG files, in base64."""
    files = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, format="PNG")
        files.append(base64.b64encode(file.getvalue()).decode())
    return files
