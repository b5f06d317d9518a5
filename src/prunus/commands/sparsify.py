"""``prunus sparsify``: prune a network by a published method, with the baselines that it has to beat, and write it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from prunus import __version__
from prunus.commands.display import Show, Trainings
from prunus.commands.output import Interrupted, Output, write_json
from prunus.commands.sparse_methods import Wish, arm, parse
from prunus.commands.sparsify_job import SparsifyJob
from prunus.errors import FileError, SettingError
from prunus.sparse.allocation import Uniform
from prunus.sparse.importance import Magnitude, Random
from prunus.sparse.journal import Journal
from prunus.sparse.macs import LayerCost, layer_costs, macs, parameters
from prunus.sparse.masks import Masks
from prunus.sparse.methods import LayerLottery, OneShot, Sparsified
from prunus.sparse.methods.layer_lottery import drop_blocks, lowest, removable_blocks, score_blocks
from prunus.sparse.methods.remove_units import RemoveUnits
from prunus.sparse.models import Prunable
from prunus.sparse.networks import drawn
from prunus.sparse.prune import prune
from prunus.sparse.sensitivity import DENSITIES, sensitivity
from prunus.sparse.table import Arm, Dense, Line, run_arms
from prunus.sparse.task import Task, mixed_seed
from prunus.sparse.torch_prune import save_torch_prune

JOURNAL, LEVELS, PLOT = "journal", "levels", "accuracy.png"


def sparsify(job: SparsifyJob, *, out: Path | None, resume: Path | None, force: bool, show: Show) -> dict[str, Any]:
    """Do the job, or go on with that of ``resume``; returns what is written to ``result.json``."""
    if resume is not None:
        job, out = SparsifyJob.load(resume), resume
        if (resume / "result.json").exists():
            show.say(f"{resume} is finished already")
            return json.loads((resume / "result.json").read_text())
    output = Output(out, force, kind="sparsify")
    output.claimed = resume is not None
    with output:
        show.say(f"loading {job.model}")
        model = job.prunable()
        wishes = job.wishes(model)
        arms = {level: arm(job.method, wish) for level, wish in wishes.items()}  # errors before any training
        if force:
            _clear(output.folder)
        output.claim(asdict(job) | {"kind": "sparsify", "prunus": __version__})
        run = _Run(job, model, output.folder, show)
        try:
            levels = [run.level(name, arms[name], wish) for name, wish in wishes.items()]
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; go on with prunus sparsify --resume {output.folder}") from None
        about = {"prunus": __version__, "folder": str(output.folder), "score": getattr(model.task, "measures", "score")}
        result = {"job": asdict(job), **about, "levels": levels}
        if model.pretrained and job.baselines:
            result["note"] = "no scratch lines: the model came trained, and how long it was trained is not known"
        if len(levels) > 1:
            draw(levels, output.folder / PLOT)
            result["plot"] = str(output.folder / PLOT)
        write_json(output.folder / "result.json", result)
        shutil.rmtree(output.folder / JOURNAL, ignore_errors=True)
        return result


def _clear(folder: Path) -> None:
    """Remove what an older run left. Only what this command makes."""
    for name in (JOURNAL, LEVELS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for place in [folder / "model", *folder.glob("sparsity-*"), *folder.glob("macs-*")]:
        shutil.rmtree(place, ignore_errors=True)
    (folder / "result.json").unlink(missing_ok=True)


@dataclass
class _Run:
    job: SparsifyJob
    model: Prunable
    folder: Path
    show: Show
    dense: dict[str, Line] = field(default_factory=dict)
    """The dense network's line, which all levels share."""

    def level(self, name: str, method: Arm, wish: Wish) -> dict[str, Any]:
        """Prune to one level: the lines of the table, the best seed's network written, and what each layer keeps."""
        done = self.folder / LEVELS / f"{name}.json"
        if done.exists():
            return json.loads(done.read_text())
        best: dict[str, Sparsified] = {}
        seeds = range(self.job.seed, self.job.seed + self.job.seeds)
        lines = self._lines(name, [method], seeds, best, scratch=None if self.model.pretrained else method.name)
        found = best[method.name]
        if self.job.baselines:
            if not self.dense:
                self.dense = self._lines("dense", [Arm("dense", Dense(wish.pretrain))], seeds, {})
            others = self._lines(name, self._baselines(wish, found, lines[method.name]), seeds, {})
            lines = {**self.dense, **others, **lines}
        task = self.model.task
        masks = found.masks
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)  # half of an interrupted run's
        self.show.say(f"writing {place}")
        written = self.model.export(found.model, masks, place)
        if masks is not None and self.job.torch_prune:
            save_torch_prune(masks, found.model, place / "torch-prune.safetensors")
        dense_model = drawn(self.model.build, self.job.seed)
        result = {
            "level": name,
            "method": method.name,
            "sparsity": wish.sparsity,
            "macs": wish.macs,
            "lines": {line.name: line.as_dict() for line in lines.values()},
            "dense_macs": macs(dense_model, task.example),
            "dense_parameters": parameters(dense_model),
            "layers": [asdict(row) for row in _layers(found.model, masks, task)],
            "written": written,
            "folder": str(place),
        }
        write_json(done, result)
        return result

    def _lines(
        self, level: str, arms: list[Arm], seeds: range, best: dict[str, Sparsified], scratch: str | None = None
    ) -> dict[str, Line]:
        if not self.job.baselines:
            scratch = None
        with Trainings(self.show) as trainings:

            def journal(name: str, seed: int) -> Journal:
                trainings.what = f"{name}, seed {seed}"
                return Journal(self.folder / JOURNAL / level / f"{_slug(name)}-{seed}", self.job.every, trainings)

            def keep(name: str, seed: int, found: Sparsified) -> None:
                score = found.levels[-1].validation.score
                if name not in best or score > best[name].levels[-1].validation.score:
                    best[name] = found
                self.show.say(f"{name}, seed {seed}: {score:.4g} on validation, {found.steps} steps")

            return run_arms(
                arms,
                self.model.build,
                self.model.task,
                self.job.recipe(self.model),
                seeds,
                scratch=scratch,
                journal=journal,
                keep=keep,
            )

    def _baselines(self, wish: Wish, found: Sparsified, line: Line) -> list[Arm]:
        """Random and one-shot magnitude pruning to what the method reached, in as many gradient steps."""
        tune, share = wish.steps > 0, 1.0 if self.model.pretrained else 0.5
        if found.masks is None:
            kind = wish.structured or self.model.unit_kinds()[0]
            own = replace(wish, structured=kind, importance=None)
            reached = line.macs / macs(drawn(self.model.build, self.job.seed), self.model.task.example)
            if reached >= 1:
                return []  # the method found nothing to remove
            shot: Any = RemoveUnits(own.units, self.model.remove, macs=reached, pretrain=wish.pretrain, tune=tune)
            at_random = lambda seed: replace(shot, importance=Random(mixed_seed(seed, 3)))  # noqa: E731
        else:
            ways: dict[str, Any] = {"pretrain": wish.pretrain, "exclude": wish.exclude, "finetune_rate": 1.0}
            ways["allocation"] = wish.allocation
            shot = OneShot(found.masks.density, retrain="finetune" if tune else "none", **ways)
            at_random = lambda seed: replace(  # noqa: E731
                shot, importance=Random(mixed_seed(seed, 3)), allocation=Uniform()
            )
        arms = [Arm("random", at_random, share)]
        if parse(self.job.method)[0] != "one-shot" or (wish.importance or "magnitude") != "magnitude" or wish.pattern:
            arms.append(Arm("magnitude one-shot", shot, share))
        return arms


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:60]


