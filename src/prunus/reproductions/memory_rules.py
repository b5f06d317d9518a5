"""One candidate, and one rule for whatever leaves the attention window: memory sinking (paper 01) with forced gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prunus.errors import require
from prunus.generators.kv_cache import GATES
from prunus.roles import Ask
from prunus.strategies import BestOfN
from prunus.tree import Tree


@dataclass(frozen=True)
class MemoryRule(BestOfN):
    """Every chunk that leaves the window meets ``gate``; ``ema`` is what a sink keeps when one is mixed into it.

    ``only`` names, for each (prompt, seed), the one chunk (from 0) that the gate is for; all others are discarded.
    With ``append`` the first four chunks fill the sinks, and later ones are mixed into the last.
    """

    n: int = 1
    gate: str = "discard"
    ema: float = 0.999
    only: Mapping[tuple[str, int], int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.gate in GATES, "gate", self.gate, f"one of {', '.join(GATES)}")

    def select(self, tree: Tree) -> Sequence[Ask]:
        return [replace(ask, how=replace(ask.how, **self._how(tree, ask))) for ask in super().select(tree)]

    def _how(self, tree: Tree, ask: Ask) -> dict:
        chunks = range(ask.parent.depth)
        chosen = chunks if self.only is None else [self.only[tree.prompt, tree.seed]]
        return {"gates": tuple(self.gate if c in chosen else "discard" for c in chunks), "ema": self.ema}


RULES = {
    "discard": MemoryRule(),
    "EMA 0.999": MemoryRule(gate="ema", ema=0.999),
    "EMA 0.9": MemoryRule(gate="ema", ema=0.9),
    "EMA 0.5": MemoryRule(gate="ema", ema=0.5),
    "append": MemoryRule(gate="append"),
}
