"""Find the named sprites in a video: where each one is, what colour and shape it has, how much of it can be seen.

Everything is per frame and knows nothing of motion. Videos are handled as differences from the background,
float32 (frames, 3, 64, 64); positions are centres (x, y) in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from prunus.worlds.sprites.render import BACKGROUND
from prunus.worlds.sprites.scene import COLOURS, FAR, NEAR, SHAPES, SIZE, Curtain, Sprite, stencil

BASE = np.asarray(BACKGROUND, np.float32) / 255
CLOTH = np.asarray(Curtain.colour, np.float32) / 255 - BASE
HUE = 0.15  # a pixel this far from a colour's ray belongs to it with weight exp(-1/2)
PATCH, MARGIN = 24, 4  # a sprite is looked at in its 16-px box and MARGIN px around
FAINT, CLEAR = 0.15, 0.4  # below FAINT from the background nothing is there, above CLEAR something is
LOST = 0.1  # a sprite whose frames weigh less than this on average was not found by its colour
FOREIGN = 0.25  # weight of pixels of no named colour when a sprite is looked for: a last resort


@dataclass(frozen=True)
class Track:
    """One named sprite, frame by frame. ``found``, ``visible`` and ``area`` are shares in [0, 1].

    found: is there an object at all; visible: share of its place that nothing known hides; area: share of the
    visible part that is painted; agreement: soft IoU with each of SHAPES at its best offset; surround: share of the
    patch that nothing hides, without which shapes cannot be told apart.
    """

    anchor: np.ndarray  # (frames, 2) int, where the patch is
    position: np.ndarray  # (frames, 2) to half a pixel
    colour: np.ndarray  # (frames, 3), difference from the background
    patch: np.ndarray  # (frames, 24, 24) coverage of the best-matching stencil
    agreement: np.ndarray  # (frames, 4)
    found: np.ndarray  # (frames,)
    visible: np.ndarray  # (frames,)
    area: np.ndarray  # (frames,)
    surround: np.ndarray  # (frames,)

    @property
    def weight(self) -> np.ndarray:
        """How much each frame tells about the sprite (frames,): a sliver tells little."""
        return self.found * self.visible**2


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, linear between."""
    return np.clip((x - low) / (high - low), 0, 1)


def squared(difference: np.ndarray) -> np.ndarray:
    """Squared length of colour vectors: (frames, 3, ...) to (frames, ...)."""
    return np.einsum("fc...,fc...->f...", difference, difference)


def rgb(colour: str) -> np.ndarray:
    """A named colour as difference from the background (3,)."""
    return np.asarray(COLOURS[colour], np.float32) / 255 - BASE


def curtain_columns(video: np.ndarray) -> np.ndarray:
    """Which columns are curtain (frames, 64), as 0 or 1: curtain-coloured from top to bottom, a bar at most."""
    error = squared(video - CLOTH[:, None, None])
    columns = (error < 0.1**2).mean(1) > 0.9
    return (columns & (columns.sum(1, keepdims=True) <= Curtain.width + 4)).astype(np.float32)


