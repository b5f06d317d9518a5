"""Transfer pruning: find the mask on one task, train it on another (card 46, pair P6, inferred from its section list).

Is a mask worth anything where it was not found? Pruned on B and trained on B, against pruned on A and trained on B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prunus.errors import require
from prunus.sparse.allocation import Uniform
from prunus.sparse.masks import Masks
from prunus.sparse.methods import OneShot
from prunus.sparse.methods.result import Build, Level, Sparsified
from prunus.sparse.networks import drawn
from prunus.sparse.table import Arm
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.taxonomy import MethodCard
from prunus.sparse.training import Recipe, constant, train


@dataclass(frozen=True)
class Transferred:
    """Prune by ``method`` on ``source``; then train on the task that ``run`` is given (card 46, P6).

    If the method fine-tunes, its pruned weights go along; if it rewinds, only the mask does, onto the initial weights.
    Steps are those that the method takes on one task.
    """

    source: Task
    method: OneShot

    def __post_init__(self) -> None:
        able = self.method.at == "trained" and self.method.retrain in ("finetune", "rewind")
        require(able, "method", self.method, "one-shot pruning after training, with retrain finetune or rewind")

    @property
    def taxonomy(self) -> MethodCard:
        return self.method.taxonomy

    def run(self, build: Build, task: Task, recipe: Recipe, *, seed: int = 0, every: int = 0) -> Sparsified:
        found = replace(self.method, retrain="none").run(build, self.source, recipe, seed=seed)
        assert found.masks is not None
        if self.method.retrain == "rewind":
            model, tune = drawn(build, seed), recipe
        else:
            rate, steps = recipe.learning_rate * self.method.finetune_rate, self.method.finetune_steps or recipe.steps
            model, tune = found.model, replace(recipe, steps=steps, learning_rate=rate, decay=constant)
        done = train(model, task, tune, order=mixed_seed(seed, 1), masks=found.masks, every=every)
        all_steps = found.steps + done.steps
        level = Level(found.masks, task.evaluate(model, "validation"), all_steps)
        return Sparsified(model, found.masks, all_steps, [level])


def transfer_pairs(build: Build, source: Task, density: float) -> dict[str, tuple[Arm, Arm]]:
    """P6 for a network as ``standard_pairs`` takes: pruned on the task that is measured, or on ``source``. Twice: with
    the weights going along, and the mask alone, where both arms train the same initial weights equally long."""
    output = list(Masks.of(drawn(build, 0)))[-1]
    shot = OneShot(density, allocation=Uniform(), finetune_rate=1.0, exclude=(output,))
    versions = {"P6": shot, "P6, mask alone": replace(shot, retrain="rewind")}
    return {
        name: (Arm("original task", method), Arm("transfer", Transferred(source, method)))
        for name, method in versions.items()
    }
