"""Searches that share their calls: the same answers as alone, bounds, cancelling, time limits, draining."""

import threading
import time

import pytest
from server_engine import LIKING, Ear, Far, engine, held, job, until

from prunus import search
from prunus.errors import SearchError
from prunus.roles import FunctionReward
from prunus.server.errors import Refusal
from prunus.strategies import Beam, BestOfN
from prunus.testing.compare import differences


def done(*runnings):
    until(lambda: all(r.over for r in runnings))


def test_each_answer_is_that_of_the_search_alone():
    writer, strategies = held(), [Beam(keep=2, branch=2), BestOfN(n=3), Beam(keep=1, branch=4)]
    with engine(searches=8) as e:
        runnings = [e.submit([job(f"p{i}", writer, seed=i, strategy=strategies[i % 3])], [Ear()])[0] for i in range(20)]
        done(*runnings)
    for i, running in enumerate(runnings):
        alone = search(f"p{i}", held(), LIKING, strategies[i % 3], seed=i)
        assert running.state == "finished" and not list(differences(running.tree, alone))
        assert running.tree.best().output == alone.best().output


def test_what_searches_want_of_one_model_is_one_call():
    """The first call holds the thread; all five others are in the next."""
    writer = held(open=False)
    with engine(searches=6) as e:
        first = e.submit([job("first", writer)], [Ear()])[0]
        until(lambda: writer.calls == [4])
        others = [e.submit([job(f"p{i}", writer)], [Ear()])[0] for i in range(5)]
        until(lambda: all(r.work is not None for r in others))
        writer.gate.set()
        done(first, *others)
    assert writer.calls[1] == 20 or writer.calls[:3] == [4, 24, 24]
    assert e.rows / e.calls > 4


def test_bounds():
    """Two run and three wait; of two more none is taken, of one request's three either all or none."""
    writer = held(open=False)
    with engine(searches=2, queue=3) as e:
        taken = [e.submit([job(f"p{i}", writer)], [Ear()])[0] for i in range(2)]
        taken += e.submit([job(f"q{i}", writer) for i in range(2)], [Ear()] * 2)
        until(lambda: len(e.running) == 2)
        with pytest.raises(Refusal, match="no place left") as refused:
            e.submit([job("r", writer), job("s", writer)], [Ear()] * 2)
        assert refused.value.status == 429 and 1 <= refused.value.retry_after <= 60
        taken += e.submit([job("t", writer)], [Ear()])
        with pytest.raises(Refusal):
            e.submit([job("u", writer)], [Ear()])
        with pytest.raises(Refusal) as too_many:
            e.submit([job("w", writer)] * 6, [Ear()] * 6)
        assert too_many.value.status == 400  # coming back later would not help
        assert [r.state for r in taken] == ["running"] * 2 + ["queued"] * 3
        writer.gate.set()
        done(*taken)
        assert {r.state for r in taken} == {"finished"}
        assert e.submit([job("v", writer)], [Ear()])


def test_a_cancelled_search_leaves_and_frees_its_states():
    writer, ear = held(open=False), Ear()
    with engine(searches=1) as e:
        running, waits = (e.submit([job(p, writer)], [ear])[0] for p in "ab")
        until(lambda: writer.calls)
        e.cancel(running), e.cancel(waits)
        until(lambda: running.over and waits.over)  # at once, though the call goes on
        assert not e.waiting and running.tree.root.state is not None
        writer.gate.set()
        until(lambda: not e.running)
        assert e.states == 0 and all(node.state is None for node in running.tree.nodes)
        assert ear.of(waits) == ["queued", "cancelled"]
        assert ear.of(running) == ["queued", "running", "begun", "cancelled"]
        e.cancel(running)  # has no effect
    assert running.state == "cancelled"


