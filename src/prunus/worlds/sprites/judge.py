"""The exact judge of the sprites world: reads pixels and the prompt, nothing else.

``track.py`` finds the named sprites in each frame. With w = found * visible^2,
means below are over frames, weighted by w; ``ramp(x, a, b)`` is linear from 0 at a to 1 at b.

Per named sprite i; ``colour``, ``shape`` and ``motion`` are means over sprites:

- ``colour_i``: mean of exp(-(|measured - asked| / 0.18)^2), RGB distance in [0, 1] units.
- ``shape_i``: mean of ramp(IoU, 0.4, 0.92) * ramp(lead, -0.3, 0.5): soft IoU with the asked stencil, and its lead over
  the best other stencil, divided by the lead that a perfect sprite has over that one. Frames in which the surroundings
  are hidden count less (by the fourth power of their open share): shapes cannot be told apart there.
- ``motion_i``: place * direction * support. place: mean of exp(-(d / 3)^2), d px from the asked motion's path, its
  start fitted robustly among those with free way ahead, so that direction is judged before the first bounce.
  direction: mean of exp(-(e / 0.5)^2) over straight stretches of up to 5 steps, e the displacement's error relative
  to 2 px a step (standing still is 1 for a mover, the wrong way 2). support: ramp from 0 to half of the visible frames.

Per clip:

- ``persistence``: mean over sprites of (share of its visible area that is there)^2. What the other named sprite or the
  curtain hides is judged by where the path that explains the track best puts the sprite.
- ``smoothness``: mean over sprites of 1 / (1 + (s / 2.5 px)^2 + (c / 0.2)^2), s and c the rms deviation of its steps
  from that path's own steps and the rms change of its colour from frame to frame.
- ``cleanliness``: mean over frames of 1 / (1 + u / 0.15), u the squared error that drawing the sprites as found, the
  background and the curtain leaves unexplained, beyond 0.04 a pixel, per px^2 of the asked sprites' area.

``sprites`` is the mean over sprites of the geometric mean of its three, ``clip`` the geometric mean of the three of the
clip, the score their product. What cannot be told (motion and smoothness of one frame) is 1.

A stretch from the middle of a video (``begins=False``) cannot know which way a sprite is going after its bounces: there
a mover may go either way along its line and may be about to bounce. Everything else is judged alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np

from prunus.errors import VideoError
from prunus.score import Score
from prunus.worlds.sprites.scene import FAR, FREE_STEPS, MOTIONS, NEAR, SHAPES, SIZE, Sprite, parse, reflect, stencil
from prunus.worlds.sprites.track import (
    BASE,
    CLOTH,
    MARGIN,
    Track,
    bank_of_stencils,
    crop,
    curtain_columns,
    find,
    ramp,
    rgb,
    squared,
)

HIDDEN = 0.4  # a sprite that can be seen less than this is where its path puts it


def judge(video: np.ndarray, prompt: str, *, begins: bool = True) -> Score:
    """How well a video (frames, 3, 64, 64) of floats in [0, 1] shows what the prompt asks for, in [0, 1].

    ``begins``: the video starts at its first frame; False for a stretch of a longer one.
    Any number of frames from 1 on; values outside [0, 1] are clipped. Raises PromptError, and VideoError for a wrong
    shape, integers or NaN. The parts are listed in the module's docstring.
    """
    sprites = parse(prompt)
    pixels = np.clip(_checked(video), 0, 1) - BASE[:, None, None]
    bar = curtain_columns(pixels)
    tracks, opens = find(pixels, sprites, bar)
    paths = [explain(track) for track in tracks]
    seen = [visible_at(path, open_, s) for path, open_, s in zip(paths, opens, sprites, strict=True)]

    parts: dict[str, float] = {}
    for i, (s, track) in enumerate(zip(sprites, tracks, strict=True)):
        parts[f"colour_{i}"] = colour_score(track, s)
        parts[f"shape_{i}"] = shape_score(track, s)
        parts[f"motion_{i}"] = motion_score(track, s, seen[i], begins)
    each = {name: [parts[f"{name}_{i}"] for i in range(len(sprites))] for name in ("colour", "shape", "motion")}
    parts |= {name: float(np.mean(values)) for name, values in each.items()}
    parts["persistence"] = float(np.mean([_persistence(t, v) for t, v in zip(tracks, seen, strict=True)]))
    parts["smoothness"] = float(np.mean([_smoothness(t, p) for t, p in zip(tracks, paths, strict=True)]))
    parts["cleanliness"] = _cleanliness(pixels, sprites, tracks, paths, seen, bar)
    parts["sprites"] = float(np.mean([np.prod(three) ** (1 / 3) for three in zip(*each.values(), strict=True)]))
    parts["clip"] = float((parts["persistence"] * parts["smoothness"] * parts["cleanliness"]) ** (1 / 3))
    return Score(parts["sprites"] * parts["clip"], parts)


def _checked(video: np.ndarray) -> np.ndarray:
    array = np.asarray(video)
    if array.ndim != 4 or array.shape[1:] != (3, SIZE, SIZE) or len(array) == 0:
        raise VideoError(f"video has shape {array.shape}; the sprites judge reads (frames, 3, {SIZE}, {SIZE})")
    if not np.issubdtype(array.dtype, np.floating):
        raise VideoError(f"video has dtype {array.dtype}; give floats in [0, 1] (8-bit pixels: divide by 255)")
    if not np.isfinite(array).all():
        raise VideoError(f"video holds {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite")
    return array.astype(np.float32)


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean, 0 if nothing has weight: what was never found earns nothing."""
    total = weight.sum()
    return float((values * weight).sum() / total) if total > 1e-3 else 0.0


