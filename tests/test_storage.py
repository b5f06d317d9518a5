"""Saved trees: what comes back, what is refused, and that nothing is ever half-written."""

import json
import resource

import numpy as np
import pytest
import torch

from prunus import Budget, Score, Status, Tree, search, stream_search
from prunus.errors import FileError
from prunus.roles import Grown
from prunus.strategies import Beam
from prunus.testing import ScriptedGenerator, ScriptedReward, assert_same_tree, same

MODELS = (ScriptedGenerator(), ScriptedReward(), Beam(2, 2))


def tree_with(unit):
    """A tree with one whole round of one node."""
    tree = Tree("a prompt", 0, ScriptedGenerator())
    asks = tree.number([tree.ask(tree.root)])
    tree.add(asks, [Grown(unit, object())])
    tree.settle(())
    return tree


UNITS = {
    "torch": {"latents": torch.arange(6.0).view(2, 3), "seed": 7},
    "half": {"x": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)},
    "transposed": {"x": torch.arange(6).view(2, 3).T},
    "numpy": {"a": np.arange(4, dtype=np.int16), "b": np.array(True), "c": np.zeros((0, 3), np.float32)},
    "fortran": {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
    "numpy scalar": {"x": np.float32(0.1)},
    "mixed": {"t": torch.ones(2), "n": [np.ones(3), {"deep": torch.zeros(1)}], "text": "so", "none": None, "f": 0.1},
    "dots": {"a.b": np.ones(1), "a": {"b": np.zeros(1)}},
    "plain": [1, 2.5, "three", None, True, {"four": []}],
    "alone": torch.ones(3),
}


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_units_come_back_as_they_were(unit, tmp_path):
    tree_with(unit).save(tmp_path)
    loaded = Tree.load(tmp_path).nodes[1].unit
    assert same(loaded, unit)
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in tmp_path.iterdir())  # for whom the run is shared with
    assert [type(x) for x in leaves(loaded)] == [
        np.ndarray if isinstance(x, np.generic) else type(x) for x in leaves(unit)
    ]


def leaves(value):
    if isinstance(value, dict | list):
        return [x for v in (value.values() if isinstance(value, dict) else value) for x in leaves(v)]
    return [value]