def _layers(model: Any, masks: Masks | None, task: Task) -> list[LayerCost]:
    return layer_costs(model, task.example, masks if masks is not None else Masks.of(model))


# ---- looking before pruning ------------------------------------------------------------------------------------------


def dry_run(job: SparsifyJob, show: Show) -> list[dict[str, Any]]:
    """Shapes and MACs of what would come out, by the weights as they are; nothing is trained or written."""
    show.say(f"loading {job.model}")
    model = job.prunable()
    task, plans = model.task, []
    for name, wish in job.wishes(model).items():
        method = arm(job.method, wish).method
        dense = drawn(model.build, job.seed)
        masks: Masks | None = None
        if isinstance(method, RemoveUnits):
            small = method.smaller(dense, task)
        elif isinstance(method, LayerLottery):
            blocks = removable_blocks(dense, task.example)
            scores = score_blocks(dense, blocks, method.importance, task, method.reduce)
            small = drop_blocks(dense, [blocks[i] for i in lowest(scores, method.p, method.reverse)])
        elif wish.structured or (wish.sparsity is None and not wish.pattern):
            raise SettingError(f"how much {job.method} takes from where is known only after its training; no --dry-run")
        else:
            small, masks = dense, _planned(dense, wish, method, task)
        before, after = macs(dense, task.example), macs(small, task.example, masks)
        shapes = {row.name: row.shape for row in _layers(dense, None, task)}
        plans.append(
            {
                "level": name,
                "method": job.method,
                "dense_macs": before,
                "macs": after,
                "dense_parameters": parameters(dense),
                "parameters": parameters(small, masks),
                "layers": [asdict(row) | {"dense_shape": shapes.get(row.name)} for row in _layers(small, masks, task)],
                "note": "masks: no speed-up on ordinary libraries" if masks is not None else "really smaller",
            }
        )
    return plans


