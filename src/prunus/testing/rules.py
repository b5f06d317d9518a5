"""What the three contract checks share."""

from __future__ import annotations

from prunus.budget import Cost

MOST_ROUNDS = 1_000


def holds(ok: bool, who: str, rule: str, seen: object = None) -> None:
    """Raise an AssertionError that names the class and the rule that it breaks."""
    if not ok:
        raise AssertionError(f"{who} breaks its contract: {rule}" + ("" if seen is None else f"; seen: {seen}"))


def within(cost: Cost, limit: Cost) -> bool:
    return cost.nfe <= limit.nfe and cost.tokens <= limit.tokens and cost.flops <= limit.flops
