"""The table of sinks of paper card 01, chunks counted from 1."""

from prunus.generators.kv_cache import CacheSpec
from prunus.report.memory import memory_table
from prunus.tree import Node

GATES = {1: "append", 2: "discard", 3: "ema", 4: "append", 5: "append", 6: "append", 7: "append", 8: "ema"}


def lineage(chunks, gates=GATES):
    """Each chunk's ``how`` tells the gates of those before it, as Stream-T1 asks."""
    node, nodes = None, []
    for b in range(chunks):
        how = {"gates": tuple(gates.get(i, "discard") for i in range(b)), "ema": 0.999} if gates else {}
        node = Node(b + 1, node, (0,) * (b + 1), b + 1, how=how)
        nodes.append(node)
    return nodes


def test_the_worked_table():
    rows = {r.chunk: r for r in memory_table(lineage(12), CacheSpec(3, 12, 3, 15), 3)}
    assert [(r.sinks, r.window, r.attended, r.append_starts) for r in (rows[k] for k in range(4, 13))] == [
        (("1",), ("2", "3", "4"), 12, ()),
        (("1", "2"), ("3", "4", "5"), 15, (3,)),
        (("1", "2"), ("4", "5", "6"), 15, (3,)),
        (("1", "2+4"), ("5", "6", "7"), 15, (3,)),
        (("1", "2+4", "5"), ("6", "7", "8"), 18, (3, 12)),
        (("1", "2+4", "5", "6"), ("7", "8", "9"), 21, (3, 12, 15)),
        (("1", "2+4", "5", "6", "7"), ("8", "9", "10"), 24, (3, 12, 15, 18)),
        (("1", "2+4", "5", "6", "7+8"), ("9", "10", "11"), 24, (3, 12, 15, 18)),
        (("1", "2+4", "5", "6", "7+8+9"), ("10", "11", "12"), 24, (3, 12, 15, 18)),
    ]
    left = [rows[k].left for k in range(4, 13)]
    assert left == [
        (), ("2 appended",), ("3 discarded",), ("4 mixed into 2",), ("5 appended",), ("6 appended",), ("7 appended",),
        ("8 mixed into 7 (sinks are full)",), ("9 mixed into 7",),
    ]  # fmt: skip


def test_many_chunks_in_one_sink_are_named_by_ranges():
    gates = dict.fromkeys(range(1, 8), "ema") | {4: "discard"}
    assert memory_table(lineage(11, gates), CacheSpec(3, 12, 3, 15), 3)[-1].sinks == ("1\u20134+6+7+8",)
    rows = memory_table(lineage(12, dict.fromkeys(range(1, 9), "ema") | {4: "discard"}), CacheSpec(3, 12, 3, 15), 3)
    assert rows[-1].sinks == ("1\u20134+6\u20139",)


def test_no_gates_no_table():
    assert memory_table(lineage(6, gates=None), CacheSpec(), 3) == []
    assert memory_table(lineage(1), CacheSpec(), 3) == []
