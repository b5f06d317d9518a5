"""Units removed for good, once: score them, take the lowest out, train what is left. The network is really smaller.

The structured baseline of every table, and how channels, heads or layers of a user's model are pruned: nothing is
searched, any importance ranks. What the units are and how they are taken out is the model's: ``scope.channels`` with
``removal.remove_channels``, or what a ``models.Prunable`` says.

As many units stay as ``density`` says, or, with ``macs``, as many as that share of the multiply-adds allows, found by
halving; never more. With ``Uniform`` every group (layer) of equal size keeps the same number, a multiple of
``round_to`` (16: odd widths can be slower than wider even ones); ``Global`` ranks over layers, for scores that compare
between them (SNIP, Taylor).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from prunus.errors import ModelError, SettingError, require
from prunus.sparse.allocation import Allocation, Uniform
from prunus.sparse.importance import Importance, Magnitude, Scores
from prunus.sparse.macs import macs
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.scope import Units
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, pretrained, train


@dataclass(frozen=True)
class RemoveUnits:
    """``units`` says what the units of some masks are, ``remove`` gives a smaller copy without those wholly pruned.

    ``pretrain`` as in ``OneShot``, if ``at`` is "trained". ``tune``: train after removal, at the recipe's rates.
    ``granularity`` is the taxonomy's letter for the units (N neurons, H heads, L layers).
    """

    units: Callable[[Masks], Units]
    remove: Callable[[nn.Module, Masks], nn.Module]
    density: float | None = None
    macs: float | None = None
    importance: Importance = field(default_factory=Magnitude)
    allocation: Allocation = field(default_factory=Uniform)
    round_to: int = 1
    at: str = "trained"
    pretrain: int | None = None
    tune: bool = True
    granularity: str = "N"

    card: ClassVar[MethodCard] = MethodCard(
        "removing units",
        "baseline",
        frozenset({"structured"}),
        "after_training",
        criteria=frozenset({"magnitude"}),
        granularity=frozenset({"N"}),
        kind=frozenset({"train_prune_finetune"}),
        retrain="finetune",
    )

    def __post_init__(self) -> None:
        if (self.density is None) == (self.macs is None):
            raise SettingError("say how much stays by density (of the units) or by macs (of the multiply-adds), by one")
        for name in ("density", "macs"):
            value = getattr(self, name)
            require(value is None or 0 < value < 1, name, value, "above 0 and below 1 (the share kept)")
        require(self.round_to >= 1, "round_to", self.round_to, "at least 1")
        require(self.at in ("init", "trained"), "at", self.at, "init or trained")
        require(self.pretrain is None or self.pretrain >= 0, "pretrain", self.pretrain, "at least 0 steps")

    @property
    def taxonomy(self) -> MethodCard:
        own = replace(
            self.card,
            criteria=frozenset({getattr(self.importance, "criterion", "sensitivity")}),
            data=getattr(self.importance, "data", "driven"),
            granularity=frozenset({self.granularity}),
            scope="local" if isinstance(self.allocation, Uniform) else "global",
        )
        if self.at == "trained":
            return own
        return replace(own, when="before_training", weights="init", retrain="none", kind=frozenset())

    def smaller(self, model: nn.Module, task: Task) -> nn.Module:
        """The smaller copy of ``model``, not trained on. SettingError if not even the fewest units are few enough."""
        masks = Masks.of(model)
        scores = self.importance.scores(model, masks, task)
        units = self.units(masks)
        sizes = [len(group) for group in units.groups.values()]
        equal = isinstance(self.allocation, Uniform) and len(set(sizes)) == 1
        step = (len(sizes) if equal else 1) * self.round_to
        most = sum(sizes) // step

        def at_most(count: int) -> tuple[int, nn.Module]:
            """The largest number up to ``count`` that the model's format can say (heads may have to divide a width)."""
            for fewer in range(count, 1, -1):
                with suppress(ModelError):
                    return fewer, self.remove(model, self.kept(units, scores, masks, fewer * step))
            return 1, self.remove(model, self.kept(units, scores, masks, step))

        if self.density is not None:
            count = int(self.density * sum(sizes) / step + 1e-9)
            require(count >= 1, "density", self.density, f"enough for {step} of the {sum(sizes)} units")
            return at_most(count)[1]
        assert self.macs is not None
        allowed = self.macs * macs(model, task.example) * (1 + 1e-9)  # a share that was worked out is met exactly
        low, high, best = 0, most, None  # so many fit, so many do not
        while high - low > 1:
            middle = (low + high) // 2
            count, small = at_most(middle)
            if macs(small, task.example) > allowed:
                high = count
            else:
                low, best = middle, small
        if best is None:
            raise SettingError(
                f"even {step} of the {sum(sizes)} units leave more than macs = {self.macs} of the multiply-adds; "
                "other kinds of units have to go too, or ask for more"
            )
        return best

    def kept(self, units: Units, scores: Scores, masks: Masks, count: int) -> Masks:
        """``count`` units stay."""
        total = sum(len(group) for group in units.groups.values())
        return units.select(scores, masks, count / total, self.allocation)

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model, steps = drawn(build, seed), 0
        if self.at == "trained":
            steps += pretrained(model, task, recipe, self.pretrain, seed)
        model = self.smaller(model, task)
        if self.tune:
            steps += train(model, task, recipe, order=mixed_seed(seed, 1), every=every).steps
        return Sparsified(model, None, steps, [Level(None, task.evaluate(model, "validation"), steps)])
