"""What a small video model gets wrong, drawn: renderings of a scene with mistakes in content, motion and pixels.

Each draw mixes at most one wrong content or motion with several photometric faults. All strengths are random, so that a
group of draws from one scene is as mixed as siblings of a generator are. No drawing has a held-out colour-shape pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from prunus.worlds import sprites
from prunus.worlds.sprites.corruptions import CORRUPTIONS
from prunus.worlds.sprites.render import BACKGROUND
from prunus.worlds.sprites.scene import HELD_OUT_PAIRS, Scene, Sprite

BASE = np.asarray(BACKGROUND, np.float32)[:, None, None] / 255
MOVING_WRONG = ("wrong way", "frozen", "teleport", "vanished", "flicker", "colour drift")


def allowed(drawn: tuple[Sprite, ...]) -> bool:
    colours = [s.colour for s in drawn]
    return len(set(colours)) == len(drawn) and not any((s.colour, s.shape) in HELD_OUT_PAIRS for s in drawn)


def mistaken(asked: tuple[Sprite, ...], rng: np.random.Generator) -> tuple[Sprite, ...]:
    """The sprites with one attribute changed, two attributes swapped, one missing or one more."""
    while True:
        drawn, i = list(asked), int(rng.integers(len(asked)))
        match rng.choice(["colour", "shape", "motion", "motion", "swap", "missing", "extra"]):
            case "colour":
                drawn[i] = replace(drawn[i], colour=str(rng.choice(list(sprites.COLOURS))))
            case "shape":
                drawn[i] = replace(drawn[i], shape=str(rng.choice(sprites.SHAPES)))
            case "motion":
                drawn[i] = replace(drawn[i], motion=str(rng.choice(list(sprites.MOTIONS))))
            case "swap" if len(asked) == 2:
                name = str(rng.choice(["colour", "shape", "motion"]))
                first, second = asked
                drawn = [
                    replace(first, **{name: getattr(second, name)}),
                    replace(second, **{name: getattr(first, name)}),
                ]
            case "missing" if len(asked) == 2:
                del drawn[i]
            case "extra" if len(asked) == 1:
                drawn += sprites.parse(str(rng.choice(sprites.split("train", sprites=1))))
        if tuple(drawn) != asked and allowed(tuple(drawn)):
            return tuple(drawn)


def draw(scene: Scene, rng: np.random.Generator, frames: int, severity: float) -> np.ndarray:
    """One imperfect clip of a scene, float32 (frames, 3, 64, 64); ``severity`` in [0, 1] scales the pixel faults."""
    if rng.random() < 0.3:
        scene = sprites.stage(scene.prompt, rng, frames)
    video = sprites.render(scene, frames)
    kind = rng.random()
    if kind < 0.3:
        other = _staged(mistaken(scene.sprites, rng), scene, rng, frames)
        video = _blend(video, sprites.render(other, frames), rng)
    elif kind < 0.6 and frames > 1:
        fitting = [CORRUPTIONS[n] for n in MOVING_WRONG if CORRUPTIONS[n].changes(scene, frames)]
        video = _blend(video, fitting[rng.integers(len(fitting))](scene, rng, frames), rng)
    elif kind < 0.7 and frames > 1:  # the wrong speed, or a late start
        times = np.clip(np.arange(frames) * rng.uniform(0.2, 1) - rng.integers(0, 4), 0, None)
        video = video[times.round().astype(int)]
    for fault in FAULTS:
        if rng.random() < 0.25:
            video = fault(video, rng, severity * rng.random())
    return np.clip(video, 0, 1).astype(np.float32)


def _staged(drawn: tuple[Sprite, ...], scene: Scene, rng: np.random.Generator, frames: int) -> Scene:
    """Mostly at the scene's own starts, else anywhere."""
    if len(drawn) == len(scene.sprites) and rng.random() < 0.7:
        return Scene(drawn, scene.starts)
    return sprites.stage(" and ".join(map(str, drawn)), rng, frames)


def _blend(right: np.ndarray, wrong: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All wrong, or a ghost of it, or wrong from some frame on."""
    share = np.full(len(right), 1.0 if rng.random() < 0.5 else rng.uniform(0.2, 1))
    if rng.random() < 0.3:
        share[: rng.integers(len(right))] = 0
    return right + share[:, None, None, None].astype(np.float32) * (wrong - right)


# ---- faults of pixels: (video, rng, strength in [0, 1]) -> video -----------------------------------------------------


def _blurred(video: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    sigma, place = 0.3 + 2.2 * strength, np.arange(video.shape[-1])
    kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
    soft = kernel @ video @ kernel.T
    if rng.random() < 0.4:  # first blurred, then sharp: as a model's first chunks are
        sharp = np.linspace(0, 1, len(video), dtype=np.float32)[:, None, None, None]
        return soft + sharp * (video - soft)
    return soft


def _off_colour(video: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    gain = 1 + 0.6 * strength * rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32)
    return BASE + gain * (video - BASE)


def _jittery(video: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    steps = np.rint(3 * strength * rng.standard_normal((len(video), 2))).astype(int)
    return np.stack([np.roll(f, tuple(s), (1, 2)) for f, s in zip(video, steps, strict=True)])


def _faded(video: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    ends = 1 - strength * rng.random(2)
    share = np.linspace(*ends, len(video), dtype=np.float32)[:, None, None, None]
    return BASE + share * (video - BASE)


def _warped(video: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Shapes pulled by a smooth field of up to some pixels, the same in all frames or changing."""
    size, count = video.shape[-1], len(video) if rng.random() < 0.5 else 1
    field = rng.standard_normal((count, 2, 7, 7)).astype(np.float32) * (4 * strength * 2 / size)
    field = F.interpolate(torch.from_numpy(field), size=(size, size), mode="bicubic", align_corners=True)
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)], -1) + field.permute(0, 2, 3, 1)
    warped = F.grid_sample(
        torch.from_numpy(video), grid.expand(len(video), -1, -1, -1), padding_mode="border", align_corners=True
    )
    return warped.numpy()


def _noisy(video: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Noise in patches of 1, 2, 4 or 8 px: a decoder's mistakes are patches."""
    patch = 2 ** int(rng.integers(4))
    cells = video.shape[-1] // patch
    noise = rng.standard_normal((len(video), 3, cells, cells), np.float32).repeat(patch, 2).repeat(patch, 3)
    return np.clip(video + 0.2 * strength * noise, 0, 1)


def _ghost(video: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """A second, fainter copy beside the first."""
    beside = tuple(int(v) for v in rng.integers(-8, 9, 2))
    return video + 0.8 * strength * (np.roll(video, beside, (2, 3)) - video)


FAULTS: tuple[Callable[[np.ndarray, np.random.Generator, float], np.ndarray], ...] = (
    _blurred,
    _off_colour,
    _jittery,
    _faded,
    _warped,
    _ghost,
    _noisy,
)