def unmix(video: np.ndarray, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each pixel lies along the ray from the background to ``colour`` (3,) or (frames, 3), and whether on it.

    Both in [0, 1]; their product is the pixel's coverage by that colour. The background is on every ray.
    """
    ray = np.broadcast_to(colour, (len(video), 3))
    length = np.maximum(squared(ray), FAINT**2)[:, None, None]
    along = np.clip(np.einsum("fc,fc...->f...", ray, video) / length, 0, 1)
    off = squared(video - along[:, None] * ray[:, :, None, None])
    return along, np.exp(off / (-2 * HUE**2))


def crop(maps: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Patches (frames, ..., 24, 24) of maps (frames, ..., 64, 64) around integer centres (frames, 2), 0 outside."""
    patches = np.zeros((*maps.shape[:-2], PATCH, PATCH), np.float32)
    # Slices, because padding and gathering whole videos costs more than everything else that is done with them.
    for image, patch, (x, y) in zip(maps, patches, centre.tolist(), strict=True):
        left, top = x - PATCH // 2, y - PATCH // 2
        part = image[..., max(top, 0) : top + PATCH, max(left, 0) : left + PATCH]
        inner = patch[..., max(-top, 0) :, max(-left, 0) :]
        inner[..., : part.shape[-2], : part.shape[-1]] = part
    return patches


@cache
def _spectra(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Conjugate spectra of what paint and open pixels count for around a sprite at the origin."""
    image = np.zeros((2, SIZE, SIZE), np.float32)
    image[:, :16, :16] = 4 * stencil(shape) - 2, 0.4 * stencil(shape) ** 2
    for_paint, against_open = np.fft.rfft2(np.roll(image, (-8, -8), (1, 2))).conj()
    return for_paint, against_open


@cache
def bank_of_stencils() -> tuple[np.ndarray, np.ndarray]:
    """All stencils at offsets of -2..2 px in half pixels: coverage (4 * 81, 24 * 24), and the offsets (81, 2)."""

    def shift(image: np.ndarray, offset: float, axis: int) -> np.ndarray:
        whole = int(np.floor(offset))
        here = np.roll(image, whole, axis)
        return here if whole == offset else (here + np.roll(here, 1, axis)) / 2

    steps = np.arange(-4, 5) / 2
    padded = [np.pad(stencil(shape), MARGIN) for shape in SHAPES]
    images = [shift(shift(image, dy, 0), dx, 1) for image in padded for dy in steps for dx in steps]
    offsets = np.array([(dx, dy) for dy in steps for dx in steps])
    return np.stack(images).reshape(len(images), -1).astype(np.float32), offsets


def locate(mass: np.ndarray, open_: np.ndarray, shape: str) -> np.ndarray:
    """Integer centres (frames, 2) where ``mass`` fits the stencil best, counting only where ``open_`` is not 0.

    The gain of a place is sum(mass * (4 stencil - 2)) - 0.4 sum(stencil^2) over the open pixels of its box: paint in
    the stencil counts for it, paint beside it and visible emptiness in it against it, hidden pixels not at all.
    """
    for_paint, against_open = _spectra(shape)
    spectrum = np.fft.rfft2(mass * open_) * for_paint - np.fft.rfft2(open_) * against_open
    inside = np.fft.irfft2(spectrum, (SIZE, SIZE))[:, NEAR : FAR + 1, NEAR : FAR + 1].reshape(len(mass), -1)
    y, x = np.divmod(inside.argmax(1), FAR + 1 - NEAR)
    return np.stack([x, y], 1) + NEAR


def measure(video: np.ndarray, mass: np.ndarray, open_: np.ndarray, shape: str) -> Track:
    """Locate one sprite and look closely: its own colour first, then coverage by that colour against all stencils."""
    frames = len(video)
    anchor = locate(mass, open_, shape)
    near, seen = crop(video, anchor), crop(open_, anchor)
    axis = np.arange(PATCH) - (PATCH - 1) / 2
    core = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 2.5**2)).astype(np.float32)
    weight = (seen * core * (crop(mass, anchor) + 1e-3)).reshape(frames, -1, 1)
    colour = np.matmul(near.reshape(frames, 3, -1), weight)[..., 0] / (weight.sum(1) + 1e-6)

    along, member = unmix(near, colour)
    paint, seen = (along * member).reshape(frames, -1), seen.reshape(frames, -1)
    bank, offsets = bank_of_stencils()
    both, ideal = (paint * seen) @ bank.T, seen @ np.square(bank).T
    iou = (both / ((paint**2 * seen).sum(1, keepdims=True) + ideal - both + 1e-6)).reshape(frames, len(SHAPES), -1)
    best = iou.reshape(frames, -1).argmax(1)
    rows = np.arange(frames)
    # Now that the edges are known, the colour is the one that explains the open pixels around the centre best.
    cover = bank[best]
    weight = (seen * cover * core.ravel())[..., None]
    colour = np.matmul(near.reshape(frames, 3, -1), weight)[..., 0] / (np.matmul(cover[:, None], weight)[..., 0] + 1e-6)
    return Track(
        anchor=anchor,
        position=anchor + offsets[best % len(offsets)],
        colour=colour,
        patch=cover.reshape(frames, PATCH, PATCH),
        agreement=iou.max(2),
        found=ramp(np.sqrt(squared(colour)), FAINT, CLEAR) * ramp(iou.max((1, 2)), 0.3, 0.6),
        visible=ideal[rows, best] / np.square(cover).sum(1),
        area=both[rows, best] / (ideal[rows, best] + 1e-6),
        surround=seen.mean(1),
    )


def _widened(paint: np.ndarray) -> np.ndarray:
    """Paint grown by a pixel: where two sprites meet, edge pixels mix their colours and belong to neither."""
    for axis in (1, 2):
        inner = paint.swapaxes(axis, 2)
        grown = inner.copy()
        np.maximum(grown[..., 1:], inner[..., :-1], out=grown[..., 1:])
        np.maximum(grown[..., :-1], inner[..., 1:], out=grown[..., :-1])
        paint = grown.swapaxes(axis, 2)
    return paint


def find(video: np.ndarray, sprites: tuple[Sprite, ...], bar: np.ndarray) -> tuple[list[Track], list[np.ndarray]]:
    """A track for each named sprite, and what may hide it: 1 where open, 0 behind the other or the curtain.

    video: difference from the background (frames, 3, 64, 64); bar: ``curtain_columns(video)``.
    """
    clear = np.broadcast_to(1 - bar[:, None], (len(video), SIZE, SIZE))
    rays = [unmix(video, rgb(s.colour)) for s in sprites]
    paint = [along * member for along, member in rays]
    something = np.minimum(np.sqrt(squared(video)) / 0.8, 1)
    foreign = something * (1 - np.max([member for _, member in rays], axis=0))
    opens = [clear * (1 - _widened(paint[1 - i])) if len(sprites) == 2 else clear for i in range(len(sprites))]
    tracks = [
        measure(video, own + FOREIGN * foreign, open_, s.shape)
        for own, open_, s in zip(paint, opens, sprites, strict=True)
    ]
    for i, s in enumerate(sprites if len(sprites) == 2 else ()):
        if tracks[i].weight.mean() < LOST:  # maybe it has the other's colour: look at everything that is not the other
            centre = tracks[1 - i].position[:, :, None, None]
            y, x = np.mgrid[:SIZE, :SIZE] + 0.5
            opens[i] = clear * ((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2 > 10**2)
            tracks[i] = measure(video, something, opens[i], s.shape)
            break
    return tracks, opens