def _planned(model: Any, wish: Wish, method: Any, task: Task) -> Masks:
    """How a method's allocation would share the density out today."""
    parts: dict[str, Any] = {name: getattr(method, name) for name in ("allocation", "scope") if hasattr(method, name)}
    parts = {name: part for name, part in parts.items() if not isinstance(part, str)}
    importance = getattr(method, "importance", Magnitude())
    return prune(model, Masks.of(model, wish.exclude), wish.density, importance, task=task, **parts)


def scan(job: SparsifyJob, out: Path | None, show: Show) -> dict[str, Any]:
    """Validation with one layer alone pruned, layer by layer. A model that is not trained is trained first."""
    show.say(f"loading {job.model}")
    model = job.prunable()
    wish = Wish(model, structured=job.structured, importance=job.importance, exclude=tuple(job.exclude))
    if job.structured == "layers":
        raise SettingError("--sensitivity prunes a part of each layer; take channels, heads or single weights")
    masks = Masks.of(drawn(model.build, job.seed), wish.exclude or model.exclude())
    units: dict[str, Any] = {"scope": wish.units(masks)} if job.structured else {}
    trained = replace(job, baselines=False)
    with Trainings(show) as trainings:
        trainings.what = "dense"
        recipe = replace(trained.recipe(model), journal=Journal(None, watch=trainings))
        dense = Dense(0 if model.pretrained else None).run(model.build, model.task, recipe, seed=job.seed)
    whole = dense.levels[-1].validation
    importance = wish.scored_by()
    seen = sensitivity(dense.model, model.task, masks, DENSITIES, importance, say=show.say, **units)
    result = {
        "model": job.model,
        "dense": asdict(whole),
        "densities": list(DENSITIES),
        "layers": {name: [asdict(at) for at in found] for name, found in seen.items()},
    }
    if out is not None:
        if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
            raise FileError(f"{out} exists already; give another --out")
        write_json(out / "sensitivity.json", result)
    return result


# ---- drawing ---------------------------------------------------------------------------------------------------------


def draw(levels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The score of each line against sparsity, or against the share of the MACs removed."""
    from prunus.report.curves import Curve, write_curves

    by_macs = levels[0]["sparsity"] is None
    places = [1 - level["macs"] if by_macs else level["sparsity"] for level in levels]
    order = sorted(range(len(levels)), key=places.__getitem__)
    curves = []
    for name in levels[0]["lines"]:
        values = [_spread(levels[i]["lines"][name]["test"]) for i in order if name in levels[i]["lines"]]
        if len(values) == len(levels):
            curves.append(Curve(name, values, [places[i] for i in order]))
    bands = all(len(level["lines"][curves[0].name]["test"]) > 1 for level in levels)
    axis = "multiply-adds removed, share" if by_macs else "sparsity: share of the prunable weights removed"
    write_curves(path, curves, "score on the test split", axis, bands=bands)


def _spread(values: list[float]) -> Any:
    score = Line("", test=values).score
    return score if not math.isnan(score.low) else replace(score, low=score.mean, high=score.mean)
