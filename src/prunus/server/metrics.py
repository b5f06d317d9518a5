"""Numbers for Prometheus: what parts report, written as its text format, version 0.0.4."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass
class Distribution:
    """How many observations lie in each bucket; ``bounds`` are the buckets' upper ends, the last one has none."""

    bounds: Sequence[float] = SECONDS
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(frozen=True)
class Metric:
    """One metric and its samples: (labels, value); a histogram's values are Distributions.

    kind: counter (its name ends in _total), gauge or histogram.
    """

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float | Distribution]]


def write(metrics: Iterable[Metric]) -> str:
    """The text of a scrape."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {_escaped(metric.help)}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.samples:
            if isinstance(value, Distribution):
                ends = [*(f"{bound:g}" for bound in value.bounds), "+Inf"]
                for end, count in zip(ends, accumulate(value.counts), strict=True):
                    lines.append(f"{metric.name}_bucket{_labels({**labels, 'le': end})} {count}")
                lines.append(f"{metric.name}_sum{_labels(labels)} {value.sum!r}")
                lines.append(f"{metric.name}_count{_labels(labels)} {sum(value.counts)}")
            else:
                lines.append(f"{metric.name}{_labels(labels)} {value!r}")
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{name}="{_escaped(value, True)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
