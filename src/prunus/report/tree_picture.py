"""Where each candidate stands on a page: a column per unit, children beside their parents, no lines that cross."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunus.report.contact_sheet import COLOURS, kind_of, value_of
from prunus.tree import Node, Tree

WIDTH, GAP, LABELS, HEAD, ROOT = 92, 58, 54, 46, 36  # pixels: a card, between columns, words, headings, the root's dot


@dataclass(frozen=True)
class Place:
    """A card's corner in pixels."""

    node: int
    kind: str
    title: str
    x: int
    y: int


@dataclass(frozen=True)
class Picture:
    """``lines`` are (kind of the child, SVG path data), the chosen path's last, so that it lies on top."""

    width: int
    height: int
    thumb: int
    places: tuple[Place, ...]
    lines: tuple[tuple[str, str], ...]
    columns: tuple[tuple[int, int, str], ...]  # x, chunk, its remark
    card: int = WIDTH
    head: int = HEAD


def picture(tree: Tree, size: tuple[int, int] | None) -> Picture:
    """Lay out all nodes but the root; ``size`` is a thumbnail's height and width (None: no thumbnails)."""
    thumb = min(2 * WIDTH, max(24, round((WIDTH - 8) * size[0] / size[1]))) if size else 0
    row_height = thumb + LABELS + 16
    rank: dict[int, int] = {tree.root.id: 0}
    places, columns = [], []
    depth = max(n.depth for n in tree.nodes)
    rows: list[list[Node]] = []
    for d in range(1, depth + 1):
        # Children of one parent stand together, in their parents' order, so that no two lines cross; chosen on top.
        row = sorted((n for n in tree.nodes if n.depth == d), key=lambda n: (rank[_parent(n)], *_order(tree, n)))
        rank |= {n.id: i for i, n in enumerate(row)}
        rows.append(row)
    for d, row in enumerate(rows):
        x = ROOT + d * (WIDTH + GAP)
        kept = sum(kind_of(tree, n) in ("kept", "chosen") for n in row)
        columns.append((x, d + 1, f"{kept} of {len(row)} kept"))
        for i, node in enumerate(row):
            kind = kind_of(tree, node)
            title = f"Chunk {node.depth}, candidate {node.id}, {kind}"
            places.append(Place(node.id, kind, title, x, HEAD + i * row_height))
    corner = {p.node: (p.x, p.y) for p in places}
    middle = (thumb or 24) / 2
    lines = []
    for node in (n for row in rows for n in row):
        x, y = corner[node.id][0], corner[node.id][1] + middle
        parent = corner.get(_parent(node))
        px, py = (parent[0] + WIDTH, parent[1] + middle) if parent else (10, HEAD + middle)
        bend = (px + x) / 2
        lines.append((kind_of(tree, node), f"M{px} {py:g} C{bend:g} {py:g} {bend:g} {y:g} {x} {y:g}"))
    lines.sort(key=lambda line: -list(COLOURS).index(line[0]))
    width = ROOT + depth * (WIDTH + GAP) - GAP + 8
    height = HEAD + max(map(len, rows)) * row_height
    return Picture(width, height, thumb, tuple(places), tuple(lines), tuple(columns))


def _parent(node: Node) -> int:
    return node.parent.id if node.parent is not None else 0


def _order(tree: Tree, node: Node) -> tuple:
    value = value_of(tree, node)
    return (list(COLOURS).index(kind_of(tree, node)), math.inf if math.isnan(value) else -value, node.path)
