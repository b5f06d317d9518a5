"""Channels removed for good, once: score them, take the lowest out along the dependency graph, train what is left.

The structured baseline of every table: nothing is searched, any importance ranks. ``layers`` (shell patterns) name the
weights whose rows, filters or neurons, may go: if none is named all but the model's last, which is taken to be its
output. What is added to other channels, as at the end of residual blocks, must not be among them. As many rows are kept
as ``macs`` allows, found by halving, or as many as ``kept`` says. A row's score is the norm, sum or mean of those of
its weights. With ``Uniform`` every layer keeps the same share, so that the widths do not depend on the scores;
``Global`` ranks over layers, for scores that compare between them (SNIP, Taylor).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from prunus.errors import SettingError, require
from prunus.sparse.allocation import Allocation, Uniform
from prunus.sparse.importance import Importance, Magnitude
from prunus.sparse.macs import macs
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.removal import remove_channels
from prunus.sparse.scope import channels
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, pretrained, train


@dataclass(frozen=True)
class Channels:
    """``macs``: the share of multiply-adds kept, at most. ``kept``: how many rows of ``layers`` stay in all; it decides
    if it is given. ``pretrain`` as in ``OneShot``, if ``at`` is "trained"; both trainings have the recipe's rates."""

    layers: tuple[str, ...] = ()
    macs: float = 0.5
    kept: int | None = None
    importance: Importance = field(default_factory=Magnitude)
    allocation: Allocation = field(default_factory=Uniform)
    reduce: str = "norm"
    at: str = "trained"
    pretrain: int | None = None

    card: ClassVar[MethodCard] = MethodCard(
        "channels",
        "baseline",
        frozenset({"structured"}),
        "after_training",
        criteria=frozenset({"magnitude"}),
        granularity=frozenset({"N"}),
        kind=frozenset({"train_prune_finetune"}),
        retrain="finetune",
    )

    def __post_init__(self) -> None:
        require(0 < self.macs < 1, "macs", self.macs, "above 0 and below 1 (the share kept)")
        require(self.kept is None or self.kept >= 1, "kept", self.kept, "at least 1 row")
        require(self.at in ("init", "trained"), "at", self.at, "init or trained")
        require(self.pretrain is None or self.pretrain >= 0, "pretrain", self.pretrain, "at least 0 steps")

    @property
    def taxonomy(self) -> MethodCard:
        own = replace(
            self.card,
            criteria=frozenset({getattr(self.importance, "criterion", "sensitivity")}),
            data=getattr(self.importance, "data", "driven"),
            scope="local" if isinstance(self.allocation, Uniform) else "global",
        )
        if self.at == "trained":
            return own
        return replace(own, when="before_training", weights="init", retrain="none", kind=frozenset())

    def remove(self, model: nn.Module, task: Task) -> nn.Module:
        """The smaller copy of ``model``. Raises SettingError if not even one row a layer is few enough."""
        masks = Masks.of(model)
        rows = channels(masks, self.layers or list(masks)[:-1], self.reduce)
        scores = self.importance.scores(model, masks, task)
        total, least = sum(map(len, rows.groups.values())), len(rows.groups)

        def smaller(count: int) -> nn.Module:
            return remove_channels(model, rows.select(scores, masks, count / total, self.allocation), task.example)

        if self.kept is not None:
            require(least <= self.kept <= total, "kept", self.kept, f"from {least} to {total} rows")
            return smaller(self.kept)
        most = self.macs * macs(model, task.example)
        low, high = least, total  # fits or is the least there is; does not fit
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if macs(smaller(middle), task.example) <= most else (low, middle)
        found = smaller(low)
        if macs(found, task.example) > most:
            raise SettingError(
                f"one row in each of {', '.join(rows.groups)} still leaves more than macs = {self.macs} of the "
                "multiply-adds; name more layers, or ask for more"
            )
        return found

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        model, steps = drawn(build, seed), 0
        if self.at == "trained":
            steps += pretrained(model, task, recipe, self.pretrain, seed)
        model = self.remove(model, task)
        steps += train(model, task, recipe, order=mixed_seed(seed, 1), every=every).steps
        return Sparsified(model, None, steps, [Level(None, task.evaluate(model, "validation"), steps)])
