"""A dozen ways to get a sprites video wrong, of fixed strength: they test the judge and train reward models.

Each corruption redraws a scene with one thing wrong, names the part of the judge's score that must fall, and tells
whether it changes what the prompt asks for: a standing sprite that freezes is still right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from prunus.worlds.sprites.render import BACKGROUND, render
from prunus.worlds.sprites.scene import (
    APART,
    COLOURS,
    FAR,
    MOTIONS,
    NEAR,
    SHAPES,
    SHORT,
    SIZE,
    Scene,
    Sprite,
    covered,
    stage,
)

JUMP = 16  # px, across the direction of motion, from a random frame on
GONE = 5  # frames without the sprite
BLUR = 2.0  # px, standard deviation of the Gaussian
NOISE = 0.15  # standard deviation, in [0, 1] units
FLICKER = 0.7  # contrast to the background of every second frame
DRIFT = 0.5  # share of the way to another palette colour that the last frame has gone

Draw = Callable[[Scene, np.random.Generator, int], np.ndarray]
Applies = Callable[[Scene, int], bool]


@dataclass(frozen=True)
class Corruption:
    """``corruption(scene, rng, frames)`` is the corrupted video, float32 (frames, 3, 64, 64) in [0, 1]."""

    part: str
    """The part of the judge's score that falls."""
    draw: Draw
    changes: Applies
    """``changes(scene, frames)``: is the result wrong for the scene's prompt? Only then may it be drawn."""

    def __call__(self, scene: Scene, rng: np.random.Generator, frames: int = SHORT) -> np.ndarray:
        return self.draw(scene, rng, frames)


def _pick(scene: Scene, rng: np.random.Generator, eligible: Callable[[Sprite], bool] = lambda s: True) -> int:
    return int(rng.choice([i for i, s in enumerate(scene.sprites) if eligible(s)]))


def _moves(sprite: Sprite) -> bool:
    return sprite.motion != "standing still"


def _with(scene: Scene, i: int, sprite: Sprite, start: tuple[int, int] | None = None) -> Scene:
    starts = scene.starts if start is None else (*scene.starts[:i], start, *scene.starts[i + 1 :])
    return replace(scene, sprites=(*scene.sprites[:i], sprite, *scene.sprites[i + 1 :]), starts=starts)


def _recoloured(scene: Scene, rng: np.random.Generator) -> Scene:
    i = _pick(scene, rng)
    taken = {s.colour for s in scene.sprites}
    return _with(scene, i, replace(scene.sprites[i], colour=str(rng.choice([c for c in COLOURS if c not in taken]))))