def colour_score(track: Track, sprite: Sprite) -> float:
    error = squared(track.colour - rgb(sprite.colour))
    return _mean(np.exp(-error / 0.18**2), track.weight)


@cache
def _leads() -> np.ndarray:
    """Lead (4, 4) of a perfect sprite's own stencil over each other one at its best offset."""
    bank, _ = bank_of_stencils()
    ideal = bank.reshape(len(SHAPES), -1, bank.shape[1])
    own = ideal[:, ideal.shape[1] // 2]
    both = np.einsum("ip,jop->ijo", own, ideal)
    union = np.square(own).sum(1)[:, None, None] + np.square(ideal).sum(2) - both
    return 1 - (both / union).max(2)


def shape_score(track: Track, sprite: Sprite) -> float:
    asked = SHAPES.index(sprite.shape)
    others = [i for i in range(len(SHAPES)) if i != asked]
    own = track.agreement[:, asked]
    lead = ((own[:, None] - track.agreement[:, others]) / _leads()[asked, others]).min(1)
    return _mean(ramp(own, 0.4, 0.92) * ramp(lead, -0.3, 0.5), track.weight * track.surround**4)


@cache
def _lines(step: int, free: int, frames: int) -> np.ndarray:
    """Coordinates (starts, frames) of all starts on a grid of quarter pixels with ``free`` steps ahead."""
    starts = np.arange(4 * NEAR, 4 * FAR + 1) / 4
    ahead = starts + step * free
    return reflect(starts[(ahead >= NEAR) & (ahead <= FAR), None] + step * np.arange(frames))


def fit(track: Track, motion: str, free: int) -> np.ndarray:
    """The path (frames, 2) of a motion, bounces included, that passes closest to the track.

    Starts have ``free`` steps ahead; a frame that is d px off counts by 1 / (1 + (d / 2)^2), axis by axis.
    """
    path = []
    for place, step in zip(track.position.T, MOTIONS[motion], strict=True):
        lines = _lines(step, free, len(place))
        path.append(lines[(track.weight / (1 + np.square((place - lines) / 2))).sum(1).argmax()])
    return np.stack(path, 1)


def explain(track: Track, motions: Iterable[str] = tuple(MOTIONS)) -> np.ndarray:
    """The path (frames, 2) that explains the track best, of whatever motion among these."""

    def gain(path: np.ndarray) -> float:
        return float((track.weight / (1 + np.square((track.position - path) / 2).sum(1))).sum())

    return max((fit(track, motion, free=0) for motion in motions), key=gain)


def visible_at(path: np.ndarray, open_: np.ndarray, sprite: Sprite) -> np.ndarray:
    """Share (frames,) of the asked stencil that nothing hides if the sprite is on the path."""
    square = np.pad(stencil(sprite.shape), MARGIN) ** 2
    return (crop(open_, np.rint(path).astype(int)) * square).sum((1, 2)) / square.sum()


def motion_score(track: Track, sprite: Sprite, seen: np.ndarray, begins: bool = True) -> float:
    step = np.asarray(MOTIONS[sprite.motion])
    either_way = [name for name, other in MOTIONS.items() if (np.abs(other) == np.abs(step)).all()]
    path = fit(track, sprite.motion, free=FREE_STEPS - 1) if begins else explain(track, either_way)
    place = _mean(np.exp(-np.square((track.position - path) / 3).sum(1)), track.weight)
    direction = 1.0
    if lag := min(5, len(path) - 1, max(1, int(track.weight.sum()) - 1)):
        wanted, moved = (x[lag:] - x[:-lag] for x in (path, track.position))
        error = np.sqrt(np.square(moved - wanted).sum(1)) / (2 * lag)
        straight = np.abs(wanted).sum(1) >= np.abs(step).sum() * lag
        weight = straight * track.weight[lag:] * track.weight[:-lag]
        direction = _mean(np.exp(-np.square(error / 0.5)), weight) if weight.sum() > 1e-3 else 1.0
    support = min(1.0, float(track.weight.sum() / (0.5 * (seen**2).sum() + 1e-6)))
    return place * direction * support


def _persistence(track: Track, seen: np.ndarray) -> float:
    # What is found half hidden where the path has it in the open is an edge of what hides it.
    there = track.found * ramp(track.area, 0.3, 0.9) * np.minimum(1, (track.visible + 0.05) / (seen + 0.05))
    return _mean(there, seen) ** 2 if track.weight.sum() > 1e-3 else 0.0


def _smoothness(track: Track, path: np.ndarray) -> float:
    clear = np.flatnonzero(track.weight > 0.25)
    if len(clear) < 2:
        return 1.0
    # A sprite that was hidden in between must come out where its path put it: steps are between frames that show it.
    slip = np.square(np.diff(track.position[clear] - path[clear], axis=0)).sum(1).mean()
    change = np.square(np.diff(track.colour[clear], axis=0)).sum(1).mean()
    return float(1 / (1 + slip / 2.5**2 + change / 0.2**2))


def _cleanliness(
    pixels: np.ndarray,
    sprites: tuple[Sprite, ...],
    tracks: list[Track],
    paths: list[np.ndarray],
    seen: list[np.ndarray],
    bar: np.ndarray,
) -> float:
    canvas = np.zeros((len(pixels), 3, SIZE + 2 * MARGIN, SIZE + 2 * MARGIN), np.float32)
    for sprite, track, path, visible in reversed(list(zip(sprites, tracks, paths, seen, strict=True))):
        usual = np.median(track.colour[track.weight > 0.5], axis=0) if (track.weight > 0.5).any() else np.zeros(3)
        ideal = np.pad(stencil(sprite.shape), MARGIN)
        for t, frame in enumerate(canvas):
            if visible[t] < HIDDEN:
                (x, y), patch, colour = np.rint(path[t]).astype(int), ideal, usual
            else:
                (x, y), patch, colour = track.anchor[t], track.patch[t], track.colour[t]
            box = frame[:, y - NEAR : y - NEAR + len(patch), x - NEAR : x - NEAR + len(patch)]
            box += patch * (colour[:, None, None] - box)
    drawn = canvas[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    error = np.sqrt(squared(pixels - np.where(bar[:, None, None] > 0, CLOTH[:, None, None], drawn)))
    error = np.maximum(error - 0.04, 0)
    unexplained = np.square(error).sum((1, 2)) / sum(stencil(s.shape).sum() for s in sprites)
    return float(np.mean(1 / (1 + unexplained / 0.15)))
