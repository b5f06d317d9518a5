"""The pruning methods that the command line knows: what each can prune, and how it is made from what is wished for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from typing import Any

from prunus.commands.settings import read_settings
from prunus.errors import SettingError, require
from prunus.import_path import find_object
from prunus.sparse.allocation import ERK, Allocation, Global, Uniform
from prunus.sparse.importance import (
    LAMP,
    SNIP,
    GraSP,
    Importance,
    Magnitude,
    Movement,
    Random,
    RewardDrop,
    SynFlow,
    Taylor,
)
from prunus.sparse.importance import Wanda as WandaScores
from prunus.sparse.masks import Masks
from prunus.sparse.methods import (
    GMP,
    SAP,
    SET,
    BiP,
    Consensus,
    Game,
    GraNet,
    IMPRewinding,
    Jackpots,
    LayerLottery,
    LotteryTicket,
    OneShot,
    RigL,
    SparseGPT,
    Wanda,
)
from prunus.sparse.methods.given import GivenMasks
from prunus.sparse.methods.layer_lottery import removable_blocks
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.models import Prunable
from prunus.sparse.networks import drawn
from prunus.sparse.scope import InRows, NofM, Scope, Units, Weights
from prunus.sparse.table import Arm
from prunus.sparse.task import Examples

WEIGHTS, PATTERN = "weights", "n:m"
LETTERS = {"channels": "N", "heads": "H", "layers": "L"}
ALLOCATIONS: dict[str, Allocation] = {"uniform": Uniform(), "erk": ERK(), "global": Global()}
IMPORTANCES: dict[str, Callable[[], Importance]] = {
    "magnitude": Magnitude,
    "random": Random,
    "snip": SNIP,
    "grasp": GraSP,
    "synflow": SynFlow,
    "taylor": Taylor,
    "movement": Movement,
    "lamp": LAMP,
    "wanda": WandaScores,
}


@dataclass(frozen=True)
class Wish:
    """What is asked for. ``steps`` are gradient steps in all, those of a search and of pre-training too."""

    model: Prunable
    sparsity: float | None = None
    macs: float | None = None
    structured: str | None = None
    pattern: tuple[int, int] | None = None
    steps: int = 0
    importance: str | None = None
    reward: str | None = None
    masks: Masks | None = None
    exclude: tuple[str, ...] = ()
    round_to: int = 1

    @property
    def scope(self) -> str:
        return self.structured or (PATTERN if self.pattern else WEIGHTS)

    @property
    def density(self) -> float:
        if self.pattern:
            return self.pattern[0] / self.pattern[1]
        assert self.sparsity is not None
        return 1 - self.sparsity

    @property
    def pretrain(self) -> int | None:
        return 0 if self.model.pretrained else None

    @property
    def allocation(self) -> Allocation:
        """One threshold over all layers; for trained models, whose layers it may empty, the same share for each."""
        return Uniform() if self.model.pretrained else Global()

    def units(self, masks: Masks) -> Units:
        assert self.structured is not None
        units = self.model.units(self.structured, masks)
        kept = {
            group: members
            for group, members in units.groups.items()
            if not any(fnmatch(name, pattern) for unit in members[:1] for name in unit for pattern in self.exclude)
        }
        require(bool(kept), "--exclude", list(self.exclude), f"some of the groups of {self.structured} left to prune")
        return replace(units, groups=kept, **({"reduce": "mean"} if self.importance == "reward" else {}))

    def scored_by(self) -> Importance:
        """The importance asked for, or magnitude."""
        name = self.importance or "magnitude"
        if name == "reward":
            if self.structured is None:
                raise SettingError("--importance reward removes units one by one: say which with --structured")
            return _RewardOfUnits(self)
        require(self.reward is None, "--reward", self.reward, "for --importance reward only")
        if name in IMPORTANCES:
            return IMPORTANCES[name]()
        if ":" not in name:
            raise SettingError(
                f"--importance {name!r} is unknown; take one of {', '.join(IMPORTANCES)}, reward, or your own, "
                "package.module:Name"
            )
        found = find_object("--importance", name)
        return found() if isinstance(found, type) else found


@dataclass(frozen=True)
class _RewardOfUnits:
    """``RewardDrop`` of the units that are removed; the reward asked for, or the validation score."""

    wish: Wish

    def scores(self, model: Any, masks: Masks, task: Any = None) -> Any:
        if self.wish.reward is None:
            reward = lambda pruned: task.evaluate(pruned, "validation").score  # noqa: E731
        else:
            reward = find_object("--reward", self.wish.reward)
        return RewardDrop(reward, self.wish.units(masks)).scores(model, masks, task)


Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """``make(wish, settings)`` gives the method, and how long each of its trainings is, as a share of all steps."""

    make: Callable[[Wish, Settings], tuple[Any, float]]
    scopes: tuple[str, ...] = (WEIGHTS,)
    untrained: bool = False
    """Whether it can do without a single gradient step."""
    sparsity: str = "needed"
    """``needed``; ``optional`` if the method can find by itself how much goes; ``none`` if it cannot be asked."""
    card: Any = field(default=None)
    """Where its taxonomy is; None: ``make``'s own."""


