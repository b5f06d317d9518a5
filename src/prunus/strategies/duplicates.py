"""Siblings whose text is the same: a step that was sampled twice is scored, kept and grown from once."""

from __future__ import annotations

from collections.abc import Iterable

from prunus.tree import Node


def duplicates(nodes: Iterable[Node]) -> list[Node]:
    """Those of ``nodes`` with the text of a sibling whose path is earlier. Units without a text have none."""
    return [node for node in nodes if any(_same(node, other) for other in _earlier(node))]


def _earlier(node: Node) -> list[Node]:
    """Its siblings that were begun before it; a unit that is gone on with is compared when it is whole."""
    if node.parent is None or not node.parent.boundary:
        return []
    return [n for n in node.parent.children if n.path < node.path]


def _same(node: Node, other: Node) -> bool:
    text = node.unit.get("text") if isinstance(node.unit, dict) else None
    mate = other.unit.get("text") if isinstance(other.unit, dict) else None
    return text is not None and text == mate and node.boundary == other.boundary
