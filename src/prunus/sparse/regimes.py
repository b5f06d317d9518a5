"""Three regimes of pruning: should the dense network be trained hotter or colder? (card 39, arXiv 2305.18383)

Load is the density wanted: lower is more. *Temperature* is a setting of the **dense** training that keeps it restless:
fewer steps (the schedule is cut there, not shortened), a smaller batch at as many steps, a larger learning rate. Each
dense network is pruned and retrained twice or more, with the same masks and other data orders; then

    regime I      LMC < -eps               the retrained networks lie in different valleys: train hotter
    regime II-A   connected, CKA < cut     one valley, outputs still differ
    regime II-B   connected, CKA >= cut    one valley, outputs alike: from II-A one gets there by training colder

with LMC on training data (``connectivity.py``) and CKA of outputs (``similarity.py``). It is a diagnosis of the dense
training, over any pruning method: by default magnitude, once, the same density in each layer, the output layer spared.

The three regimes and the moves between them are the paper's. **The decision rule is inferred** from its captions and
the names of its algorithms: the thresholds (eps 2 % of error, the convention for instability; a cut of CKA, which
depends on the task), stopping where a move has been tried and was no better, and how ``select`` orders models.

The published retraining looks at the test split; here all choices are made on validation. It averages the error of the
last five epochs; here it is the error at the end, averaged over retrainings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any

from torch import nn

from prunus.errors import SettingError, require
from prunus.sparse.allocation import Uniform
from prunus.sparse.connectivity import lmc
from prunus.sparse.masks import Masks
from prunus.sparse.methods.one_shot import OneShot
from prunus.sparse.methods.result import Build
from prunus.sparse.networks import drawn
from prunus.sparse.similarity import output_cka
from prunus.sparse.table import Method
from prunus.sparse.task import Examples, Task, mixed_seed
from prunus.sparse.training import Recipe, train

HOTTER = {"steps": -1, "batch_size": -1, "learning_rate": +1}
"""A knob -> the sign of what makes it hotter."""
EPS_LMC, CKA_CUT = 0.02, 0.95


@dataclass(frozen=True)
class Temperature:
    """One setting of a knob of the dense training: ``steps``, ``batch_size`` or ``learning_rate``."""

    knob: str
    value: float

    def __post_init__(self) -> None:
        require(self.knob in HOTTER, "knob", self.knob, ", ".join(HOTTER))
        require(self.value > 0, self.knob, self.value, "positive")
        whole = self.knob == "learning_rate" or self.value == int(self.value)
        require(whole, self.knob, self.value, "a whole number")

    @property
    def heat(self) -> float:
        """Larger is hotter; comparable only between settings of one knob."""
        return HOTTER[self.knob] * self.value


def temperatures(knob: str, values: Iterable[float]) -> list[Temperature]:
    """Settings of one knob, the hottest first."""
    return sorted((Temperature(knob, value) for value in values), key=lambda t: -t.heat)


@dataclass(frozen=True)
class Row:
    """A place in the plane of density and temperature: the retrained networks' mean error on validation, the mean LMC
    and CKA of their pairs, and the gradient steps that it took, those of the dense network included."""

    density: float
    temperature: Temperature
    error: float
    lmc: float
    cka: float
    steps: int
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Flat, for tables: the knob's name and value stand for the temperature."""
        return {**asdict(self), "temperature": self.temperature.value, "knob": self.temperature.knob}


def regime(lmc: float, cka: float, eps: float = EPS_LMC, cut: float = CKA_CUT) -> str:
    """``I``, ``II-A`` or ``II-B``. ``eps`` is a share of error; ``cut`` depends on the task (both inferred)."""
    require(eps >= 0, "eps", eps, "at least 0")
    if lmc < -eps:
        return "I"
    return "II-B" if cka >= cut else "II-A"


def one_shot(masks: Masks) -> Callable[[float], Method]:
    """The paper's pruning of a trained network: magnitude, once, uniform, the last of ``masks`` (the output) spared."""
    spared = (list(masks)[-1],) if len(masks) > 1 else ()
    return lambda density: OneShot(density, allocation=Uniform(), retrain="none", pretrain=0, exclude=spared)