def _one_shot(wish: Wish, settings: Settings) -> tuple[Any, float]:
    share = 1.0 if wish.model.pretrained else 0.5
    common: dict[str, Any] = {"importance": wish.scored_by(), "pretrain": wish.pretrain, **settings}
    if wish.structured is not None:
        much: dict[str, Any] = {"density": None if wish.sparsity is None else wish.density, "macs": wish.macs}
        letter = LETTERS[wish.structured]
        removing: dict[str, Any] = {"round_to": wish.round_to, "tune": wish.steps > 0, "granularity": letter}
        return RemoveUnits(wish.units, wish.model.remove, **much, **removing, **common), share
    scope: Scope = Weights()
    allocation = wish.allocation
    if wish.pattern:
        scope, allocation = NofM(*wish.pattern), Uniform()
    elif wish.importance == "wanda":  # its scores compare inside an output row only
        scope, allocation = InRows(), Uniform()
    ways: dict[str, Any] = {"scope": scope, "allocation": allocation, "exclude": wish.exclude}
    ways |= {"retrain": "finetune" if wish.steps else "none", "finetune_rate": 1.0}
    return OneShot(wish.density, **{**ways, **common}), share


def _given(wish: Wish, settings: Settings) -> tuple[Any, float]:
    if wish.masks is None:
        raise SettingError("method given takes the masks of a file: --masks FILE")
    return GivenMasks(wish.masks, pretrain=wish.pretrain, tune=wish.steps > 0, **settings), (
        1.0 if wish.model.pretrained else 0.5
    )


def _gradual(cls: type, wish: Wish, settings: Settings) -> tuple[Any, float]:
    # Some eighty events a training, as the paper has: 1000 steps of some 80 000.
    events = {"update_every": max(1, round(wish.steps / 80))}
    return cls(density=wish.density, exclude=wish.exclude, **{**events, **settings}), 1.0


def _layer_by_layer(cls: type, wish: Wish, settings: Settings) -> tuple[Any, float]:
    n, m = wish.pattern or (0, 0)
    ways: dict[str, Any] = {"n": n, "m": m, "pretrain": wish.pretrain, "exclude": wish.exclude}
    return cls(wish.density, **{**ways, **settings}), 1.0


def _rounds(wish: Wish, settings: Settings) -> int:
    """A fifth of what is left in each, as the paper has, unless said otherwise."""
    return settings.get("rounds") or max(1, math.ceil(math.log(wish.density) / math.log(0.8) - 1e-9))


def _tickets(wish: Wish, settings: Settings) -> dict[str, Any]:
    rounds = _rounds(wish, settings)
    rates = 1 - wish.density ** (1 / rounds)
    return {"rates": rates, "scope": "global", "exclude": wish.exclude, **settings, "rounds": rounds}


def _lottery_ticket(wish: Wish, settings: Settings) -> tuple[Any, float]:
    found = _tickets(wish, settings)
    return LotteryTicket(**found), 1 / (found["rounds"] + 1)


def _imp_rewinding(wish: Wish, settings: Settings) -> tuple[Any, float]:
    """Back to 2 % of a training, of which there are ``rounds`` + 1, the first 2 % once only."""
    found = _tickets(wish, settings)
    share = 1 / (found["rounds"] + 1 - 0.02 * found["rounds"])
    return IMPRewinding(**{"rewind_to": round(0.02 * share * wish.steps), **found}), share


def _sap(wish: Wish, settings: Settings) -> tuple[Any, float]:
    density = {} if wish.sparsity is None else {"density": wish.density}
    method = SAP(**{"exclude": wish.exclude, **density, **settings})
    return method, 1 / (method.rounds + 1)


def _after_training(cls: type, wish: Wish, settings: Settings) -> tuple[Any, float]:
    """Half of the steps train the dense network, if it is not trained; the rest searches masks."""
    ways: dict[str, Any] = {"density": wish.density, "pretrain": wish.pretrain, "exclude": wish.exclude}
    return cls(**{**ways, **settings}), 1.0 if wish.model.pretrained else 0.5


def _layer_lottery(wish: Wish, settings: Settings) -> tuple[Any, float]:
    require(wish.macs is None, "--macs", wish.macs, "for one-shot; layers are counted: --sparsity")
    importance = {"importance": wish.scored_by()} if wish.importance else {}
    if "p" not in settings:
        require(wish.sparsity is not None, "--sparsity", wish.sparsity, "the share of the removable layers that go")
        blocks = removable_blocks(drawn(wish.model.build, 0), wish.model.task.example)
        p = round((wish.sparsity or 0) * len(blocks))
        require(p >= 1, "--sparsity", wish.sparsity, f"at least one of the {len(blocks)} layers that can be removed")
        settings = {**settings, "p": p}
    return LayerLottery(**{**importance, **settings}), 1.0


