"""What a search may spend, and what it has spent.

Costs are counted in network forwards (NFE: one forward of one candidate), tokens, FLOPs (a multiply-add is two) and
seconds. They are kept apart by purpose: generating, scoring, rendering, and rebuilding states after an interruption.
Rebuilding is reported but not charged to the budget, so that an interrupted search makes the same choices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from prunus.errors import BudgetError, require

Wish = TypeVar("Wish")


@dataclass(frozen=True)
class Cost:
    """An amount of compute. Costs add up; ``nfe``, ``tokens`` and ``flops`` are exact, ``seconds`` are measured."""

    nfe: int = 0
    tokens: int = 0
    flops: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: int) -> Cost:
        return Cost(*(getattr(self, f.name) * times for f in fields(self)))

    @classmethod
    def most(cls, costs: Iterable[Cost]) -> Cost:
        """The largest of each: what any one of these needs."""
        several = [Cost(), *costs]
        return cls(*(max(getattr(c, f.name) for c in several) for f in fields(cls)))


@dataclass
class Spent:
    """What a search has spent, by purpose, and the most bytes that its states held at once."""

    generating: Cost = field(default_factory=Cost)
    scoring: Cost = field(default_factory=Cost)
    rendering: Cost = field(default_factory=Cost)
    rebuilding: Cost = field(default_factory=Cost)
    peak_bytes: int = 0

    @property
    def total(self) -> Cost:
        """What counts against the budget."""
        return self.generating + self.scoring + self.rendering

    def charge(self, purpose: str, cost: Cost) -> None:
        setattr(self, purpose, getattr(self, purpose) + cost)

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spent:
        costs = {name: Cost(**value) for name, value in data.items() if name != "peak_bytes"}
        return cls(**costs, peak_bytes=data["peak_bytes"])


@dataclass(frozen=True)
class Budget:
    """Limits of one search; None is no limit. Seconds may be overshot by one call, the others never.

    ``admit`` keeps the first wishes of a round that can be paid for while the cost of finishing one of them, whichever
    it is, stays in reserve, so that a search ends with a finished candidate.
    """

    nfe: int | None = None
    tokens: int | None = None
    flops: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            require(value is None or value > 0, f"budget {f.name}", value, "a positive number")

    def __str__(self) -> str:
        limits = {f.name: getattr(self, f.name) for f in fields(self)}
        return ",".join(f"{name}={limit:g}" for name, limit in limits.items() if limit is not None) or "no limit"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``nfe=500`` or ``nfe=500,seconds=30``."""
        names = [f.name for f in fields(cls)]
        limits: dict[str, Any] = {}
        for item in text.split(","):
            name, _, value = (part.strip() for part in item.partition("="))
            if name not in names:
                raise BudgetError(f"budget {text!r}: {name!r} is unknown; limits are {', '.join(names)}")
            try:
                limits[name] = int(float(value)) if name in ("nfe", "tokens") else float(value)
            except (ValueError, OverflowError):
                raise BudgetError(f"budget {text!r}: {value!r} is not a number; write for example nfe=200") from None
        return cls(**limits)

    def allows(self, cost: Cost) -> bool:
        limits = ((f.name, getattr(self, f.name)) for f in fields(self))
        return all(limit is None or getattr(cost, name) <= limit for name, limit in limits)

    def admit(self, wishes: Sequence[Wish], spent: Cost, plan: Callable[[Sequence[Wish]], Cost]) -> list[Wish]:
        """The wishes that fit, in order: of those that fit alone, the longest head that fits together.

        ``plan`` is what a round of wishes takes and what must be kept for finishing afterwards; it grows with the head.
        Seconds are foreseen at the pace so far (seconds per NFE).
        """
        pace = spent.seconds / spent.nfe if spent.nfe else 0.0

        def fits(head: Sequence[Wish]) -> bool:
            planned = plan(head)
            return self.allows(spent + Cost(planned.nfe, planned.tokens, planned.flops, planned.nfe * pace))

        if not wishes or self == Budget() or fits(wishes):
            return list(wishes)
        alone = [w for w in wishes if fits([w])]  # a dear wish does not keep a cheaper one from finishing
        low, high = 0, len(alone)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(alone[:middle]) else (low, middle - 1)
        return alone[:low]