def sweep(
    build: Build,
    task: Task,
    recipe: Recipe,
    temperatures: Sequence[Temperature],
    densities: Sequence[float],
    retrain_seeds: Sequence[int] = (1, 2),
    *,
    seed: int = 0,
    retrain: Recipe | None = None,
    method: Callable[[float], Method] | None = None,
    inputs: Any | None = None,
    on: str = "softmax",
    metric: str = "error",
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """A row for each temperature, hottest first, and each density, in their order.

    ``recipe`` trains the dense network of ``seed``, but for the temperature's knob; ``retrain`` (default: the same
    recipe) the pruned ones, one for each of ``retrain_seeds`` (two or more). ``method(density)`` prunes a network that
    is trained already and may train it further; it must not retrain to the end by itself. ``inputs`` are what CKA
    compares outputs for (default: those of the training examples). Raises SettingError if they cannot be had, or for
    temperatures of different knobs or too many steps.
    """
    require(
        len(set(retrain_seeds)) == len(retrain_seeds) >= 2, "retrain_seeds", retrain_seeds, "two or more that differ"
    )
    knobs = {t.knob for t in temperatures}
    require(len(knobs) == 1, "temperatures", sorted(knobs), "one or more settings, all of one knob")
    if inputs is None:
        if not isinstance(task, Examples):
            raise SettingError(f"give inputs: a {type(task).__name__} does not say what outputs to compare by CKA")
        inputs = task.train[0]
    method = method or one_shot(Masks.of(drawn(build, seed)))
    rows = []
    for temperature, dense, dense_steps in _dense(build, task, recipe, temperatures, seed):
        for density in densities:
            found = method(density).run(partial(copy.deepcopy, dense), task, recipe, seed=seed)
            if found.masks is None:
                raise SettingError("the regimes are those of masks; a method that removes units has no shared line")
            networks, steps = [], dense_steps + found.steps
            for again in retrain_seeds:
                network = copy.deepcopy(found.model)
                order = mixed_seed(seed, 1, again)
                steps += train(network, task, retrain or recipe, order=order, masks=found.masks).steps
                networks.append(network)
            pairs = list(combinations(networks, 2))
            row = Row(
                density,
                temperature,
                fmean(1 - task.evaluate(network, "validation").score for network in networks),
                fmean(lmc(a, b, task, metric=metric, masks=found.masks).value for a, b in pairs),
                fmean(output_cka(a, b, inputs, on) for a, b in pairs),
                steps,
                seed,
            )
            rows.append(row)
            place = f"{temperature.knob} {temperature.value:g}, density {density:g}"
            say(f"{place}: error {row.error:.3f}, LMC {row.lmc:+.3f}, CKA {row.cka:.3f}")
    return rows


def _dense(
    build: Build, task: Task, recipe: Recipe, temperatures: Sequence[Temperature], seed: int
) -> Iterator[tuple[Temperature, nn.Module, int]]:
    """(temperature, the dense network, its steps), hottest first. Cuts of the steps are states of one training."""
    hottest_first = sorted(temperatures, key=lambda t: -t.heat)
    if hottest_first[0].knob == "steps":
        most = int(hottest_first[-1].value)
        require(most <= recipe.steps, "steps", most, f"at most the recipe's {recipe.steps}: its schedule is cut there")
        model, done = drawn(build, seed), 0
        optimiser = recipe.optimiser_of(model.parameters())
        for temperature in hottest_first:
            cut = int(temperature.value)
            train(model, task, recipe, order=seed, start=done, stop=cut, optimiser=optimiser)
            done = cut
            yield temperature, model, done
        return
    for temperature in hottest_first:
        used: tuple[Task, Recipe] = task, replace(recipe, learning_rate=temperature.value)
        if temperature.knob == "batch_size":
            if not isinstance(task, Examples):
                raise SettingError(
                    f"batch_size is a temperature of Examples; a {type(task).__name__} has its own batches"
                )
            used = replace(task, batch_size=int(temperature.value)), recipe
        model = drawn(build, seed)
        yield temperature, model, train(model, *used, order=seed).steps


def _at(rows: Iterable[Row], density: float) -> list[Row]:
    """The rows of a density, those of several seeds averaged, hottest first."""
    rows = list(rows)
    groups: dict[Temperature, list[Row]] = {}
    for row in rows:
        if row.density == density:
            groups.setdefault(row.temperature, []).append(row)
    if not groups:
        raise SettingError(f"no row has density {density}; there are {sorted({row.density for row in rows})}")
    means = [
        Row(
            density,
            temperature,
            fmean(row.error for row in some),
            fmean(row.lmc for row in some),
            fmean(row.cka for row in some),
            sum(row.steps for row in some),
        )
        for temperature, some in groups.items()
    ]
    return sorted(means, key=lambda row: -row.temperature.heat)


def _badness(row: Row, by: str) -> float:
    require(by in ("error", "cka"), "by", by, "error or cka")
    return row.error if by == "error" else 1 - row.cka


def advise(
    rows: Iterable[Row], density: float, *, at: Temperature | None = None, by: str = "error", eps: float = EPS_LMC
) -> str:
    """``raise``, ``lower`` or ``keep`` the temperature, from what has been tried (inferred).

    ``at`` is where you are (default: the temperature of the last row of that density). In regime I raise it, else lower
    it; but keep it if the next temperature that way was tried and was no better by validation ``error`` (or by ``cka``,
    which needs no labels), or leads from connected networks back to regime I.
    """
    rows = list(rows)
    tried = _at(rows, density)
    at = at or [row for row in rows if row.density == density][-1].temperature
    place = next((i for i, row in enumerate(tried) if row.temperature == at), None)
    if place is None:
        raise SettingError(f"at = {at} was not tried at density {density}")
    here = tried[place]
    barrier = here.lmc < -eps
    beside = tried[place - 1 : place] if barrier else tried[place + 1 : place + 2]
    for row in beside:
        back = not barrier and row.lmc < -eps
        if back or _badness(row, by) >= _badness(here, by):
            return "keep"
    return "raise" if barrier else "lower"


def select(rows: Iterable[Row], density: float, *, by: str = "error", eps: float = EPS_LMC) -> Row:
    """Which dense model to prune to ``density`` (inferred from Algorithms 2, by ``error``, and 2.1, by ``cka``).

    Those with a barrier are out; of the rest the one with the smallest validation error, or the largest CKA, which
    needs no labels. If all have one, that with the smallest barrier.
    """
    tried = _at(rows, density)
    connected = [row for row in tried if row.lmc >= -eps]
    if not connected:
        return max(tried, key=lambda row: row.lmc)
    return min(connected, key=lambda row: _badness(row, by))
