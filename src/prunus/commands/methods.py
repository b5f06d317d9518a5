"""The search methods that the command line knows: one table, and how its strategies and their rewards are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from prunus.commands.settings import read_settings
from prunus.errors import ModelError, SettingError
from prunus.import_path import find_object
from prunus.roles import CHUNK, WHOLE, FunctionReward, Reward, Strategy, View
from prunus.strategies import Beam, BestOfN, PruneSchedule, StreamT1, TTSnap

if TYPE_CHECKING:
    from prunus.generators.streaming_video import StreamingVideo


@dataclass(frozen=True)
class Method:
    """How to build a strategy, and which of the options --keep, --branch, --first and --n it takes."""

    build: Callable[..., Strategy]
    options: tuple[str, ...] = ()


def stream_t1_ttsnap(after: Sequence[int] = (4, 6), pruned_to: Sequence[float] = (0.5, 0.25), **inner: Any) -> TTSnap:
    """Stream-T1 that also prunes inside its chunks: after so many denoising steps to this share of the candidates."""
    return TTSnap(StreamT1(**inner), PruneSchedule(tuple(after), tuple(pruned_to)))


METHODS = {
    "stream-t1": Method(StreamT1, ("keep", "branch", "first")),
    "stream-t1-published": Method(StreamT1.published, ("keep", "branch", "first")),
    "stream-t1-ttsnap": Method(stream_t1_ttsnap, ("keep", "branch", "first")),
    "beam": Method(Beam, ("keep", "branch", "first")),
    "best-of-n": Method(BestOfN, ("n",)),
    "plain": Method(partial(BestOfN, n=1)),
}


def parse_variant(text: str, table: Mapping[str, Method] = METHODS) -> tuple[str, dict[str, Any]]:
    """A method of a table and settings of its strategy, as in ``stream-t1:noise=fresh:memory=false``.

    Values are JSON, or else strings. Raises SettingError for an unknown method, setting or value.
    """
    name, *changes = text.split(":")
    check_method(name, table)
    settings = read_settings(changes, f"method {text!r}", "name:field=value")
    try:
        table[name].build(**settings)
    except TypeError as error:
        raise SettingError(f"method {text!r}: {error}") from None
    return name, settings


def check_method(name: str, table: Mapping[str, Method] = METHODS) -> None:
    if name not in table:
        raise SettingError(f"method {name!r} is unknown; take one of {', '.join(table)}")


def check_options(method: str, options: Mapping[str, int], table: Mapping[str, Method] = METHODS) -> None:
    """Raise SettingError if the method does not take one of these options or its value is not allowed."""
    check_method(method, table)
    for name in options:
        if name not in table[method].options:
            takes = ", ".join(f"--{o}" for o in table[method].options) or "none of --keep, --branch, --first, --n"
            raise SettingError(f"--{name} is not an option of {method}; it takes {takes}")
    table[method].build(**options)


def settings(method: str, recommended: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The strategy's keyword arguments: what the model recommends, unless the user says otherwise."""
    chosen = {**recommended, **options}
    try:
        METHODS[method].build(**chosen)
    except TypeError as error:
        raise ModelError(f"streaming.json recommends settings that {method} does not have: {error}") from None
    return chosen


@dataclass(frozen=True)
class Setup:
    """A strategy that knows its rewards' names, and the rewards; ``decider`` is the one that chooses the answer."""

    strategy: Strategy
    rewards: tuple[Reward, ...]
    decider: Reward


def set_up(method: str, keywords: Mapping[str, Any], names: Sequence[str] = (), device: str = "cpu") -> Setup:
    """The strategy with its rewards: the user's by import path, or the packaged ones.

    A user's reward takes the role of the clip reward, which chooses the answer. Stream-T1 also has a short reward, for
    new chunks; it stays the packaged frame reward unless two rewards are named: the first is short, the second long.
    """
    return _with_rewards(METHODS[method].build(**keywords), method, names, device)


def _with_rewards(strategy: Strategy, method: str, names: Sequence[str], device: str) -> Setup:
    if isinstance(strategy, TTSnap):
        inner, preview = _with_rewards(strategy.inner, method, names, device), packaged("preview", 1, device)
        strategy = replace(strategy, inner=inner.strategy, preview=preview.name)
        return Setup(strategy, (*inner.rewards, preview), inner.decider)
    window = strategy.window if isinstance(strategy, StreamT1) else StreamT1().window
    roles = 2 if isinstance(strategy, StreamT1) else 1
    if len(names) > roles:
        one = "at most two, short and long" if roles == 2 else "one"
        raise SettingError(f"--reward is given {len(names)} times; {method} takes {one}")
    decider = (
        find_reward(names[-1], View(window) if roles == 2 else WHOLE) if names else packaged("clip", window, device)
    )
    if not isinstance(strategy, StreamT1):
        return Setup(replace(strategy, reward=decider.name), (decider,), decider)  # type: ignore[type-var]
    short = find_reward(names[0], CHUNK) if len(names) == 2 else packaged("frame", window, device)
    final = None if names else strategy.final
    strategy = replace(strategy, short=short.name, long=decider.name, final=final)
    return Setup(strategy, (short, decider), decider)


def check_sampler(setup: Setup, generator: StreamingVideo) -> None:
    """Raise SettingError if a reward of estimates was trained for another sampler than the generator's."""
    for reward in setup.rewards:
        trained_for = getattr(reward, "sampler", None)
        if trained_for not in (None, generator.sampler.spec()):
            steps = len(trained_for["sigmas"])
            remedy = "leave --euler-steps out" if trained_for["fresh_noise"] else f"give --euler-steps {steps}"
            raise SettingError(
                f"{reward.name!r} reads estimates of another sampler, of {steps} steps; {remedy}, or train one "
                "with recipes/rewards/noise_aware.py"
            )


def packaged(kind: str, window: int, device: str) -> Reward:
    """The packaged ``frame``, ``clip``, ``preview`` or ``image-preview`` reward."""
    from prunus import pocket, rewards

    folder = pocket.path(f"{kind}-reward")
    if kind == "frame":
        return rewards.FrameReward.load(folder, device)
    if kind in ("preview", "image-preview"):
        return rewards.NoiseAwareReward.load(folder, device)
    return rewards.ClipReward.load(folder, device, units=window)


def find_reward(path: str, view: View) -> Reward:
    """The reward ``package.module:Name``: a Reward, a class of it, or a function f(frames or text, prompt) -> float.

    ``view`` is what a plain function is shown; a Reward says so itself. Raises SettingError.
    """
    found = find_object("--reward", path)
    try:
        made: Any = found() if isinstance(found, type) else found
    except Exception as error:
        raise SettingError(f"--reward {path!r} cannot be made without arguments: {error}") from error
    if isinstance(made, Reward):
        return made
    if not callable(made):
        raise SettingError(f"--reward {path!r} is a {type(made).__name__}; it must be a Reward or a function")
    return FunctionReward(made, path.rpartition(":")[2], view)