def test_the_others_of_a_call_go_on_when_one_is_cancelled():
    writer = held(open=False)
    with engine(searches=3) as e:
        hold = e.submit([job("hold", writer)], [Ear()])[0]
        until(lambda: writer.calls)
        gone, stays = (e.submit([job(p, writer)], [Ear()])[0] for p in "ab")
        until(lambda: gone.work and stays.work)
        writer.gate.clear()
        e.cancel(gone)
        writer.gate.set()
        done(hold, gone, stays)
    assert (gone.state, stays.state) == ("cancelled", "finished")
    assert not list(differences(stays.tree, search("b", held(), LIKING, Beam(keep=2, branch=2))))


def test_time_limits_hold_while_waiting_and_while_running():
    writer = held(open=False)
    with engine(searches=1, seconds=0.2) as e:
        running, waits = (e.submit([job(p, writer)], [Ear()])[0] for p in "ab")
        done(running, waits)
        assert {running.state, waits.state} == {"late"} and running.error.status == 408
        writer.gate.set()
        until(lambda: not e.running)
        slow = e.submit([job("c", writer)], [Ear()], seconds=30)[0]
        done(slow)
        assert slow.state == "finished"


def test_errors_end_their_own_search_only():
    def broken(text, prompt):
        raise ValueError("never heard of it")

    def deaf(running, event):
        raise RuntimeError("a listener that fails")

    writer = held()
    with engine() as e:
        good = e.submit([job("a", writer)], [Ear()])[0]
        bad = e.submit([job("b", writer, reward=FunctionReward(broken, "broken"))], [Ear()])[0]
        unheard = e.submit([job("c", writer)], [deaf])[0]
        unknown = e.submit([job("d", writer, strategy=Beam(reward="none such"))], [Ear()])[0]
        done(good, bad, unheard, unknown)
        assert good.state == "finished"
        assert bad.state == "failed" and isinstance(bad.error, SearchError) and "broken" in str(bad.error)
        assert unheard.state == unknown.state == "failed"
        until(lambda: not e.running)
        assert e.states == 0


def test_neither_a_watcher_nor_a_mistake_ends_the_thread():
    def blind(running, event):
        raise RuntimeError("a watcher that fails")

    with engine(blind) as e:
        e._inbox.put(lambda: 1 / 0)
        running = e.submit([job()], [Ear()])[0]
        done(running)
        assert running.state == "finished" and e.alive
    assert not e.alive


def test_remote_models_are_called_side_by_side():
    """Two calls of another machine's model are under way at a time; a local one would make them one after another."""
    both = threading.Barrier(2, timeout=10)

    class Meeting(Far):
        def grow(self, asks):
            both.wait()
            return super().grow(asks)

    far = held(kind=Meeting)
    with engine() as e:
        runnings = [e.submit([job(p, far)], [Ear()])[0] for p in "ab"]
        done(*runnings)
    assert {r.state for r in runnings} == {"finished"}


def test_draining_finishes_what_it_can_and_saves_the_rest():
    """Nothing new is taken; a short search finishes; a long one's tree is saved, and one that waits is told."""
    quick, slow, saved, ear = held(open=False), held(open=False, kind=Far), [], Ear()
    with engine(searches=2, queue=4) as e:
        stuck, soon = e.submit([job("slow", slow)], [ear])[0], e.submit([job("quick", quick)], [ear])[0]
        until(lambda: slow.calls and quick.calls)
        waits = [e.submit([job("w", slow)], [ear])[0] for _ in range(3)]
        threading.Timer(0.2, quick.gate.set).start()
        e.drain(1.0, lambda running: saved.append(running) or "tree-1")
        with pytest.raises(Refusal) as refused:
            e.submit([job()], [ear])
        slow.gate.set()
    assert refused.value.status == 503
    assert soon.state == "finished"
    assert stuck.state == "stopped" and stuck.error.status == 503 and "kept as tree-1" in str(stuck.error)
    assert {w.state for w in waits} == {"stopped"}
    assert saved == [stuck, waits[0]]  # it took the place of the one that finished


def test_draining_an_idle_engine_takes_no_time():
    began = time.monotonic()
    with engine() as e:
        finished = e.submit([job()], [Ear()])[0]
        done(finished)
        until(lambda: not e.running)
        e.drain(20.0, lambda running: "")
    assert time.monotonic() - began < 5
