"""What tests of the server's searches share: a writer that can be held up, and an engine around it."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from prunus.roles import FunctionReward
from prunus.server.engine import Engine, Job
from prunus.server.model_thread import ModelThread
from prunus.server.settings import Limits
from prunus.strategies import Beam
from prunus.testing.scripted_text import ScriptedText
from prunus.tree import seed_of

STEPS = {(): {"a\n": 0.5, "b\n": 0.3, "c\n": 0.2}}


def steps(written):
    """Three lines of three letters each, then the end."""
    return {} if len(written) == 3 else STEPS[()]


def liking(text, prompt):
    return seed_of(str(text), prompt) / 2**63


LIKING = FunctionReward(liking, "liking")


@dataclass(frozen=True)
class Held(ScriptedText):
    """A writer whose calls wait for ``gate``; ``calls`` are the numbers of their rows."""

    gate: threading.Event = field(default_factory=threading.Event)
    calls: list = field(default_factory=list)

    def grow(self, asks):
        self.calls.append(len(asks))
        assert self.gate.wait(30)
        return super().grow(asks)


@dataclass(frozen=True)
class Far(Held):
    """One on another machine."""

    remote = True


def held(open=True, kind=Held):
    writer = kind(steps)
    if open:
        writer.gate.set()
    return writer


def job(prompt="p", writer=None, seed=0, strategy=None, reward=LIKING, **more):
    return Job(prompt, writer or held(), {reward.name: reward}, strategy or Beam(keep=2, branch=2), seed=seed, **more)


class Ear:
    """A listener: the events of each search, and a wait for its end."""

    def __init__(self):
        self.events, self.over = [], threading.Event()

    def __call__(self, running, event):
        self.events.append((running, running.state if event is None else event.kind))
        if running.over:
            self.over.set()

    def of(self, running):
        return [what for who, what in self.events if who is running]


@contextmanager
def engine(watch=None, **limits):
    made = Engine(ModelThread(), Limits(**limits), watch)
    made.start()
    try:
        yield made
    finally:
        made.drain(0.0, lambda running: "")
        made.models.close()


def until(condition, seconds=10.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.005)
