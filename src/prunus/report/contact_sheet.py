"""A contact sheet: one picture of what a video search tried, kept and pruned.

A row per chunk; in it the candidates as strips of frames with their scores below, best first: the chosen one in gold,
other survivors in green, pruned ones dimmed in grey, failed ones in red with the reason. Many candidates wrap within
their row; many chunks wrap into columns, so that a sheet stays a picture that fits a screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import SettingError
from prunus.report.media import PAPER, to_pixels, write_png
from prunus.roles import View
from prunus.tree import Node, Status, Tree

GOLD, GREEN, GREY, RED = (255, 200, 60), (70, 190, 110), (105, 105, 118), (215, 80, 75)
TEXT, FAINT = (235, 235, 240), (150, 150, 165)
MARGIN, GUTTER, LINE, FRAME = 20, 104, 17, 3
COLOURS = {"chosen": GOLD, "kept": GREEN, "pruned": GREY, "failed": RED}
MOST_FRAMES = 4  # a strip shows at most so many frames of a chunk, evenly spaced
TALLEST = 2100  # a taller sheet is wrapped into columns
NARROWEST = 200  # room for the words under a strip


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels: a cell is a strip with its words; ``across`` cells to a line."""

    strip: tuple[int, int]
    across: int
    words: int

    @property
    def cell(self) -> tuple[int, int]:
        width, height = self.strip
        return max(width + 2 * FRAME, NARROWEST) + 12, height + 2 * FRAME + 6 + self.words * LINE + 12


def contact_sheet(tree: Tree, path: str | Path) -> None:
    """Draw the tree's candidates to a PNG file. The tree needs its generator or rendered nodes."""
    write_png(path, draw(tree))


def draw(tree: Tree) -> Any:
    """The contact sheet as a pillow image."""
    from PIL import Image, ImageDraw

    chunks = _rows(tree)
    render_all(tree)
    layout = _layout(tree, chunks)
    heights = [math.ceil(len(row) / layout.across) * layout.cell[1] + 10 for row in chunks]
    columns = _columns(heights, layout.across)
    width = GUTTER + layout.across * layout.cell[0] + MARGIN
    top = MARGIN + 74
    starts = {k: sum(h for h, c in zip(heights[:k], columns[:k]) if c == columns[k]) for k in range(len(chunks))}
    tallest = max(starts[k] + heights[k] for k in starts)
    size = (MARGIN + (columns[-1] + 1) * width, top + tallest + MARGIN)
    image = Image.new("RGB", (max(size[0], 880), size[1]), PAPER)
    pen = ImageDraw.Draw(image)
    _header(pen, tree, chunks)
    frame = 0
    for k, row in enumerate(chunks):
        x, y = MARGIN + columns[k] * width, top + starts[k]
        pen.line((x, y - 7, x + width - MARGIN - 12, y - 7), (52, 52, 64))
        length = next((len(n.rendering) for n in row if n.rendering is not None), 0)
        whole = any(n.boundary for n in row)
        about = f"frames {frame} to {frame + length - 1}" if whole else f"estimate {row[0].piece}"
        pen.text((x, y + 2), f"chunk {row[0].depth}", TEXT, _font(16))
        pen.text((x, y + 24), about, FAINT, _font(12))
        kept = sum(kind_of(tree, n) in ("kept", "chosen") for n in row)
        pen.text((x, y + 41), f"{kept} of {len(row)} kept", FAINT, _font(12))
        frame += length if whole else 0
        for i, node in enumerate(row):
            line, place = divmod(i, layout.across)
            corner = (x + GUTTER + place * layout.cell[0], y + line * layout.cell[1])
            _cell(image, pen, tree, node, corner, layout)
    return image


def _rows(tree: Tree) -> list[list[Node]]:
    """The nodes by chunk, and in it by estimate, each row sorted: chosen, kept, pruned, failed; the best first."""
    rows: dict[tuple[int, int], list[Node]] = {}
    for node in tree.nodes[1:]:
        rows.setdefault((node.depth, node.piece), []).append(node)
    if not rows:
        raise SettingError("this tree has no candidates yet; there is nothing to draw")
    order = list(COLOURS)

    def key(node: Node) -> tuple:
        return (order.index(kind_of(tree, node)), -value_of(tree, node), node.path)

    return [sorted(rows[place], key=key) for place in sorted(rows)]


def kind_of(tree: Tree, node: Node) -> str:
    if tree.result is not None and node in tree.result.lineage:
        return "chosen"
    return {Status.PRUNED: "pruned", Status.FAILED: "failed"}.get(node.status, "kept")


def value_of(tree: Tree, node: Node) -> float:
    """What the strategy ranked by: its noted mixed value, or else the sum of the scores."""
    noted = tree.notes.get(node.id, {}).get("value")
    return noted if noted is not None else sum(s.value for s in node.scores.values())


def render_all(tree: Tree) -> None:
    """Make sure that all nodes that have a unit also have their frames; in one batch."""
    blank = [n for n in tree.nodes[1:] if n.rendering is None and n.unit is not None]
    if not blank:
        return
    if tree.generator is None:
        raise SettingError("this tree was loaded without its generator; use Tree.load(folder, generator)")
    for node, frames in zip(blank, tree.generator.render(blank, View(1)), strict=True):
        if node.rendering is None:
            node.rendering = frames