def test_views_of_one_storage_are_saved_apart(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    tree_with({"a": whole[0], "b": whole[1], "again": whole[0], "all": whole}).save(tmp_path)
    unit = Tree.load(tmp_path).nodes[1].unit
    assert unit["b"].tolist() == [4, 5, 6, 7] and unit["again"].tolist() == unit["a"].tolist() == [0, 1, 2, 3]
    assert unit["all"].tolist() == whole.tolist()


def test_everything_else_comes_back_too(tmp_path):
    tree = tree_with({"value": 1})
    node = tree.nodes[1]
    node.scores = {"r": Score(0.5, {"long": 0.25})}
    node.how, node.log_probability, node.reason = {"gates": ("ema", "append")}, -1.5, "why not"
    tree.note(node)["visits"] = 3.0
    tree.rewards, tree.spec, tree.error, tree.settled = ("r",), {"n": 4}, "an error", 1
    tree.rng("x").random(5)
    tree.save(tmp_path)
    loaded = Tree.load(tmp_path)
    assert_same_tree(tree, loaded, "loaded")
    assert (loaded.rewards, loaded.spec, loaded.error) == (("r",), {"n": 4}, "an error")
    assert loaded.nodes[1].how["gates"] == ("ema", "append")
    assert loaded.rng("x").random() == tree.rng("x").random()
    assert loaded.nodes[1].parent.children == [loaded.nodes[1]]


def test_only_whole_rounds_are_saved(tmp_path):
    tree = tree_with({"value": 1})
    tree.begin_round()
    tree.add(tree.number([tree.ask(tree.nodes[1])]), [Grown({"value": 2}, object())])
    tree.nodes[1].move(Status.PRUNED)
    tree.save(tmp_path)
    assert [(n.id, n.status) for n in Tree.load(tmp_path).nodes] == [(0, Status.CLOSED), (1, Status.OPEN)]


def test_what_a_file_cannot_hold_is_refused_and_the_last_save_stays(tmp_path):
    tree_with({"value": 1}).save(tmp_path)
    for unit, message in (({"x": {1, 2}}, "set is not JSON"), ({3: "x"}, "the key 3 is not a string")):
        with pytest.raises(FileError, match=f"{message}.* units and settings are made of arrays, numbers"):
            tree_with(unit).save(tmp_path)
    assert Tree.load(tmp_path).nodes[1].unit == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["tree.json"]


def test_arrays_of_earlier_rounds_are_cleared_away(tmp_path):
    tree = tree_with({"x": np.ones(2)})
    tree.save(tmp_path)
    tree.settle(())
    tree.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tree.json", "units-2.safetensors"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(FileError, match=f"cannot save the tree in {folder}: .*; choose another folder"):
            tree_with({"x": np.ones(2)}).save(folder)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("unit", [{"x": np.ones(10_000)}, {"x": torch.ones(10_000)}, {"x": "long " * 10_000}])
def test_a_full_disk_leaves_the_last_save_whole(unit, tmp_path):
    tree_with({"x": np.zeros(2)}).save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    tree = tree_with(unit)
    tree.settle(())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # as a full disk: files end here
        with pytest.raises(FileError, match="cannot save the tree in"):
            tree.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert Tree.load(tmp_path).nodes[1].unit["x"].tolist() == [0.0, 0.0]


def test_an_unwritable_place_is_found_before_the_first_forward(tmp_path):
    class Never(ScriptedGenerator):
        def grow(self, asks):
            raise AssertionError("grown before the place was tried")

    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot save the tree"):
        search("a prompt", Never(), MODELS[1], MODELS[2], save_to=tmp_path / "file")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "tree.json").unlink(), "tree.json does not exist; name a folder"),
        (lambda f: (f / "units-1.safetensors").unlink(), "units-1.safetensors does not exist"),
        (lambda f: (f / "tree.json").write_text("{"), "tree.json is damaged"),
        (lambda f: (f / "tree.json").write_bytes(b"\xff\xfe\x00"), "tree.json is damaged"),
        (lambda f: (f / "tree.json").write_text("[]"), "tree.json is damaged"),
        (lambda f: (f / "tree.json").write_text("{}"), "tree.json has format None; this version reads format 1"),
        (lambda f: edit(f, format=2), "tree.json has format 2"),
        (lambda f: edit(f, notes=None), "tree.json is damaged"),
        (lambda f: edit(f, nodes=[{}]), "tree.json is damaged"),
        (lambda f: cut(f / "units-1.safetensors"), "units-1.safetensors is damaged"),
        (lambda f: (f / "units-1.safetensors").write_bytes(b""), "units-1.safetensors is damaged"),
    ],
)
@pytest.mark.parametrize("array", [np.ones(9), torch.ones(9)], ids=["numpy", "torch"])
def test_damaged_and_missing_files_are_named(damage, message, array, tmp_path):
    tree_with({"x": array}).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(FileError, match=message):
        Tree.load(tmp_path)


def edit(folder, **changes):
    path = folder / "tree.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def test_rebuilding_and_rendering_again_are_charged_apart(tmp_path):
    whole = search("a prompt", *MODELS)
    for event in stream_search("a prompt", *MODELS, save_to=tmp_path):
        if event.kind == "round" and event.tree.round == 2:
            break
    tree = search(Tree.load(tmp_path), *MODELS)
    assert_same_tree(whole, tree, "went on")
    # Two open nodes of two units each: two forwards for each; three or four units to render again, seven FLOPs each.
    shared = len({n for leaf in tree.nodes if leaf.depth == 2 and leaf.children for n in leaf.lineage})
    assert (tree.spent.rebuilding.nfe, tree.spent.rebuilding.flops) == (4, 7 * shared)


def test_a_folder_is_made_and_a_later_save_replaces_an_earlier_one(tmp_path):
    folder = tmp_path / "deep" / "run"
    search("a prompt", *MODELS, save_to=folder)
    search("another", *MODELS, save_to=folder)
    assert Tree.load(folder).prompt == "another"
    assert Tree.load(str(folder), MODELS[0]).best().output == search("another", *MODELS).best().output


def test_a_tight_budget_admits_the_same_after_loading(tmp_path):
    """What was rendered before the save is not foreseen as a cost again."""
    for flops in range(200, 500, 20):
        budget = Budget(flops=flops)
        whole = search("a prompt", *MODELS, budget=budget)
        for event in stream_search("a prompt", *MODELS, budget=budget):
            if event.kind == "round" and event.tree.round == 3:
                event.tree.save(tmp_path)
                break
        assert_same_tree(whole, search(Tree.load(tmp_path), *MODELS, budget=budget), f"{flops} FLOPs")
