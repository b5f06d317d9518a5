"""The rolling cache: paper 01's worked table, unequal chunks, sharing, memory, a state machine against deep copies."""

import gc
import weakref

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prunus.generators.kv_cache import Block, Cache, CacheSpec, unique_bytes, unmoved


def block(chunk: int, start: int | None = None, frames: int = 3, value: float | None = None) -> Block:
    """A block of 2 layers, 2 tokens a frame, 1 head of 4, filled with the chunk's number."""
    keys = torch.full((2, frames * 2, 1, 4), float(chunk if value is None else value))
    return Block(keys, -keys, chunk, 3 * chunk if start is None else start, frames)


def grow(cache: Cache, gates: dict[int, str] | None = None, frames: int = 3) -> Cache:
    roomy = cache.make_room(gates or {}, frames)
    return roomy.commit(block(cache.next_chunk, cache.next_frame, frames))


def video(chunks: int, spec: CacheSpec | None = None, gates: dict[int, str] | None = None) -> Cache:
    cache = Cache(spec or CacheSpec())
    for _ in range(chunks):
        cache = grow(cache, gates)
    return cache


CARD_GATES = {1: "append", 2: "discard", 3: "ema"} | dict.fromkeys(range(4, 8), "append") | {8: "ema"}
CARD_TABLE = {  # chunk: sinks, window, frames attended, append_starts
    3: (["0"], "123", 12, []),
    4: (["0", "1"], "234", 15, [3]),
    5: (["0", "1"], "345", 15, [3]),
    6: (["0", "1+3"], "456", 15, [3]),
    7: (["0", "1+3", "4"], "567", 18, [3, 12]),
    8: (["0", "1+3", "4", "5"], "678", 21, [3, 12, 15]),
    9: (["0", "1+3", "4", "5", "6"], "789", 24, [3, 12, 15, 18]),
    10: (["0", "1+3", "4", "5", "6+7"], ["8", "9", "10"], 24, [3, 12, 15, 18]),
    11: (["0", "1+3", "4", "5", "6+7+8"], ["9", "10", "11"], 24, [3, 12, 15, 18]),
}


def test_worked_table_of_the_card():
    cache = video(3)
    for chunk, (sinks, window, attended, starts) in CARD_TABLE.items():
        cache = grow(cache, CARD_GATES)
        layout = cache.layout()
        assert layout["sinks"] == sinks
        assert layout["window"] == list(window)
        assert layout["frames_attended"] == cache.frames_attended == attended
        assert layout["append_starts"] == starts
        assert cache.next_chunk == chunk + 1
    sinks = cache.sinks
    assert sinks[1].mix == pytest.approx({1: 0.999, 3: 0.001})
    assert sinks[4].mix == pytest.approx({6: 0.998001, 7: 0.000999, 8: 0.001})
    assert sinks[4].keys.unique().item() == pytest.approx(0.998001 * 6 + 0.000999 * 7 + 0.001 * 8, abs=1e-6)
    for held in cache.blocks:
        expected = sum(weight * chunk for chunk, weight in held.mix.items())
        torch.testing.assert_close(held.keys, torch.full_like(held.keys, expected))
        torch.testing.assert_close(held.values, -held.keys)


def test_all_discard_is_a_sink_and_a_sliding_window():
    for chunks in range(1, 12):
        layout = video(chunks).layout()
        history = [str(chunk) for chunk in range(chunks)]
        assert layout["sinks"] + layout["window"] == history[:1] + history[1:][-3:]
        assert layout["append_starts"] == []


def test_unlimited_window_keeps_everything():
    cache = video(9, CacheSpec(window=None), CARD_GATES)
    assert [held.chunk for held in cache.blocks] == list(range(9))


def test_an_append_copies_nothing_and_an_ema_writes_one_block():
    before = video(4)
    appended = before.make_room({1: "append"})
    assert all(held in before.blocks for held in appended.blocks)
    assert unique_bytes([before, appended]) == unique_bytes([before])
    merged = before.make_room({1: "ema"})
    assert [held in before.blocks for held in merged.blocks] == [False, True, True]
    assert before.sinks[0].keys.unique().item() == 0, "the parent's sink must not change"