def _game(wish: Wish, settings: Settings) -> tuple[Any, float]:
    require(wish.macs is None, "--macs", wish.macs, "for one-shot; neurons are counted: --sparsity")
    return Game(**{"density": wish.density, "exclude": wish.exclude, **settings}), 1.0


def _consensus(wish: Wish, settings: Settings) -> tuple[Any, float]:
    require(wish.macs is None, "--macs", wish.macs, "for one-shot; blocks or channels are counted: --sparsity")
    units = "blocks" if wish.structured == "layers" else "channels"
    ways: dict[str, Any] = {"target": wish.density, "exact": True, "units": units, "exclude": wish.exclude}
    if not isinstance(wish.model.task, Examples):
        ways["batches"] = 50
    return Consensus(**{**ways, **settings}), 1.0


CHOICES: dict[str, Choice] = {
    "one-shot": Choice(_one_shot, (WEIGHTS, PATTERN, *LETTERS), untrained=True, card=OneShot()),
    "wanda": Choice(partial(_layer_by_layer, Wanda), (WEIGHTS, PATTERN), untrained=True, card=Wanda()),
    "sparse-gpt": Choice(partial(_layer_by_layer, SparseGPT), (WEIGHTS, PATTERN), untrained=True, card=SparseGPT()),
    "given": Choice(_given, untrained=True, sparsity="none", card=GivenMasks),
    "gmp": Choice(partial(_gradual, GMP), card=GMP),
    "granet": Choice(partial(_gradual, GraNet), card=GraNet),
    "rigl": Choice(partial(_gradual, RigL), card=RigL),
    "set": Choice(partial(_gradual, SET), card=SET),
    "lottery-ticket": Choice(_lottery_ticket, card=LotteryTicket),
    "imp-rewinding": Choice(_imp_rewinding, card=IMPRewinding),
    "sap": Choice(_sap, sparsity="optional", card=SAP),
    "bip": Choice(partial(_after_training, BiP), card=BiP),
    "jackpots": Choice(partial(_after_training, Jackpots), card=Jackpots),
    "layer-lottery": Choice(_layer_lottery, ("layers",), card=LayerLottery),
    "game": Choice(_game, ("channels",), card=Game),
    "consensus": Choice(_consensus, ("layers", "channels"), card=Consensus()),
}


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """A method's name and settings, as in ``granet:update_every=25``; values are JSON, or else strings."""
    name, *changes = text.split(":")
    if name not in CHOICES:
        raise SettingError(f"method {name!r} is unknown; take one of {', '.join(CHOICES)} (prunus sparsify --list)")
    return name, read_settings(changes, f"method {text!r}", "name:field=value")


def check(name: str, wish: Wish) -> None:
    """SettingError for what the method cannot do; nothing is built or trained for it."""
    choice = CHOICES[name]
    if wish.scope not in choice.scopes:
        able = [other for other, c in CHOICES.items() if wish.scope in c.scopes]
        raise SettingError(
            f"{name} prunes {', '.join(choice.scopes)}, not {wish.scope}; for {wish.scope} take {', '.join(able)}"
        )
    if wish.structured and wish.structured not in wish.model.unit_kinds():
        kinds = ", ".join(wish.model.unit_kinds()) or "none"
        raise SettingError(f"--structured {wish.structured}: this {wish.model.kind} model has {kinds}")
    if wish.steps == 0 and not (choice.untrained and wish.model.pretrained):
        why = "the model's weights are not trained" if choice.untrained else f"{name} prunes while it trains"
        raise SettingError(f"--steps 0, but {why}; give it gradient steps, --steps 1000 or more")
    require(
        wish.structured is not None or wish.macs is None, "--macs", wish.macs, "with --structured; else say --sparsity"
    )
    if choice.sparsity == "none":
        require(wish.sparsity is None, "--sparsity", wish.sparsity, f"left out: {name} says itself how much goes")
    elif wish.pattern is None and not (choice.sparsity == "optional" and wish.sparsity is None):
        given = [value for value in (wish.sparsity, wish.macs) if value is not None]
        require(len(given) == 1, "--sparsity, --macs", (wish.sparsity, wish.macs), "one of them, above 0 and below 1")
        require(0 < given[0] < 1, "--sparsity" if wish.macs is None else "--macs", given[0], "above 0 and below 1")


def arm(text: str, wish: Wish) -> Arm:
    """The method that ``text`` names, made for ``wish``. Raises SettingError."""
    name, settings = parse(text)
    check(name, wish)
    if isinstance(shares := settings.get("allocation"), str):
        require(shares in ALLOCATIONS, f"allocation of {name}", shares, f"one of {', '.join(ALLOCATIONS)}")
        settings["allocation"] = ALLOCATIONS[shares]
    try:
        method, share = CHOICES[name].make(wish, settings)
    except TypeError as error:
        raise SettingError(f"method {text!r}: {error}") from None
    label = f"{text} {wish.importance}" if wish.importance and name == "one-shot" else text
    return Arm(label, method, share)
