"""The search methods for text that the command line knows: one table, and how they and their rewards are made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from prunus import pocket
from prunus.commands.methods import Method, find_reward, parse_variant
from prunus.errors import ModelError, SettingError
from prunus.roles import WHOLE, FunctionReward, Reward, Strategy
from prunus.strategies import DVTS, REBASE, Beam, BestOfN, Lookahead, ParticleFilter, SuccessiveHalving, Vote
from prunus.strategies.adaptive_sampling import AdaptiveSampling
from prunus.strategies.early_rejection import EarlyRejection
from prunus.strategies.mcts import MCTS
from prunus.strategies.process_advantage import ProcessAdvantage
from prunus.strategies.process_reward_agent import ProcessRewardAgent

CHOICES = ("best", "majority", "weighted")


@dataclass(frozen=True)
class TextMethod(Method):
    """``widen``: the settings that let about so many candidates grow together, given the settings that are fixed."""

    widen: Callable[[int, Mapping[str, Any]], dict[str, Any]] = lambda width, fixed: {}


def _number_of(field: str) -> Callable[[int, Mapping[str, Any]], dict[str, Any]]:
    return lambda width, fixed: {field: width}


def _keep_and_branch(width: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """At most four children of each survivor, as is usual (test-time search basics, items 3 to 5)."""
    branch = fixed.get("branch", max(1, min(4, width // fixed.get("keep", 1))))
    return {"keep": max(1, width // branch), "branch": branch}


_n = partial(TextMethod, options=("n",), widen=_number_of("n"))
_beam = partial(TextMethod, options=("keep", "branch", "first"), widen=_keep_and_branch)
_trees = partial(TextMethod, options=("keep", "branch"), widen=_keep_and_branch)

TEXT_METHODS: dict[str, TextMethod] = {
    "plain": TextMethod(partial(BestOfN, n=1)),
    "best-of-n": _n(BestOfN),
    "beam": _beam(Beam),
    "dvts": _trees(DVTS),
    "lookahead": _trees(Lookahead),
    "rebase": _n(REBASE),
    "particles": _n(ParticleFilter),
    "particles-published": _n(ParticleFilter.published),
    "halving": _n(SuccessiveHalving),
    "mcts": TextMethod(MCTS, ("branch",), lambda width, fixed: {"iterations": 4 * width}),
    "early-rejection": _beam(EarlyRejection),
    "early-rejection-published": _beam(EarlyRejection.published),
    "adaptive-sampling": TextMethod(AdaptiveSampling, (), _number_of("most")),
    "process-advantage": _beam(ProcessAdvantage),
    "process-reward-agent": _beam(ProcessRewardAgent),
}


def text_strategy(
    variant: str, options: Mapping[str, int], width: int | None, reward: str, choose: str, answer: Callable[[Any], Any]
) -> Strategy:
    """A variant's strategy at this width (None: its own), reading this reward and choosing by vote if asked to."""
    name, fixed = fixed_settings(variant, options)
    wide = TEXT_METHODS[name].widen(width, fixed) if width is not None else {}
    try:
        strategy: Any = TEXT_METHODS[name].build(**{**wide, **fixed})
    except TypeError as error:
        raise SettingError(f"method {variant!r}: {error}") from None
    strategy = replace(strategy, reward=reward)
    return strategy if choose == "best" else Vote(strategy, choose, answer=answer)


def fixed_settings(variant: str, options: Mapping[str, int]) -> tuple[str, dict[str, Any]]:
    """A variant's method, and the settings that it or the command line's options fix."""
    name, changes = parse_variant(variant, TEXT_METHODS)
    return name, {**{k: v for k, v in options.items() if k in TEXT_METHODS[name].options}, **changes}


def is_wide(variant: str, options: Mapping[str, int]) -> bool:
    """Whether a width changes anything in this variant."""
    name, fixed = fixed_settings(variant, options)
    return bool(set(TEXT_METHODS[name].widen(4, fixed)) - set(fixed))


# ---- rewards ---------------------------------------------------------------------------------------------------------


PACKAGED = ("prm", "orm")


def nothing(text: str, prompt: str) -> float:
    return 0.0


def text_reward(name: str, device: str, dtype: str | None = None) -> Reward:
    """``none``, a packaged reward of ``PACKAGED``, a classification folder, ``package.module:Name``, or a route of a
    reward server; on a CPU a folder is run in ``dtype``.

    A folder for token classification scores steps, one for sequence classification whole texts. Raises SettingError or
    ModelError.
    """
    if name == "none":
        return FunctionReward(nothing, "none")
    if name.startswith(("http://", "https://")):
        return reward_server(name)
    folder = pocket.path(name) if name in PACKAGED else Path(name)
    if not folder.is_dir():
        if ":" not in name:
            raise SettingError(
                f"--reward {name!r} is no folder; take {', '.join(PACKAGED)}, a folder, package.module:Name, "
                "http://host:8000/pooling#MODEL or none"
            )
        return find_reward(name, WHOLE)
    from prunus.rewards import OutcomeReward, StepReward

    try:
        kind = str(json.loads((folder / "config.json").read_text())["architectures"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} has no config.json that names its architecture ({error})") from None
    for ending, reward in (("TokenClassification", StepReward), ("SequenceClassification", OutcomeReward)):
        if ending in kind:
            return reward.load(folder, device, dtype if device == "cpu" else None, name=folder.name)
    raise ModelError(f"{folder} is a {kind}; a reward is a model for token or sequence classification")


def reward_server(address: str) -> Reward:
    """A reward behind ``http://host:8000/pooling#MODEL``, or /score or /rerank; without #, the server's only model.

    Raises SettingError. One that needs a key, or other settings, is made in Python.
    """
    from prunus.rewards import ServerOutcomeReward, ServerStepReward

    url, _, model = address.partition("#")
    root, _, route = url.rstrip("/").rpartition("/")
    settings: dict[str, Any] = {"name": model} if model else {}
    if route == "pooling":
        return ServerStepReward(root, model or None, **settings)
    if route in ("score", "rerank"):
        return ServerOutcomeReward(root, model or None, route=route, **settings)
    raise SettingError(f"--reward {url!r} is no route of a reward server; it must end in /pooling, /score or /rerank")


# ---- generators ------------------------------------------------------------------------------------------------------


def with_pattern(writing: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a generator of text, its step compiled if it is ``re:`` and a regular expression."""
    step = writing.get("step")
    if not str(step).startswith("re:"):
        return dict(writing)
    try:
        return {**writing, "step": re.compile(str(step)[3:])}
    except re.error as error:
        raise SettingError(f"--step {step!r} is not a regular expression: {error}") from None