@pytest.mark.parametrize("sink", [0, 1, 2, 3, 4, 6])
@pytest.mark.parametrize("first", [1, 3])
def test_any_sink_and_a_first_chunk_of_one_frame(sink, first):
    """Sinks hold at least ``sink`` frames in whole chunks, the rolling part never more than window - sink."""
    spec = CacheSpec(window=sink + 7, sink=sink, max_sink=max(10, sink))
    cache = grow(Cache(spec), frames=first)
    for number in range(1, 12):
        cache = grow(cache, {number - 3: "append"})
        attended = [frame for held in cache.blocks for frame in range(held.start, held.end)]
        rolling = sum(held.frames for held in cache.window)
        assert len(attended) == len(set(attended)) == cache.frames_attended
        assert attended == sorted(attended) and attended[-1] == cache.next_frame - 1
        assert rolling <= 7
        if sink and number > 3:
            assert cache.frames_attended - rolling >= sink
            assert cache.sinks[0].start == 0
        assert sum(held.frames for held in cache.sinks) <= max(spec.max_sink, sink + 2)


def test_long_chunk_evicts_as_many_blocks_as_it_takes():
    cache = video(5, CacheSpec(window=12))
    assert cache.make_room(frames=6).layout()["window"] == ["4"]
    assert cache.make_room(frames=30).layout()["window"] == []
    assert cache.make_room(frames=30).commit(block(5, 15, 30)).frames_attended == 33


def test_merging_blocks_of_unequal_length_mixes_the_frames_that_both_have():
    long, short = block(0, frames=3, value=1.0), block(1, frames=1, value=3.0)
    torch.testing.assert_close(long.merge(short, 0.5, unmoved).keys[0, :, 0, 0], torch.tensor([2.0, 2, 1, 1, 1, 1]))
    torch.testing.assert_close(short.merge(long, 0.5, unmoved).keys[0, :, 0, 0], torch.tensor([2.0, 2]))


def test_ema_without_a_sink_drops_the_block():
    cache = video(4, CacheSpec(sink=0, window=9, max_sink=0), {0: "ema"})
    assert cache.layout()["sinks"] == [] and cache.layout()["window"] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "field, value, allowed",
    [
        ("chunk", 0, "at least 1"),
        ("sink", -1, "at least 0"),
        ("window", 5, "= 6"),
        ("max_sink", 2, "= 3"),
        ("ema", 1.5, "0, 1"),
    ],
)
def test_spec_names_field_value_and_what_is_allowed(field, value, allowed):
    with pytest.raises(ValueError, match=f"{field} is {value}.*{allowed}"):
        CacheSpec(**{field: value})


def test_misuse_is_an_error():
    cache = video(4)
    with pytest.raises(ValueError, match="call make_room"):
        cache.commit(block(4))
    with pytest.raises(ValueError, match="next one is chunk 4 at frame 12"):
        cache.make_room().commit(block(5))
    with pytest.raises(ValueError, match="'keep'; it must be one of append, ema, discard"):
        cache.make_room({1: "keep"})
    with pytest.raises(ValueError, match="frames is 4"):
        Block(torch.zeros(1, 6, 1, 4), torch.zeros(1, 6, 1, 4), 0, 0, 4)
    with pytest.raises(ValueError, match="same"):
        Block(torch.zeros(1, 6, 1, 4), torch.zeros(1, 3, 1, 4), 0, 0, 3)


def test_branching_shares_and_committing_adds_exactly_one_block_each():
    parent = video(7, CacheSpec(window=None))
    one = unique_bytes([block(0)])
    forks = [parent.make_room() for _ in range(8)]
    assert unique_bytes([parent, *forks]) == unique_bytes([parent]) == 7 * one
    children = [fork.commit(block(7)) for fork in forks]
    assert unique_bytes([parent, *forks, *children]) == 15 * one


def test_memory_of_a_planted_pattern():
    """Paper 01, miniature test 5: recall eight chunks later, by attention that looks for the pattern."""
    torch.manual_seed(0)
    pattern, answer = torch.randn(16), torch.randn(16)
    noise = [Block(torch.randn(1, 6, 1, 16) * 0.3, torch.randn(1, 6, 1, 16) * 0.3, b, 3 * b, 3) for b in range(10)]
    noise[1].keys[0, 2, 0], noise[1].values[0, 2, 0] = pattern, answer

    def recall(gate: str, **spec: float) -> float:
        cache = Cache(CacheSpec(**spec))
        for held in noise:
            cache = cache.make_room({1: gate}).commit(held)
        keys = torch.cat([held.keys for held in cache.blocks], 1)[0, :, 0]
        values = torch.cat([held.values for held in cache.blocks], 1)[0, :, 0]
        read = (keys @ pattern / 2).softmax(0) @ values
        return torch.cosine_similarity(read, answer, dim=0).item()

    full, append = recall("append", window=None), recall("append")
    faint, half, none = recall("ema", ema=0.999), recall("ema", ema=0.5), recall("discard")
    assert abs(append - full) < 0.05 and full > 0.9
    assert abs(faint - none) < 0.05 and none < 0.5
    assert none + 0.02 < half < append - 0.02


