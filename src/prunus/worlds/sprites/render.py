"""Draw a scene: frames of 64x64 RGB in [0, 1] at 8 frames per second."""

from __future__ import annotations

import numpy as np

from prunus.worlds.sprites.scene import COLOURS, SHORT, SIZE, Scene, stencil

BACKGROUND = (0x0F, 0x0F, 0x17)


def render(scene: Scene, frames: int = SHORT) -> np.ndarray:
    """The scene's perfect video, float32 (frames, 3, 64, 64)."""
    video = np.empty((frames, 3, SIZE, SIZE), np.float32)
    video[:] = np.asarray(BACKGROUND, np.float32)[:, None, None] / 255
    centres = scene.centres(frames)
    for sprite, track in reversed(list(zip(scene.sprites, centres, strict=True))):  # the first-named ends on top
        alpha = stencil(sprite.shape).astype(np.float32)
        ink = alpha * np.asarray(COLOURS[sprite.colour], np.float32)[:, None, None] / 255
        for frame, (x, y) in zip(video, track, strict=True):
            box = frame[:, y - 8 : y + 8, x - 8 : x + 8]
            box *= 1 - alpha
            box += ink
    if (bar := scene.curtain) is not None:
        colour = np.asarray(bar.colour, np.float32)[:, None, None] / 255
        video[bar.start : bar.start + bar.frames, :, :, bar.left : bar.left + bar.width] = colour
    return video