def _layout(tree: Tree, chunks: list[list[Node]]) -> _Layout:
    """Large strips for a few candidates and chunks, small ones for many."""
    shown = next((n.rendering for row in chunks for n in row if n.rendering is not None), np.zeros((1, 3, 64, 64)))
    most = max(map(len, chunks))
    large = most <= 4 and len(chunks) <= 10
    height, width = shown.shape[-2:]
    goal = 128 if large else 64
    times = max(1, goal // height) if height <= goal else goal / height
    frames = min(MOST_FRAMES, max(len(n.rendering) for row in chunks for n in row if n.rendering is not None))
    strip = (frames * round(width * times) + (frames - 1) * 2, round(height * times))
    words = 1 + max(len(_words(tree, n)) for row in chunks for n in row)
    return _Layout(strip, min(most, 4 if large else 8), words)


def _columns(heights: list[int], across: int) -> list[int]:
    """Which column each row stands in: as few columns as keep a sheet from growing tall, with equally many rows."""
    number = math.ceil(sum(heights) / (TALLEST if across <= 4 else 2 * TALLEST))
    rows = math.ceil(len(heights) / number)
    return [k // rows for k in range(len(heights))]


def _words(tree: Tree, node: Node) -> list[str]:
    """The lines of scores under a strip."""
    roles = tree.spec.get("strategy", {})
    titles = {roles.get("short"): "short", roles.get("long"): "long", roles.get("final"): "final"}
    if node.status is Status.FAILED and node.reason:
        return [node.reason]
    scores = [(titles.get(name, name) or name, s.value) for name, s in node.scores.items()]
    note = tree.notes.get(node.id, {})
    if "value" in note:
        scores.append(("mixed", note["value"]))
    return ["   ".join(f"{title} {value:.3f}" for title, value in scores[i : i + 2]) for i in range(0, len(scores), 2)]


def _cell(image: Any, pen: Any, tree: Tree, node: Node, corner: tuple[int, int], layout: _Layout) -> None:
    from PIL import Image

    kind = kind_of(tree, node)
    colour = COLOURS[kind]
    x, y = corner
    width, height = layout.strip
    pen.rectangle((x, y, x + width + 2 * FRAME - 1, y + height + 2 * FRAME - 1), outline=colour, width=FRAME)
    if node.rendering is not None:
        pixels = to_pixels(node.rendering)
        picked = pixels[np.unique(np.linspace(0, len(pixels) - 1, min(MOST_FRAMES, len(pixels))).round().astype(int))]
        one = ((width + 2) // min(MOST_FRAMES, len(picked)) - 2, height)
        for i, frame in enumerate(picked):
            grow = one[1] % frame.shape[0] == 0 and one[1] >= frame.shape[0]
            tile = Image.fromarray(frame).resize(one, Image.Resampling.NEAREST if grow else Image.Resampling.LANCZOS)
            if kind in ("pruned", "failed"):
                tile = Image.blend(tile, Image.new("RGB", one, PAPER), 0.5)
            image.paste(tile, (x + FRAME + i * (one[0] + 2), y + FRAME))
    below = y + height + 2 * FRAME + 4
    parent = f" from #{node.parent.id}" if node.parent is not None and node.parent.parent is not None else ""
    pen.text((x, below), f"#{node.id}{parent}", TEXT, _font(13))
    pen.text((x + max(width + 2 * FRAME, NARROWEST), below), kind, colour, _font(13), anchor="ra")
    room = layout.cell[0] - 12
    for i, line in enumerate(_words(tree, node), start=1):
        pen.text((x, below + i * LINE), _fitted(line, room, 13), FAINT if kind == "pruned" else TEXT, _font(13))


def _header(pen: Any, tree: Tree, chunks: list[list[Node]]) -> None:
    strategy = tree.spec.get("strategy", {})
    counts = [sum(kind_of(tree, n) == kind for row in chunks for n in row) for kind in COLOURS]
    pen.text((MARGIN, MARGIN), tree.prompt, TEXT, _font(20))
    total = tree.spent.total
    about = [strategy.get("name", ""), f"seed {tree.seed}", f"{sum(counts)} chunks grown", f"{total.nfe} forwards"]
    roles = [f"{role}: {strategy[role]}" for role in ("short", "long", "final") if strategy.get(role)]
    x = MARGIN
    for kind, count in zip(COLOURS, counts, strict=True):
        if count:
            pen.rectangle((x, MARGIN + 36, x + 12, MARGIN + 48), outline=COLOURS[kind], width=FRAME)
            words = f"{count} {kind}"
            pen.text((x + 18, MARGIN + 34), words, TEXT, _font(13))
            x += 18 + int(pen.textlength(words, _font(13))) + 18
    pen.text((x + 6, MARGIN + 34), "  ·  ".join(filter(None, about + roles)), FAINT, _font(13))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(text: str, width: int, size: int) -> str:
    """The text, cut to a width."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
