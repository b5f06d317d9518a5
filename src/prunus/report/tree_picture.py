"""Where each candidate stands on a page: a column per step, children beside their parents, no lines that cross.

A candidate from which nothing grew, because it was pruned or failed, stands small, two to a row: of many candidates the
few that live are what is read first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunus.report.contact_sheet import COLOURS, kind_of, value_of
from prunus.tree import Node, Tree

WIDTH, GAP, LABELS, HEAD, ROOT = 92, 58, 54, 46, 36  # pixels: a card, between columns, words, headings, the root's dot
SMALL, LABEL = 44, 18  # a small card, of which two are as wide as one, and its single line of words
BETWEEN, EDGE = 16, 2  # below a card, around its picture


@dataclass(frozen=True)
class Place:
    """A card's corner in pixels."""

    node: int
    kind: str
    title: str
    x: int
    y: int
    small: bool = False


@dataclass(frozen=True)
class Picture:
    """``lines`` are (kind of the child, SVG path data), the chosen path's last, so that it lies on top.

    ``thumb`` and ``small_thumb`` are the heights of the two kinds of cards' pictures.
    """

    width: int
    height: int
    thumb: int
    small_thumb: int
    places: tuple[Place, ...]
    lines: tuple[tuple[str, str], ...]
    columns: tuple[tuple[int, int, str], ...]  # x, chunk, its remark
    card: int = WIDTH
    small: int = SMALL
    head: int = HEAD


def picture(tree: Tree, size: tuple[int, int] | None) -> Picture:
    """Lay out all nodes but the root; ``size`` is a thumbnail's height and width (None: no thumbnails)."""
    thumb, small_thumb = (_thumb(width, size) for width in (WIDTH, SMALL))
    places: list[Place] = []
    columns = []
    bottom = HEAD
    for step, row in enumerate(_rows(tree)):
        x, y = ROOT + step * (WIDTH + GAP), HEAD
        pair: Node | None = None  # stands small, with room beside it
        for node in row:
            small = _small(tree, node)
            if small and pair is not None and pair.parent is node.parent:
                left, pair = x + WIDTH - SMALL, None
                top = places[-1].y
            else:
                left, top, pair = x, y, node if small else None
                y += small_thumb + LABEL if small else thumb + LABELS
                y += BETWEEN // 2 if small else BETWEEN
            kind = kind_of(tree, node)
            places.append(Place(node.id, kind, f"Chunk {node.depth}, candidate {node.id}, {kind}", left, top, small))
        kept = sum(kind_of(tree, n) in ("kept", "chosen") for n in row)
        columns.append((x, row[0].depth, f"{kept} of {len(row)} kept"))
        bottom = max(bottom, y)
    width = ROOT + len(columns) * (WIDTH + GAP) - GAP + 8
    lines = _lines(tree, places, thumb, small_thumb)
    return Picture(width, bottom, thumb, small_thumb, tuple(places), lines, tuple(columns))


def _rows(tree: Tree) -> list[list[Node]]:
    """The nodes by step. Children of one parent stand together, in their parents' order; the chosen one on top."""
    row, rows = [tree.root], []
    while row := [child for parent in row for child in sorted(parent.children, key=lambda n: _order(tree, n))]:
        rows.append(row)
    return rows


def _lines(tree: Tree, places: list[Place], thumb: int, small_thumb: int) -> tuple[tuple[str, str], ...]:
    """From each parent to each child; the lines to a pair end at its first."""
    ends = {p.node: (p.x, p.y + (small_thumb if p.small else thumb) / 2) for p in places}
    lines = []
    for node in (n for n in tree.nodes if n.id in ends):
        x, y = ends[node.id]
        x -= (x - ROOT) % (WIDTH + GAP)
        parent = ends.get(node.parent.id) if node.parent is not None else None
        px, py = (parent[0] + WIDTH, parent[1]) if parent else (10, HEAD + thumb / 2)
        bend = (px + x) / 2
        lines.append((kind_of(tree, node), f"M{px:g} {py:g} C{bend:g} {py:g} {bend:g} {y:g} {x:g} {y:g}"))
    return tuple(sorted(lines, key=lambda line: -list(COLOURS).index(line[0])))


def _thumb(width: int, size: tuple[int, int] | None) -> int:
    """A picture's height in a card, its edge included."""
    return min(2 * width, max(12, round((width - 2 * EDGE) * size[0] / size[1]) + 2 * EDGE)) if size else 24


def _small(tree: Tree, node: Node) -> bool:
    return kind_of(tree, node) in ("pruned", "failed") and not node.children


def _order(tree: Tree, node: Node) -> tuple:
    value = value_of(tree, node)
    small = _small(tree, node)
    return (small, list(COLOURS).index(kind_of(tree, node)), math.inf if math.isnan(value) else -value, node.path)
