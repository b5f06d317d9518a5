"""Whether two trees, or two nested values of arrays and numbers, are equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from prunus.budget import Spent
from prunus.tree import Tree


def same(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Whether two nested values agree: floats, alone and in arrays, within ``tolerance``, all else exactly.

    Types must agree too, but lists and tuples are alike, and NaN is itself.
    """
    if hasattr(a, "shape") and hasattr(b, "shape"):
        if tuple(a.shape) != tuple(b.shape) or a.dtype != b.dtype:
            return False
        if a is b or 0 in a.shape:
            return True
        return bool((a == b).all()) if tolerance == 0 or "float" not in str(a.dtype) else _close(a, b, tolerance)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k], tolerance) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if type(a) is not type(b):
        return False
    return bool(a == b or (a != a and b != b) or (isinstance(a, float) and abs(a - b) <= tolerance))


def _close(a: Any, b: Any, tolerance: float) -> bool:
    difference = a - b
    return bool((abs(difference) <= tolerance).all())


def differences(a: Tree, b: Tree, tolerance: float = 0.0) -> Iterator[str]:
    """What differs between two trees apart from seconds, bytes, rebuilding and states; nothing if they are equal."""
    for name in ("prompt", "seed", "round", "settled", "notes"):
        if not same(getattr(a, name), getattr(b, name), tolerance):
            yield f"{name}: {getattr(a, name)} and {getattr(b, name)}"
    if (a.result and a.result.id) != (b.result and b.result.id):
        yield f"result: node {a.result and a.result.id} and node {b.result and b.result.id}"
    if _counted(a.spent) != _counted(b.spent):
        yield f"spent: {_counted(a.spent)} and {_counted(b.spent)}"
    if a.whole().random != b.whole().random:
        yield "the state of a random stream"
    if len(a.nodes) != len(b.nodes):
        yield f"number of nodes: {len(a.nodes)} and {len(b.nodes)}"
    for one, other in zip(a.nodes, b.nodes, strict=False):
        for name in ("id", "path", "depth", "unit", "status", "boundary", "how", "log_probability", "cost", "round"):
            if not same(getattr(one, name), getattr(other, name), tolerance):
                yield f"{name} of node {one.id}: {getattr(one, name)} and {getattr(other, name)}"
        if (one.parent and one.parent.id) != (other.parent and other.parent.id) or one.reason != other.reason:
            yield f"parent or reason of node {one.id}"
        mine, others = ({k: (s.value, s.parts) for k, s in n.scores.items()} for n in (one, other))
        if not same(mine, others, tolerance):
            yield f"scores of node {one.id}: {mine} and {others}"


def _counted(spent: Spent) -> dict[str, Any]:
    return {name: replace(getattr(spent, name), seconds=0.0) for name in ("generating", "scoring", "rendering")}


def assert_same_tree(a: Tree, b: Tree, message: str, tolerance: float = 0.0) -> None:
    """Raise AssertionError with ``message`` and the first difference unless the trees are equal."""
    for difference in differences(a, b, tolerance):
        raise AssertionError(f"{message}: {difference}")
