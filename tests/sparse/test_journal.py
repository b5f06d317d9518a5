"""A run that is killed goes on from its journal and ends with the same weights and masks."""

import json
from dataclasses import replace

import pytest
import torch
from small_networks import blobs

from prunus.errors import FileError
from prunus.sparse import Masks, Recipe, train
from prunus.sparse.journal import Journal
from prunus.sparse.methods import Consensus, Game, GraNet, IMPRewinding, Jackpots, LayerLottery, OneShot
from prunus.sparse.networks import drawn, mlp, residual_mlp

METHODS = {
    "gradual, with masks that grow": GraNet(density=0.2, update_every=2),
    "several trainings": IMPRewinding(rounds=2, rewind_to=3),
    "two trainings": OneShot(density=0.2),
    "layers removed": LayerLottery(p=2),
    "scores of frozen weights": Jackpots(0.2, exclude=("head.*",)),
    "players beside the weights": Game(density=0.5, travel=30),
    "gates in the network": Consensus(),
}


class Killed(Exception):
    pass


def kill_after(steps):
    left = [steps]

    def watch(training, step, stop, loss):
        left[0] -= 1
        if not left[0]:
            raise Killed

    return watch


def same(a, b):
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("killed_after", [1, 7, 12])
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, name, killed_after):
    method, build = METHODS[name], (lambda: residual_mlp(8, 12, 4, 4))
    recipe = Recipe.sgd(steps=12)
    whole = method.run(build, blobs(), recipe, seed=1)
    with pytest.raises(Killed):
        method.run(build, blobs(), replace(recipe, journal=Journal(tmp_path, 4, kill_after(killed_after))), seed=1)
    steps = []
    journal = Journal(tmp_path, 4, lambda training, step, *_: steps.append((training, step)))
    again = method.run(build, blobs(), replace(recipe, journal=journal), seed=1)
    assert same(whole.model, again.model) and whole.masks == again.masks and whole.steps == again.steps
    assert [level.validation for level in whole.levels] == [level.validation for level in again.levels]
    assert whole.steps - killed_after < len(steps) <= whole.steps - killed_after + 4  # few steps are done twice


def test_curve_and_best_state_come_back(tmp_path):
    task, recipe = blobs(), Recipe(12, 0.01)
    whole = train(drawn(lambda: mlp(8, 4), 0), task, recipe, every=2)
    with pytest.raises(Killed):
        train(drawn(lambda: mlp(8, 4), 0), task, replace(recipe, journal=Journal(tmp_path, 3, kill_after(8))), every=2)
    again = train(drawn(lambda: mlp(8, 4), 0), task, replace(recipe, journal=Journal(tmp_path, 3)), every=2)
    assert again.curve == whole.curve and again.steps == whole.steps == 12
    assert again.best.keys() == whole.best.keys()
    assert all(torch.equal(again.best[name], whole.best[name]) for name in whole.best)


class Counter:
    def __init__(self):
        self.seen, self.sum = 0, torch.zeros(2)

    def state_dict(self):
        return {"seen": self.seen, "sum": self.sum}

    def load_state_dict(self, state):
        self.seen, self.sum = state["seen"], state["sum"]


def test_what_hooks_keep_comes_back(tmp_path):
    def run(journal):
        counter = Counter()

        def count(step, hold):
            counter.seen += 1
            counter.sum = counter.sum + step

        recipe = Recipe(9, 0.01, journal=journal)
        train(drawn(lambda: mlp(8, 4), 0), blobs(), recipe, after_step=count, keeps={"counter": counter})
        return counter.seen, counter.sum.tolist()

    with pytest.raises(Killed):
        run(Journal(tmp_path, 2, kill_after(5)))
    assert run(Journal(tmp_path, 2)) == run(None) == (9, [45.0, 45.0])


def test_another_run_is_refused_and_a_damaged_file_told(tmp_path):
    model = drawn(lambda: mlp(8, 4), 0)
    train(model, blobs(), Recipe(6, 0.01, journal=Journal(tmp_path, 2)), masks=Masks.of(model))
    with pytest.raises(FileError, match="holds another run"):
        train(model, blobs(), Recipe(7, 0.01, journal=Journal(tmp_path)))
    with pytest.raises(FileError, match="does not fit this run"):
        train(drawn(lambda: mlp(8, 5, 4), 0), blobs(), Recipe(6, 0.01, journal=Journal(tmp_path)))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["training-001-6.safetensors", "training-001.json"]
    (tmp_path / "training-001-6.safetensors").write_bytes(b"cut")
    with pytest.raises(FileError, match="damaged"):
        train(model, blobs(), Recipe(6, 0.01, journal=Journal(tmp_path)))
    (tmp_path / "training-001.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(FileError, match="no training that this version can read"):
        train(model, blobs(), Recipe(6, 0.01, journal=Journal(tmp_path)))
    Journal(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_keeps_what_was_saved(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FileError, match="cannot be saved"):
        train(drawn(lambda: mlp(8, 4), 0), blobs(), Recipe(2, 0.01, journal=Journal(file / "inside", 1)))