class NaiveCopy:
    """What the published code does: one list of (name, start, keys, values), deep-copied for every candidate."""

    def __init__(self) -> None:
        self.sinks: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self.window: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def copy(self) -> "NaiveCopy":
        other = NaiveCopy()
        other.sinks = [(start, keys.clone(), values.clone()) for start, keys, values in self.sinks]
        other.window = [(start, keys.clone(), values.clone()) for start, keys, values in self.window]
        return other

    def add(self, keys: torch.Tensor, values: torch.Tensor, start: int, gate: str, ema: float) -> None:
        entry = (start, keys.clone(), values.clone())
        if not self.sinks:
            self.sinks.append(entry)
            return
        if len(self.window) == 2:
            victim = self.window.pop(0)
            if gate == "append" and len(self.sinks) < 3:
                self.sinks.append(victim)
            elif gate != "discard":
                _, sink_keys, sink_values = self.sinks[-1]
                sink_keys.mul_(ema).add_(victim[1], alpha=1 - ema)
                sink_values.mul_(ema).add_(victim[2], alpha=1 - ema)
        self.window.append(entry)


class CacheMachine(RuleBasedStateMachine):
    """Grow, fork, prune and read candidates under random gates; nothing differs from deep copies, nothing leaks."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = CacheSpec(chunk=3, sink=3, window=9, max_sink=9, ema=0.75)
        self.alive: dict[int, tuple[Cache, NaiveCopy, dict[int, str]]] = {0: (Cache(self.spec), NaiveCopy(), {})}
        self.born: list[weakref.ref[torch.Tensor]] = []
        self.count = 1

    def add(self, entry: tuple[Cache, NaiveCopy, dict[int, str]]) -> None:
        self.alive[self.count] = entry
        self.count += 1

    def pick(self, which: int) -> int:
        return sorted(self.alive)[which % len(self.alive)]

    @precondition(lambda self: self.alive)
    @rule(which=st.integers(0, 99), gate=st.sampled_from(["append", "ema", "discard", None]))
    def grow(self, which: int, gate: str | None) -> None:
        name = self.pick(which)
        cache, naive, gates = self.alive.pop(name)
        keys, values = torch.randn(2, 1, 6, 1, 2)
        naive.add(keys, values, cache.next_frame, gates.get(cache.next_chunk - 2, "discard"), self.spec.ema)
        if gate:
            gates = gates | {cache.next_chunk: gate}
        grown = cache.make_room(gates).commit(
            Block(keys.clone(), values.clone(), cache.next_chunk, cache.next_frame, 3)
        )
        self.alive[name] = grown, naive, gates
        self.born += [weakref.ref(tensor) for tensor in grown.tensors()]

    @precondition(lambda self: 0 < len(self.alive) < 6)
    @rule(which=st.integers(0, 99))
    def fork(self, which: int) -> None:
        cache, naive, gates = self.alive[self.pick(which)]
        self.add((cache, naive.copy(), dict(gates)))

    @precondition(lambda self: len(self.alive) > 1)
    @rule(which=st.integers(0, 99))
    def prune(self, which: int) -> None:
        del self.alive[self.pick(which)]

    @invariant()
    def reads_the_same(self) -> None:
        for cache, naive, _ in self.alive.values():
            entries = naive.sinks + naive.window
            assert [held.start for held in cache.blocks] == [start for start, _, _ in entries]
            for held, (_, keys, values) in zip(cache.blocks, entries, strict=True):
                torch.testing.assert_close(held.keys, keys)
                torch.testing.assert_close(held.values, values)

    @invariant()
    def nothing_leaks(self) -> None:
        gc.collect(0)
        held = {id(tensor) for cache, _, _ in self.alive.values() for tensor in cache.tensors()}
        self.born = [ref for ref in self.born if ref() is not None]
        assert {id(ref()) for ref in self.born} == held
        assert unique_bytes(cache for cache, _, _ in self.alive.values()) == len(held) * 6 * 2 * 4


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
