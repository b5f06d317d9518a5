"""What the sprites world can ask for: the prompt grammar, scenes that satisfy a prompt, and where each sprite is.

A prompt is ``a {colour} {shape} {motion}``, optionally followed by ``and`` and a second sprite of another colour.
A scene adds the start positions. Lengths are pixels, times are frames, positions are centres of bounding boxes.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from prunus.errors import PromptError

COLOURS = {
    "red": (0xE6, 0x33, 0x33),
    "green": (0x33, 0xCC, 0x4D),
    "blue": (0x33, 0x66, 0xFF),
    "yellow": (0xF2, 0xD9, 0x1A),
    "purple": (0xA6, 0x4D, 0xE6),
    "cyan": (0x1A, 0xCC, 0xCC),
}
SHAPES = ("circle", "square", "triangle", "cross")
MOTIONS = {
    "moving left": (-2, 0),
    "moving right": (2, 0),
    "moving up": (0, -2),
    "moving down": (0, 2),
    "standing still": (0, 0),
}
SIZE = 64
FPS = 8
NEAR, FAR = 8, 56  # centres stay in [NEAR, FAR]: a sprite bounces 8 px from a wall
FREE_STEPS = 10  # a mover has at least this many steps before its first bounce
APART = 20  # two sprites start at least this far apart
COVERED_FRAMES = 6  # how long a sprite may be more than half covered
SHORT, LONG = 21, 120  # frames of the two standard lengths

# Colour-shape pairs that no training data may contain: they test whether a model composes what it knows.
HELD_OUT_PAIRS = (("green", "triangle"), ("yellow", "circle"), ("purple", "square"), ("cyan", "cross"))

GRAMMAR = (
    "a {colour} {shape} {motion}, optionally 'and' a second one of another colour; "
    f"colours: {', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}; motions: {', '.join(MOTIONS)}"
)


@dataclass(frozen=True)
class Sprite:
    colour: str
    shape: str
    motion: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape} {self.motion}"


@dataclass(frozen=True)
class Curtain:
    """A bar over the whole height, drawn on top of everything from frame ``start`` on."""

    left: int
    start: int
    width: int = 24
    frames: int = 30
    colour: tuple[int, int, int] = (0x3C, 0x3C, 0x46)


@dataclass(frozen=True)
class Scene:
    """Sprites in the prompt's order (the first is drawn on top) with their start centres (x, y)."""

    sprites: tuple[Sprite, ...]
    starts: tuple[tuple[int, int], ...]
    curtain: Curtain | None = None

    @property
    def prompt(self) -> str:
        return " and ".join(map(str, self.sprites))

    def centres(self, frames: int) -> np.ndarray:
        """Centres (sprites, frames, 2) as x, y."""
        tracks = [path(start, s.motion, frames) for s, start in zip(self.sprites, self.starts, strict=True)]
        return np.asarray(tracks, int).reshape(-1, frames, 2)


_SPRITE = re.compile(rf"a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) ({'|'.join(MOTIONS)})")


def parse(prompt: str) -> tuple[Sprite, ...]:
    """The sprites that a prompt asks for; raises PromptError with the grammar if it asks for anything else."""
    matches = [_SPRITE.fullmatch(part) for part in prompt.strip().split(" and ")]
    found = [Sprite(*m.groups()) for m in matches if m]
    if len(found) != len(matches) or len(found) > 2:
        raise PromptError(f"prompt {prompt!r} is outside the sprites grammar; it understands: {GRAMMAR}")
    if len(found) == 2 and found[0].colour == found[1].colour:
        raise PromptError(f"prompt {prompt!r} names two {found[0].colour} sprites; give them different colours")
    return tuple(found)


def reflect(position: np.ndarray | int) -> np.ndarray:
    """Fold an unbounded coordinate into [NEAR, FAR] as bouncing does."""
    span = FAR - NEAR
    return FAR - np.abs(np.mod(np.asarray(position) - NEAR, 2 * span) - span)


def path(start: tuple[int, int], motion: str, frames: int) -> np.ndarray:
    """Centres (frames, 2) of one sprite, bounces included."""
    return reflect(np.asarray(start) + np.arange(frames)[:, None] * np.asarray(MOTIONS[motion]))


