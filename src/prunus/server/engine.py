"""Many searches at a time: what they want of one model becomes one call of it.

Each search is the loop that ``prunus.search`` runs, with the same seed and the same draws, so that its answer is the
one that it would come to alone. One thread drives all loops. Models run on the server's model thread, one call at a
time, with the work of all searches that want the same call; a search that arrives, or ends, does so between calls.
Calls of another machine's models (``remote``) wait on threads of their own, each by itself.

``submit`` takes searches or refuses them; nothing waits without bound. A search ends by finishing, by an error, when it
is cancelled, when its time is over, or when the engine is closed; its states are freed then, at the latest when the
call that it is part of returns.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from logging import ERROR
from typing import Any

from prunus.budget import Budget
from prunus.errors import PrunusError
from prunus.loop import Done, Event, Loop, Work
from prunus.roles import Generator, Reward, Strategy
from prunus.search import advance, perform, start
from prunus.server.errors import Refusal
from prunus.server.logs import log, where
from prunus.server.model_thread import ModelThread
from prunus.server.settings import Limits
from prunus.tree import Tree

ENDS = ("finished", "failed", "cancelled", "late", "stopped")
"""How a search ends: ``late``: its time is over; ``stopped``: the engine was closed."""
TICK = 0.25  # seconds between looks at the clock


@dataclass(frozen=True)
class Job:
    """A search as ``prunus.search`` takes it; ``about`` is what watchers want to know of it."""

    prompt: str
    generator: Generator
    rewards: Mapping[str, Reward]
    strategy: Strategy
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Running:
    """A search that was taken. ``listen(running, event)`` is called on the engine's thread: the loop's events, and
    with None when ``state`` has changed: queued, running, and one of ``ENDS``. The tree is still after the end."""

    job: Job
    listen: Callable[[Running, Event | None], None]
    ends: float  # by this time
    arrived: float = field(default_factory=time.monotonic)
    state: str = "queued"
    tree: Tree | None = None
    error: Exception | None = None
    loop: Loop | None = None
    work: Work | None = None  # what it wants done
    wanted: float = 0.0  # since when
    waited: float = 0.0  # seconds, for a place and for calls
    called: bool = False  # its work is being done
    states: int = 0  # nodes that hold one

    @property
    def over(self) -> bool:
        return self.state in ENDS


Watch = Callable[[Running, Event | None], None]


class Engine:
    """Drives searches. ``watch`` is told what every search's own listener is told, before it."""

    def __init__(self, models: ModelThread, limits: Limits, watch: Watch | None = None) -> None:
        self.models, self.limits, self.watch = models, limits, watch
        self.running: dict[int, Running] = {}
        self.waiting: deque[Running] = deque()
        self.calls, self.rows = 0, 0  # of local models
        self._lock = threading.Lock()  # of waiting and closed
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._remote = ThreadPoolExecutor(max(1, limits.searches), thread_name_prefix="prunus-remote")
        self._busy = False  # the model thread, with a call of ours
        self._recent: deque[float] = deque([1.0], maxlen=32)  # seconds that searches ran
        self._closed, self._ended = False, threading.Event()
        self._ended.set()
        self._thread: threading.Thread | None = None

    # ---- for other threads -----------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="prunus-searches", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job], listen: Sequence[Watch], seconds: float | None = None) -> list[Running]:
        """Take all of these searches or none, each with its listener, for at most so many seconds.

        Raises Refusal, 429 or 503.
        """
        ends = time.monotonic() + (seconds or self.limits.seconds)
        if len(jobs) > (most := self.limits.searches + self.limits.queue):
            raise Refusal(400, f"these are {len(jobs)} searches, and only {most} may run and wait", code="above_limit")
        with self._lock:
            if self._closed:
                raise Refusal(503, "the server is draining", code="draining", retry_after=5)
            places = self.limits.searches - len(self.running) + self.limits.queue - len(self.waiting)
            if len(jobs) > places:
                raise Refusal(
                    429,
                    f"{self.limits.searches} searches run at a time and {self.limits.queue} wait, and there is no "
                    "place left; come back later",
                    code="queue_full",
                    retry_after=self.time_to_wait(),
                )
            taken = [Running(job, ear, ends) for job, ear in zip(jobs, listen, strict=True)]
            self.waiting.extend(taken)
            self._ended.clear()
        self._inbox.put(lambda: self._arrived(taken))
        return taken

    def time_to_wait(self) -> float:
        """Seconds after which a place may be free: what the searches that wait will take, at the pace of late."""
        mean = sum(self._recent) / len(self._recent)
        return min(60.0, max(1.0, mean * (1 + len(self.waiting)) / self.limits.searches))

    def cancel(self, running: Running) -> None:
        """End a search, as soon as the engine's thread sees it. One that is over stays as it is."""
        self._inbox.put(lambda: self._end(running, "cancelled"))

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def states(self) -> int:
        """Nodes that hold a state, those of cancelled searches whose call still runs among them."""
        return sum(running.states for running in list(self.running.values()))

    def drain(self, seconds: float, save: Callable[[Running], str]) -> None:
        """Take no more; let what was taken finish within so many seconds; then stop the rest.

        ``save`` is given those that had begun, and says under what name their trees are kept.
        """
        with self._lock:
            self._closed = True
        self._ended.wait(seconds)
        stopped = Future[None]()

        def stop() -> None:
            for running in [*self.running.values(), *self.waiting]:
                message = "the server is stopping"
                if not running.over and running.tree is not None:
                    try:
                        message += f"; what had grown is kept as {save(running)}"
                    except Exception as error:
                        log("tree not saved", ERROR, **where(error))
                self._end(running, "stopped", Refusal(503, message, code="stopping", retry_after=5))
            stopped.set_result(None)

        if self._thread is not None and self.alive:
            self._inbox.put(stop)
            stopped.result(30)
            self._inbox.put(None)
            self._thread.join(5)
        self._remote.shutdown(wait=False, cancel_futures=True)

    # ---- the engine's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                messages = [self._inbox.get(timeout=TICK)]
                while not self._inbox.empty():
                    messages.append(self._inbox.get())
            except queue.Empty:
                messages = []
            for message in messages:
                if message is None:
                    return
                self._whatever_happens(message)
            for step in (self._give_up_late_ones, self._begin, self._dispatch):
                self._whatever_happens(step)

    @staticmethod
    def _whatever_happens(step: Callable[[], None]) -> None:
        """A mistake in one step must not end the thread, on which all searches depend."""
        try:
            step()
        except Exception as error:
            log("engine step failed", ERROR, **where(error))

    def _arrived(self, taken: Sequence[Running]) -> None:
        for running in taken:
            if running.state == "queued":
                self._tell(running, None)

    def _give_up_late_ones(self) -> None:
        now = time.monotonic()
        for running in [*self.running.values(), *self.waiting]:
            if now > running.ends:
                message = f"the search was not done after {now - running.arrived:.3g} seconds, which is all it may take"
                self._end(running, "late", Refusal(408, message, code="timeout"))

    def _begin(self) -> None:
        """Let those that wait run, as far as there are places."""
        while True:
            with self._lock:
                if not self.waiting or len(self.running) >= self.limits.searches:
                    return
                running = self.waiting.popleft()
                self.running[id(running)] = running
            running.state, now = "running", time.monotonic()
            running.waited += now - running.arrived
            try:
                job = running.job
                running.tree, running.loop = start(
                    job.prompt, job.generator, dict(job.rewards), job.strategy, job.budget, job.seed
                )
                if messages := getattr(job.prompt, "messages", ()):  # of a saved tree only the text would be left
                    running.tree.spec["messages"] = list(messages)
                self._tell(running, None)
                self._advance(running, None)
            except Exception as error:
                self._end(running, "failed", error)

    def _dispatch(self) -> None:
        """Have work done: that of remote models at once, that of the others when the model thread is free.

        What is short, rendering and scoring, goes first, so that all searches that wait then grow together.
        """
        wanting = {i: (r.work, r.wanted) for i, r in self.running.items() if r.work is not None and not r.over}
        for i, (work, _) in wanting.items():
            if work.model.remote:
                self._have_done([i], self._remote)
        local = {i: some for i, some in wanting.items() if not some[0].model.remote}
        if local and not self._busy:
            first = min(local, key=lambda i: (local[i][0].purpose == "generating", local[i][1]))
            call = local[first][0].call
            self._busy = True
            self._have_done([i for i in local if local[i][0].call == call], self.models.pool)

    def _have_done(self, indices: list[int], pool: ThreadPoolExecutor) -> None:
        now, together = time.monotonic(), {}
        for i in indices:
            running = self.running[i]
            assert running.work is not None
            together[i], running.work, running.called = running.work, None, True
            running.waited += now - running.wanted
        if pool is self.models.pool:
            self.calls, self.rows = self.calls + 1, self.rows + sum(len(work.rows) for work in together.values())

        def done(future: Future) -> None:
            self._inbox.put(lambda: self._done(indices, future, pool is self.models.pool))

        pool.submit(perform, together, None).add_done_callback(done)

    def _done(self, indices: list[int], future: Future, local: bool) -> None:
        if local:
            self._busy = False
        try:
            results: dict[int, Done | PrunusError] = dict(future.result())
        except BaseException as error:  # the pool was closed
            results = dict.fromkeys(indices, PrunusError(str(error)))
        for i in indices:
            running = self.running[i]
            running.called = False
            if running.over:
                self._release(running)
            else:
                self._advance(running, results.pop(i))

    def _advance(self, running: Running, message: Done | PrunusError | None) -> None:
        """Run a search to its next work, or to its end."""
        assert running.tree is not None and running.loop is not None
        steps = advance(running.tree, running.loop, message)
        try:
            while not running.over:
                event = next(steps)
                if event.kind in ("round", "finished"):
                    running.states = sum(node.state is not None for node in running.tree.nodes)
                self._tell(running, event)
        except StopIteration as stop:
            if stop.value is None:
                self._end(running, "finished")
            else:
                running.work, running.wanted = stop.value, time.monotonic()
        except Exception as error:
            self._end(running, "failed", error)

    def _end(self, running: Running, state: str, error: Exception | None = None) -> None:
        if running.over:
            return
        running.state, running.error = state, error
        if running in self.waiting:
            with self._lock:
                self.waiting.remove(running)
        elif state == "finished":
            self._recent.append(time.monotonic() - running.arrived - running.waited)
        if not running.called:
            self._release(running)
        self._tell(running, None)

    def _release(self, running: Running) -> None:
        """Free a search's states; no call uses them."""
        if running.loop is not None:
            running.loop.close()
        for node in running.tree.nodes if running.tree is not None else ():
            node.state = None
        running.work, running.loop, running.states = None, None, 0
        with self._lock:
            self.running.pop(id(running), None)
            if not self.running and not self.waiting:
                self._ended.set()

    def _tell(self, running: Running, event: Event | None) -> None:
        """A listener's failure ends its own search and no other; a watcher's is only logged."""
        if self.watch is not None:
            self._whatever_happens(partial(self.watch, running, event))
        try:
            running.listen(running, event)
        except Exception as error:
            log("listener failed", ERROR, **where(error))
            self._end(running, "failed", error)
