"""Draw a scene: frames of 64x64 RGB in [0, 1] at 8 frames per second."""

from __future__ import annotations

import numpy as np

from prunus.worlds.sprites.scene import COLOURS, SHORT, SIZE, Curtain, Scene, stencil

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
    if scene.curtain is not None:
        hang(scene.curtain, video)
    return video


def hang(curtain: Curtain, video: np.ndarray, first: int = 0) -> None:
    """Draw the curtain over a video (frames, 3, 64, 64) in place; its first frame is frame ``first`` of the clip."""
    begin, end = curtain.start - first, curtain.start + curtain.frames - first
    colour = np.asarray(curtain.colour, np.float32)[:, None, None] / 255
    video[max(begin, 0) : max(end, 0), :, :, curtain.left : curtain.left + curtain.width] = colour
