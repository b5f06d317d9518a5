"""What a search may spend, and what it has spent.

Costs are counted in network forwards (NFE: one forward of one candidate), tokens, FLOPs (a multiply-add is two) and
seconds. They are kept apart by purpose: generating, scoring, rendering, and rebuilding states after an interruption.
Rebuilding is reported but not charged to the budget, so that an interrupted search makes the same choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TypeVar

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
    def from_dict(cls, data: dict) -> Spent:
        return cls(**{k: Cost(**v) if isinstance(v, dict) else v for k, v in data.items()})


@dataclass(frozen=True)
class Budget:
    """Limits of one search; None is no limit. Seconds may be overshot by one call, the others never.

    ``admit`` keeps the first wishes of a round that can be paid for while the cost of finishing the most expensive of
    them to finish stays in reserve, so that a search always ends with a finished candidate.
    """

    nfe: int | None = None
    tokens: int | None = None
    flops: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            require(value is None or (value > 0 and value == value), f"budget {f.name}", value, "a positive number")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``nfe=500`` or ``nfe=500,seconds=30``."""
        names = [f.name for f in fields(cls)]
        limits: dict[str, float] = {}
        for item in text.split(","):
            name, _, value = item.partition("=")
            try:
                limits[name.strip()] = float(value)
            except ValueError:
                raise BudgetError(f"budget {text!r}: {value!r} is not a number; write for example nfe=200") from None
        if unknown := set(limits) - set(names):
            raise BudgetError(f"budget {text!r}: {', '.join(unknown)} is unknown; limits are {', '.join(names)}")
        whole = {name: int(value) if name in ("nfe", "tokens") else value for name, value in limits.items()}
        return cls(**whole)  # type: ignore[arg-type]

    def allows(self, cost: Cost) -> bool:
        limits = ((f.name, getattr(self, f.name)) for f in fields(self))
        return all(limit is None or getattr(cost, name) <= limit for name, limit in limits)

    def admit(
        self,
        wishes: Sequence[Wish],
        spent: Cost,
        price: Callable[[Sequence[Wish]], Cost],
        finish: Callable[[Wish], Cost],
    ) -> list[Wish]:
        """The longest head of ``wishes`` that fits.

        ``price`` is the cost of a round of wishes, ``finish`` the cost of finishing one candidate after its wish.
        Seconds are foreseen at the pace so far (seconds per NFE).
        """
        pace = spent.seconds / spent.nfe if spent.nfe else 0.0

        def fits(count: int) -> bool:
            head = wishes[:count]
            reserve = [finish(w) for w in head]
            dearest = Cost(
                nfe=max(c.nfe for c in reserve),
                tokens=max(c.tokens for c in reserve),
                flops=max(c.flops for c in reserve),
            )
            planned = price(head) + dearest
            return self.allows(spent + Cost(planned.nfe, planned.tokens, planned.flops, planned.nfe * pace))

        if not wishes or self == Budget():
            return list(wishes)
        low, high = 0, len(wishes)  # the cost grows with the head: bisect
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return list(wishes[:low])
