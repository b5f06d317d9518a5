"""GraNet: gradual magnitude pruning with zero-cost neuroregeneration (card 25, arXiv 2106.10404).

After every optimiser step pruned weights and their optimiser state are zero. Every ``update_every`` steps:

 a) inside the pruning window one threshold over all layers keeps d_t = d_f + (d_i - d_f)(1 - progress)^3 of the
    weights;
 b) in each layer the r_t n smallest kept weights make room for the inactive weights with the largest |gradient| of
    the current batch, which start at zero; r_t falls from .5 to .005 by half a cosine over the whole training.

``initial_density`` 1 is dense-to-sparse, below 1 sparse-to-sparse from random ERK masks. ``GMP`` (a only), ``RigL``
and ``SET`` (b only, gradients or at random) are the same composition with other parts. GMP is the baseline that GraNet
must be shown beside: on digits the two tie.

Mended against the published code: the last event hits the target exactly (there it stops one event before), exactly
round(d N) weights are kept (there k - 1), a floor of one weight a layer, and nothing regrows after the last step, which
no training follows. A weight that is dropped and regrown in one event keeps its value, as published (``dropped``). The
published option to grow by momentum is left out: pruned weights have none, their optimiser state is held at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import nn

from prunus.errors import require
from prunus.sparse.allocation import ERK, Allocation, Global
from prunus.sparse.holding import Hold
from prunus.sparse.importance import Magnitude, Random
from prunus.sparse.masks import Masks
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.prune import prune
from prunus.sparse.regrow import DROPPED, annealed, random_growth, regrow
from prunus.sparse.schedule import Cyclic
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, train


@dataclass(frozen=True)
class GraNet:
    """``window`` and ``regrow_until`` are shares of the training; the paper's window is 80 or 110 of 160 epochs.

    ``cycles`` > 1 runs through the schedule so often in the window; each begins again at ``initial_density``, with what
    was pruned at zero (``GMP(cycles=4)``: cyclical pruning, arXiv 2202.01290).
    ``update_every`` is 1000 steps of some 80 000 in the paper: long enough for new weights to grow, or the next event
    removes them first.
    """

    density: float = 0.05
    initial_density: float = 1.0
    update_every: int = 1000
    window: tuple[float, float] = (0.0, 0.5)
    regrow_rate: float = 0.5
    regrow_floor: float = 0.005
    regrow_until: float = 1.0
    growth: str = "gradient"
    dropped: str = "keep"
    allocation: Allocation = field(default_factory=Global)
    cycles: int = 1
    exclude: tuple[str, ...] = ()

    card: ClassVar[MethodCard] = MethodCard(
        "GraNet",
        "25",
        frozenset({"unstructured"}),
        "during_training",
        criteria=frozenset({"magnitude", "sensitivity"}),
        iterative=True,
        data="driven",
        weights="init",
        retrain="none",
        scope="global",
        kind=frozenset({"dynamic_sparse_training"}),
    )

    def __post_init__(self) -> None:
        start, end = self.window
        require(0 < self.density < 1, "density", self.density, "above 0 and below 1")
        require(self.density <= self.initial_density <= 1, "initial_density", self.initial_density, "from density to 1")
        require(self.update_every >= 1, "update_every", self.update_every, "at least 1 step")
        require(0 <= start < end <= 1, "window", self.window, "two shares of the training, the first smaller")
        require(0 <= self.regrow_rate <= 1, "regrow_rate", self.regrow_rate, "from 0 to 1")
        require(0 <= self.regrow_floor <= 1, "regrow_floor", self.regrow_floor, "from 0 to 1")
        require(0 <= self.regrow_until <= 1, "regrow_until", self.regrow_until, "a share of the training")
        require(self.growth in ("gradient", "random"), "growth", self.growth, "gradient or random")
        require(self.cycles >= 1, "cycles", self.cycles, "at least 1")
        require(self.dropped in DROPPED, "dropped", self.dropped, ", ".join(DROPPED))

    @property
    def taxonomy(self) -> MethodCard:
        layered = self.initial_density == self.density or not isinstance(self.allocation, Global)
        return replace(self.card, scope="local" if layered else "global")

    def first_masks(self, model: nn.Module, seed: int) -> Masks:
        """All kept, or random ERK masks of ``initial_density``."""
        masks = Masks.of(model, self.exclude)
        if self.initial_density == 1:
            return masks
        return prune(model, masks, self.initial_density, Random(seed), ERK())

    def events(self, model: nn.Module, total: int, seed: int) -> Callable[[int, Hold], None]:
        """What ``train`` calls after each step."""
        start, end = (round(share * total) for share in self.window)

        def event(step: int, hold: Hold) -> None:
            if step % self.update_every and step != end:
                return
            if start <= step <= end:
                schedule = Cyclic(self.cycles, self.initial_density)
                wanted = schedule.density((step - start) / (end - start), self.density)
                more = round(wanted * hold.masks.total) - hold.masks.kept
                if more < 0 or (more > 0 and self.cycles > 1):
                    among = hold.masks if more < 0 else Masks.of(model, self.exclude)
                    hold.masks = prune(model, among, wanted, Magnitude(), self.allocation)
            if self.regrow_rate and step <= self.regrow_until * total and step < total:
                rate = annealed(step / (self.regrow_until * total), self.regrow_rate, self.regrow_floor)
                weights = hold.masks.weights(model)
                growth = (
                    {name: w.grad for name, w in weights.items() if w.grad is not None}
                    if self.growth == "gradient"
                    else random_growth(hold.masks, mixed_seed(seed, step))
                )
                found = regrow(weights, hold.masks, growth, rate, self.dropped)
                hold.masks = found.masks
                for name, grown in found.grown.items():
                    hold.reset(name, grown)

        return event

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        require(
            self.update_every <= recipe.steps, "update_every", self.update_every, f"at most the {recipe.steps} steps"
        )
        model = drawn(build, seed)
        masks, event = self.first_masks(model, seed), self.events(model, recipe.steps, seed)
        masks.apply(model)
        done = train(model, task, recipe, order=seed, masks=masks, every=every, after_step=event)
        level = Level(done.masks, task.evaluate(model, "validation"), done.steps)
        return Sparsified(model, done.masks, done.steps, [level])


@dataclass(frozen=True)
class GMP(GraNet):
    """Plain gradual magnitude pruning (arXiv 1710.01878): no regeneration."""

    regrow_rate: float = 0.0

    card: ClassVar[MethodCard] = replace(
        GraNet.card,
        name="GMP",
        paper="25 (baseline)",
        criteria=frozenset({"magnitude"}),
        data="free",
        kind=frozenset(),
    )


@dataclass(frozen=True)
class RigL(GraNet):
    """RigL (arXiv 1911.11134): ERK masks of the final density from the start; .3 falls to 0 over three quarters."""

    initial_density: float = field(init=False, default=1.0)
    regrow_rate: float = 0.3
    regrow_floor: float = 0.0
    regrow_until: float = 0.75
    update_every: int = 100
    dropped: str = "zero"

    card: ClassVar[MethodCard] = replace(GraNet.card, name="RigL", paper="25 (baseline)")

    def __post_init__(self) -> None:
        object.__setattr__(self, "initial_density", self.density)
        super().__post_init__()


@dataclass(frozen=True)
class SET(RigL):
    """SET (arXiv 1707.04780), as RigL but growing at random."""

    growth: str = "random"

    card: ClassVar[MethodCard] = replace(RigL.card, name="SET", criteria=frozenset({"magnitude"}), data="free")