def wrong_colour(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """One sprite has a colour that the prompt does not name."""
    return render(_recoloured(scene, rng), frames)


def wrong_shape(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """One sprite has another shape."""
    i = _pick(scene, rng)
    shape = str(rng.choice([s for s in SHAPES if s != scene.sprites[i].shape]))
    return render(_with(scene, i, replace(scene.sprites[i], shape=shape)), frames)


def wrong_way(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """One sprite moves the opposite way, from the mirrored start, so that it has as many free steps ahead."""
    i = _pick(scene, rng, _moves)
    sprite, (x, y) = scene.sprites[i], scene.starts[i]
    dx, dy = MOTIONS[sprite.motion]
    opposite = next(motion for motion, step in MOTIONS.items() if step == (-dx, -dy))
    start = (NEAR + FAR - x, y) if dx else (x, NEAR + FAR - y)
    return render(_with(scene, i, replace(sprite, motion=opposite), start), frames)


def frozen(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """The first frame, for ever."""
    return np.repeat(render(replace(scene, curtain=None), 1), frames, axis=0)


def teleport(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """From a random frame on one sprite is JUMP px beside its path."""
    i, cut = _pick(scene, rng), int(rng.integers(1, frames))
    across = 1 if MOTIONS[scene.sprites[i].motion][0] else 0
    start = list(scene.starts[i])
    start[across] += int(rng.choice([j for j in (-JUMP, JUMP) if NEAR <= start[across] + j <= FAR]))
    jumped = _with(scene, i, scene.sprites[i], (start[0], start[1]))
    return np.concatenate([render(scene, frames)[:cut], render(jumped, frames)[cut:]])


def vanished(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """One sprite is missing for GONE frames in which the other would not have covered it."""
    i = _pick(scene, rng)
    hidden = (covered(scene, frames) if i == 1 else np.zeros(frames)) > 0.1
    clear = [t for t in range(frames - GONE + 1) if not hidden[t : t + GONE].any()]
    begin = int(rng.choice(clear)) if clear else 0
    keep = [j for j in range(len(scene.sprites)) if j != i]
    rest = replace(scene, sprites=tuple(scene.sprites[j] for j in keep), starts=tuple(scene.starts[j] for j in keep))
    video = render(scene, frames)
    video[begin : begin + GONE] = render(rest, frames)[begin : begin + GONE]
    return video


def blurred(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Gaussian blur of BLUR px."""
    place = np.arange(SIZE)
    kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * BLUR**2))
    kernel = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
    return kernel @ render(scene, frames) @ kernel.T


def noisy(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Gaussian noise of standard deviation NOISE on every value, clipped to [0, 1]."""
    video = render(scene, frames)
    return np.clip(video + NOISE * rng.standard_normal(video.shape, np.float32), 0, 1)


def extra_sprite(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """One more sprite, of a colour that the prompt does not name, away from the others' starts, drawn beneath them."""
    colour = rng.choice([c for c in COLOURS if c not in {s.colour for s in scene.sprites}])
    extra = Sprite(str(colour), str(rng.choice(SHAPES)), str(rng.choice(list(MOTIONS))))
    while True:
        start = stage(str(extra), rng, frames).starts[0]
        if all(np.hypot(*np.subtract(start, other)) >= APART for other in scene.starts):
            return render(replace(scene, sprites=(*scene.sprites, extra), starts=(*scene.starts, start)), frames)


def swapped_shapes(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """The two sprites have each other's shape."""
    first, second = scene.sprites
    swapped = (replace(first, shape=second.shape), replace(second, shape=first.shape))
    return render(replace(scene, sprites=swapped), frames)


def flicker(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Every second frame has FLICKER times the contrast to the background."""
    video = render(scene, frames)
    base = np.asarray(BACKGROUND, np.float32)[:, None, None] / 255
    video[1::2] = base + FLICKER * (video[1::2] - base)
    return video


def colour_drift(scene: Scene, rng: np.random.Generator, frames: int) -> np.ndarray:
    """One sprite's colour goes evenly towards another one, DRIFT of the way by the last frame."""
    share = np.linspace(0, DRIFT, frames, dtype=np.float32)[:, None, None, None]
    return (1 - share) * render(scene, frames) + share * render(_recoloured(scene, rng), frames)


def _always(scene: Scene, frames: int) -> bool:
    return True


def _clip(scene: Scene, frames: int) -> bool:
    return frames > 1


def _moving(scene: Scene, frames: int) -> bool:
    return frames > 1 and any(map(_moves, scene.sprites))


def _two_shapes(scene: Scene, frames: int) -> bool:
    return len({s.shape for s in scene.sprites}) == 2


CORRUPTIONS = {
    "wrong colour": Corruption("colour", wrong_colour, _always),
    "wrong shape": Corruption("shape", wrong_shape, _always),
    "wrong way": Corruption("motion", wrong_way, _moving),
    "frozen": Corruption("motion", frozen, _moving),
    "teleport": Corruption("smoothness", teleport, _clip),
    "vanished": Corruption("persistence", vanished, lambda scene, frames: frames > GONE),
    "blurred": Corruption("cleanliness", blurred, _always),
    "noisy": Corruption("cleanliness", noisy, _always),
    "extra sprite": Corruption("cleanliness", extra_sprite, _always),
    "swapped shapes": Corruption("shape", swapped_shapes, _two_shapes),
    "flicker": Corruption("smoothness", flicker, _clip),
    "colour drift": Corruption("colour", colour_drift, _clip),
}
