"""One picture with the small frames of all candidates, each different frame once: a page shows parts of it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prunus.report.media import to_pixels
from prunus.tree import Node

MOST_FRAMES = 4  # of a unit, evenly spaced
LARGEST = 96  # pixels of a thumbnail's longer side; smaller frames stay as they are
MOST_PIXELS = 3_000_000  # of the whole picture: some 3 MB for noisy frames


@dataclass(frozen=True)
class Thumbnails:
    """``url`` is a PNG of ``columns`` by ``rows`` cells; ``cells`` gives the cells of each node's frames, in order."""

    url: str
    columns: int
    rows: int
    size: tuple[int, int]  # height and width of a cell
    cells: Mapping[int, tuple[int, ...]]


def thumbnails(nodes: list[Node]) -> Thumbnails | None:
    """The frames of rendered nodes; None if no node is rendered. Many nodes get fewer and smaller frames each."""
    shown = [n for n in nodes if n.rendering is not None]
    if not shown:
        return None
    height, width = shown[0].rendering.shape[-2:]
    scale = min(1.0, LARGEST / max(height, width), math.sqrt(MOST_PIXELS / (len(shown) * height * width)))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    most = max(1, min(MOST_FRAMES, MOST_PIXELS // (len(shown) * size[0] * size[1])))
    different: dict[bytes, int] = {}
    tiles: list[np.ndarray] = []
    cells: dict[int, tuple[int, ...]] = {}
    for node in shown:
        places = []
        for tile in _smaller(_spaced(to_pixels(node.rendering), most), size):
            place = different.setdefault(tile.tobytes(), len(tiles))
            if place == len(tiles):
                tiles.append(tile)
            places.append(place)
        cells[node.id] = tuple(places)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    sheet = np.zeros((rows * size[0], columns * size[1], 3), np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * size[0], i % columns * size[1]
        sheet[y : y + size[0], x : x + size[1]] = tile
    return Thumbnails(_png(sheet), columns, rows, size, cells)


def _spaced(pixels: np.ndarray, most: int) -> np.ndarray:
    """At most so many frames; a single one is the last."""
    if most == 1:
        return pixels[-1:]
    return pixels[np.unique(np.linspace(0, len(pixels) - 1, min(most, len(pixels))).round().astype(int))]


def _smaller(pixels: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    from PIL import Image

    if pixels.shape[1:3] == size:
        return list(pixels)
    return [np.asarray(Image.fromarray(p).resize(size[::-1], Image.Resampling.LANCZOS)) for p in pixels]


def _png(pixels: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
