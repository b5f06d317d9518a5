"""What the searches of a server took, for ``/metrics``: it watches the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prunus.loop import Event
from prunus.server.engine import ENDS, Engine, Running
from prunus.server.metrics import Distribution, Metric
from prunus.server.usage import Amounts, amounts


class Books:
    """Sums over all searches, those that run too. ``kept`` are the tokens of the answers that were returned."""

    def __init__(self) -> None:
        self.total, self.kept, self.waited = Amounts(), 0, 0.0
        self.ends: Counter[str] = Counter(dict.fromkeys(ENDS, 0))
        self.seconds = Distribution()
        self._seen: dict[Running, Amounts] = {}

    def watch(self, running: Running, event: Event | None) -> None:
        if running.tree is not None and (running.over or (event is not None and event.kind == "round")):
            now = amounts(running.tree)
            self.total += now - self._seen.get(running, Amounts())
            self._seen[running] = now
        if running.over:
            self._seen.pop(running, None)
            self.ends[running.state] += 1
            self.waited += running.waited
            if running.state == "finished" and running.tree is not None:
                self.seconds.observe(running.waited + running.tree.spent.total.seconds)

    def metrics(self, engine: Engine) -> Iterable[Metric]:
        def gauge(name: str, help: str, value: float) -> Metric:
            return Metric(name, "gauge", help, [({}, value)])

        total = self.total
        tokens = {"generated": total.generated, "processed": total.processed, "scored": total.scored, "kept": self.kept}
        seconds = {"generate": total.generate_seconds, "score": total.score_seconds, "wait": self.waited}
        yield Metric(
            "prunus_searches_total", "counter", "Searches that ended, and how.",
            [({"end": end}, count) for end, count in self.ends.items()],
        )  # fmt: skip
        yield gauge("prunus_searches_running", "Searches that run.", len(engine.running))
        yield gauge("prunus_searches_waiting", "Searches that wait for a place.", len(engine.waiting))
        yield gauge("prunus_states", "Candidates whose state is held.", engine.states)
        yield Metric(
            "prunus_search_tokens_total", "counter",
            "Tokens that models wrote (generated) and read (processed), that rewards read (scored), and of the answers "
            "that were returned (kept).",
            [({"kind": kind}, count) for kind, count in tokens.items()],
        )  # fmt: skip
        yield Metric(
            "prunus_search_forwards_total", "counter", "Forwards of one candidate (NFE), of models and rewards.",
            [({}, total.nfe)],
        )  # fmt: skip
        yield Metric(
            "prunus_search_seconds_total", "counter", "Seconds of searches, each its share of a call; waiting is for a "
            "place and for calls.", [({"part": part}, value) for part, value in seconds.items()],
        )  # fmt: skip
        yield Metric(
            "prunus_search_duration_seconds", "histogram", "What finished searches took, waiting included.",
            [({}, self.seconds)],
        )  # fmt: skip
        yield Metric("prunus_model_calls_total", "counter", "Calls of local models.", [({}, engine.calls)])
        yield Metric(
            "prunus_model_rows_total", "counter", "Candidates in these calls; by calls: the mean batch.",
            [({}, engine.rows)],
        )  # fmt: skip
