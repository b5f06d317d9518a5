"""The search methods that a server can offer, and their names: ``beam-4x4``, ``best-of-8``, ``majority-16``.

An operator lists methods with their numbers (``beam-4x4``: these alone) or without (``beam``: any, within the limits).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunus.answers import final_answer, plain_number
from prunus.errors import SettingError
from prunus.roles import Strategy
from prunus.strategies import DVTS, REBASE, Beam, BestOfN, Lookahead, ParticleFilter, SuccessiveHalving, Vote
from prunus.strategies.early_rejection import EarlyRejection
from prunus.strategies.mcts import MCTS

_NAME = re.compile(r"([a-z]+(?:-[a-z]+)*)(?:-([0-9]{1,4}(?:x[0-9]{1,4})*))?")


@dataclass(frozen=True)
class Method:
    """build(reward=..., **settings). settings: its numbers, in the order of the name. candidates: of these numbers, how
    many grow side by side and how many are written in all. needs_reward: False if it chooses without one."""

    build: Callable[..., Strategy]
    settings: tuple[str, ...]
    candidates: Callable[..., tuple[int, int]] = lambda n: (n, n)
    needs_reward: bool = True


def _majority(reward: str, n: int = 8) -> Strategy:
    return Vote(BestOfN(n=n, reward=reward), "majority", answer=vote)


def _weighted(reward: str, n: int = 8) -> Strategy:
    return Vote(BestOfN(n=n, reward=reward), "weighted", answer=vote)


def _best_of(reward: str, n: int = 8) -> Strategy:
    return BestOfN(n=n, reward=reward)


def vote(text: str) -> str | None:
    """What a solution votes for: its final answer; numbers are the same however they are written."""
    answer = final_answer(text)
    if answer is None:
        return None
    value = plain_number(answer)
    return " ".join(answer.split()) if value is None else str(value)


def _beam(keep: int, branch: int) -> tuple[int, int]:
    return keep * branch, keep * branch


METHODS: dict[str, Method] = {
    "best-of": Method(_best_of, ("n",)),
    "majority": Method(_majority, ("n",), needs_reward=False),
    "weighted": Method(_weighted, ("n",)),
    "beam": Method(Beam, ("keep", "branch"), _beam),
    "dvts": Method(DVTS, ("keep", "branch"), _beam),
    "early-rejection": Method(EarlyRejection, ("keep", "branch"), _beam),
    "halving": Method(SuccessiveHalving, ("n",)),
    "lookahead": Method(Lookahead, ("keep", "branch"), lambda keep, branch: (keep * branch, 2 * keep * branch)),
    "mcts": Method(MCTS, ("iterations",), lambda iterations: (12, 6 * iterations)),  # 4 leaves at a time, 3 children
    "particles": Method(ParticleFilter, ("n",)),
    "rebase": Method(REBASE, ("n",)),
}


@dataclass(frozen=True)
class Choice:
    """A method with its numbers."""

    method: str
    numbers: Mapping[str, int]

    @property
    def needs_reward(self) -> bool:
        return METHODS[self.method].needs_reward

    def strategy(self, reward: str) -> Strategy:
        """Raises SettingError for numbers that are not allowed."""
        return METHODS[self.method].build(reward=reward, **self.numbers)

    @property
    def _all(self) -> list[int]:
        """Its numbers, the method's own where none is given."""
        made: Any = self.strategy("")
        made = made.inner if isinstance(made, Vote) else made
        return [getattr(made, name) for name in METHODS[self.method].settings]

    @property
    def name(self) -> str:
        """With all numbers: ``beam-2x2``."""
        return f"{self.method}-{'x'.join(map(str, self._all))}"

    @property
    def candidates(self) -> tuple[int, int]:
        """How many grow side by side, and how many whole ones are written at most."""
        return METHODS[self.method].candidates(*self._all)


def parse(name: str) -> Choice:
    """Read ``beam-4x4`` or ``beam``. Raises SettingError."""
    found = _NAME.fullmatch(name)
    if not found or found[1] not in METHODS:
        raise SettingError(f"strategy {name[:80]!r} is unknown; take one of {', '.join(METHODS)}, such as beam-4x4")
    settings = METHODS[found[1]].settings
    numbers = [int(n) for n in found[2].split("x")] if found[2] else []
    if len(numbers) > len(settings):
        example = f"{found[1]}-{'x'.join(['4'] * len(settings))}"
        raise SettingError(f"strategy {name!r} has {len(numbers)} numbers; write {example} ({', '.join(settings)})")
    choice = Choice(found[1], dict(zip(settings, numbers)))
    choice.strategy("")
    return choice


def offered(name: str, numbers: Mapping[str, int], listed: Sequence[str]) -> Choice:
    """What a request asks for, if the operator listed it. Raises SettingError that names what is listed."""
    choice = parse(name)
    known = METHODS[choice.method].settings
    if odd := [n for n in numbers if n not in known]:
        raise SettingError(f"{odd[0]} is no setting of {choice.method}; it has {', '.join(known)}")
    if choice.method not in listed and (numbers or name not in listed):
        raise SettingError(
            f"strategy {name!r}{' with other numbers' if numbers and name in listed else ''} is not offered here; "
            f"take one of {', '.join(listed) or 'none: this server samples plainly'}"
        )
    return Choice(choice.method, {**choice.numbers, **numbers})
