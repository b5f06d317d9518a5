"""The contract of rewards as a check that anyone can run on their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prunus.errors import require
from prunus.roles import Reward, View
from prunus.score import Score
from prunus.testing.rules import holds, within

RANGES = ("probability", "logit", "unbounded")


def check_reward(reward: Reward, contents: Sequence[Any], prompts: Sequence[str], tolerance: float = 1e-5) -> None:
    """Raise AssertionError unless ``reward`` keeps its contract; ``contents[i]`` is scored for ``prompts[i]``.

    There is one finite score for each content (None leaves it unscored), the same when asked again, alone, or in
    another order. That higher is better is part of the contract too, but only you can know it.
    """
    who = f"reward {reward.name!r}"
    require(len(contents) == len(prompts) >= 2, "contents", len(contents), "two or more, with a prompt for each")
    holds(isinstance(reward.view, View), who, "its view is a View", reward.view)
    holds(reward.range in RANGES, who, f"its range is one of {', '.join(RANGES)}", reward.range)
    rated = _rate(reward, who, contents, prompts)
    ways = {
        "the same contents get the same scores again": _rate(reward, who, contents, prompts),
        "a batch gets the scores of single calls": [
            _rate(reward, who, [c], [p])[0] for c, p in zip(contents, prompts, strict=True)
        ],
        "the order of rows does not matter": _rate(reward, who, contents[::-1], prompts[::-1])[::-1],
    }
    for rule, others in ways.items():
        for a, b in zip(rated, others, strict=True):
            close = a.keys() == b.keys() and all(abs(a[k] - b[k]) <= tolerance for k in a)
            holds(close, who, rule, (a, b))
    more, fewer = (reward.cost([1] * n) for n in (2, 1))
    holds(within(fewer, more), who, "scoring more candidates does not cost less", (fewer, more))


def _rate(reward: Reward, who: str, contents: Sequence[Any], prompts: Sequence[str]) -> list[dict[str, float]]:
    """The values and parts of a call's scores, checked."""
    scores = list(reward.score(contents, prompts))
    holds(len(scores) == len(contents), who, "there is one score for each content", (len(scores), len(contents)))
    rated: list[dict[str, float]] = []
    for score in scores:
        try:
            if score is None:
                rated.append({})
                continue
            value, parts = (score.value, score.parts) if isinstance(score, Score) else (score, {})
            rated.append({"": float(value), **{k: float(v) for k, v in parts.items()}})
        except (TypeError, ValueError):
            holds(False, who, "a score is a number or a prunus.Score", repr(score))
        finite = all(map(math.isfinite, rated[-1].values()))
        holds(finite, who, "scores and their parts are finite for candidates that are sound", score)
    return rated