@cache
def stencil(shape: str) -> np.ndarray:
    """Coverage (16, 16) of a shape in its 16-px box, edges anti-aliased by 4x4 supersampling."""
    axis = (np.arange(64) + 0.5) / 4 - 8
    x, y = axis[None, :], axis[:, None]
    inside = {
        "circle": x**2 + y**2 <= 64,
        "square": np.maximum(np.abs(x), np.abs(y)) <= 7,
        # apex at y = -7, base of 16 at y = 7
        "triangle": (np.abs(y) <= 7) & (np.abs(x) <= 8 * (y + 7) / 14),
        "cross": (np.minimum(np.abs(x), np.abs(y)) <= 3) & (np.maximum(np.abs(x), np.abs(y)) <= 8),
    }[shape]
    return inside.reshape(16, 4, 16, 4).mean(axis=(1, 3))


@cache
def _covered(upper: str, lower: str) -> np.ndarray:
    """Share of ``lower`` hidden by ``upper`` for each offset (dy, dx) of upper minus lower in -16..16."""
    below, above = stencil(lower), np.zeros((48, 48))
    above[16:32, 16:32] = stencil(upper)
    out = np.zeros((33, 33))
    for dy, dx in itertools.product(range(33), range(33)):
        out[dy, dx] = (below * above[32 - dy : 48 - dy, 32 - dx : 48 - dx]).sum() / below.sum()
    return out


def covered(scene: Scene, frames: int) -> np.ndarray:
    """Share (frames,) of the second sprite that the first hides; zeros for one sprite."""
    if len(scene.sprites) < 2:
        return np.zeros(frames)
    upper, lower = scene.centres(frames)
    delta = np.clip(upper - lower, -16, 16) + 16
    return _covered(scene.sprites[0].shape, scene.sprites[1].shape)[delta[:, 1], delta[:, 0]]


def _start(motion: str, rng: np.random.Generator) -> tuple[int, int]:
    low, high = np.array([NEAR, NEAR]), np.array([FAR, FAR])
    ahead = np.asarray(MOTIONS[motion]) * FREE_STEPS
    low, high = np.maximum(low, low - ahead), np.minimum(high, high - ahead)
    x, y = rng.integers(low // 2, high // 2 + 1) * 2
    return int(x), int(y)


def stage(prompt: str, rng: np.random.Generator, frames: int = SHORT, curtain: bool = False) -> Scene:
    """A random scene that satisfies a prompt; ``curtain`` hides the first sprite's place for 30 frames (long clips)."""
    sprites = parse(prompt)
    while True:
        scene = Scene(sprites, tuple(_start(s.motion, rng) for s in sprites))
        apart = len(sprites) < 2 or math.dist(*scene.starts) >= APART
        if apart and (covered(scene, frames) > 0.5).sum() <= COVERED_FRAMES:
            break
    if not curtain:
        return scene
    # The bar hangs where the first sprite is in the middle of the hidden stretch.
    begin = int(rng.integers(frames // 4, frames // 2 + 1))
    x = int(scene.centres(frames)[0, min(begin + 15, frames - 1), 0])
    return Scene(scene.sprites, scene.starts, Curtain(left=int(np.clip(x - 12, 0, SIZE - 24)), start=begin))


def all_prompts() -> list[str]:
    """The 120 one-sprite and 12 000 two-sprite prompts."""
    single = [Sprite(*parts) for parts in itertools.product(COLOURS, SHAPES, MOTIONS)]
    double = [f"{a} and {b}" for a, b in itertools.product(single, single) if a.colour != b.colour]
    return [str(s) for s in single] + double


@cache
def split(name: str, sprites: int | None = None) -> tuple[str, ...]:
    """Prompts of the ``train``, ``dev`` or ``report`` split; ``sprites`` keeps those that name one or two."""
    if name not in ("train", "dev", "report"):
        raise PromptError(f"split {name!r} is unknown; take train, dev or report")
    lines = (files(__package__) / "splits" / f"{name}.txt").read_text().splitlines()
    return tuple(p for p in lines if sprites is None or p.count(" and ") + 1 == sprites)


def sample(rng: np.random.Generator, frames: int = SHORT, split_name: str = "train") -> Scene:
    """A random scene: one or two sprites with equal chance."""
    prompts = split(split_name, sprites=int(rng.integers(1, 3)))
    return stage(prompts[rng.integers(len(prompts))], rng, frames)
