"""The sprites world: text-to-video of one or two moving coloured shapes, judged from pixels alone."""

from prunus.worlds.sprites.corruptions import CORRUPTIONS
from prunus.worlds.sprites.judge import judge
from prunus.worlds.sprites.render import render
from prunus.worlds.sprites.scene import (
    COLOURS,
    FPS,
    LONG,
    MOTIONS,
    SHAPES,
    SHORT,
    SIZE,
    Scene,
    Sprite,
    parse,
    sample,
    split,
    stage,
)

__all__ = [
    "COLOURS",
    "CORRUPTIONS",
    "FPS",
    "LONG",
    "MOTIONS",
    "SHAPES",
    "SHORT",
    "SIZE",
    "Scene",
    "Sprite",
    "judge",
    "parse",
    "render",
    "sample",
    "split",
    "stage",
]
