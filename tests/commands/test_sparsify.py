"""``prunus sparsify``: budgets, methods, the table, what is written, going on, and clear errors."""

import json

import pytest
import torch
from safetensors.torch import load_file

from prunus.commands.sparse_methods import CHOICES, Wish, arm, parse
from prunus.errors import SettingError
from prunus.sparse.allocation import ERK
from prunus.sparse.methods import METHODS
from prunus.sparse.models import load
from prunus.sparse.networks import lenet, residual_mlp


@pytest.fixture
def prunus(capsys):
    """Run a command: its exit code is as expected; what it printed."""
    from command_line import run

    def call(*arguments, code=0):
        assert run(*arguments) == code, capsys.readouterr().err
        return capsys.readouterr()

    return call


@pytest.fixture
def as_json(prunus):
    return lambda *arguments: json.loads(prunus(*arguments, "--json").out)


DIGITS = ("prunus.sparse.networks:lenet", "--data", "prunus.sparse.data:digits")
RESIDUAL = ("prunus.sparse.networks:residual_mlp", "--data", "prunus.sparse.data:digits")
PRUNABLE = 64 * 300 + 300 * 100  # the output layer stays whole


def test_every_published_method_is_a_choice_and_says_what_kind_it_is(as_json, prunus):
    listed = {row["name"]: row for row in as_json("sparsify", "--list")["methods"]}
    assert set(METHODS) <= set(CHOICES) == set(listed)
    layer_lottery = listed["layer-lottery"]
    assert (layer_lottery["speed_up"], layer_lottery["when"], layer_lottery["prunes"]) == (
        "universal",
        "before_training",
        ["layers"],
    )
    assert listed["granet"]["speed_up"] == "specific" and "S.unstr" in listed["granet"]["tags"]
    assert "granet" in prunus("sparsify", "--list", "--quiet").out


def test_a_method_stands_beside_its_baselines_with_as_many_steps(as_json, tmp_path):
    out = tmp_path / "out"
    result = as_json("sparsify", *DIGITS, "--method", "gmp", "--sparsity", "0.9", "--steps", "40", "--out", out)
    (level,) = result["levels"]
    lines = level["lines"]
    assert list(lines) == ["dense", "random", "magnitude one-shot", "gmp", "scratch-E", "scratch-B"]
    assert {line["steps"] for name, line in lines.items() if name != "scratch-B"} == {40}
    assert lines["scratch-B"]["steps"] == 160 and lines["scratch-B"]["capped"]  # 7.3 times fewer MACs
    kept = {row["name"]: row["kept"] for row in level["layers"]}
    assert sum(kept.values()) == round(0.1 * PRUNABLE) and set(kept) == {"0.weight", "2.weight"}
    masks, weights = load_file(out / "model" / "masks.safetensors"), load_file(out / "model" / "model.safetensors")
    for name, mask in masks.items():
        assert int(mask.sum()) == kept[name] and not weights[name][~mask].any()
    assert "none on ordinary libraries" in level["written"]["speed_up"]
    assert json.loads((out / "result.json").read_text()) == result
    assert not (out / "journal").exists()


def test_channels_are_really_removed_and_load_elsewhere(as_json, tmp_path):
    out = tmp_path / "out"
    arguments = ("--structured", "channels", "--macs", "0.3", "--steps", "20", "--round-to", "4")
    result = as_json("sparsify", *DIGITS, *arguments, "--out", out)
    (level,) = result["levels"]
    ours = level["lines"]["one-shot"]
    assert ours["macs"] <= 0.3 * level["dense_macs"] and "real" in level["written"]["speed_up"]
    from prunus.sparse.models import restore

    small = restore(lenet, out / "model")
    widths = [small[0].out_features, small[2].out_features]
    assert all(width % 4 == 0 for width in widths) and ours["macs"] == (
        64 * widths[0] + widths[0] * widths[1] + widths[1] * 10
    )
    assert small(torch.zeros(1, 64)).shape == (1, 10)


def test_layers_are_removed_by_the_layer_lottery(as_json, tmp_path):
    out = tmp_path / "out"
    result = as_json(
        "sparsify", *RESIDUAL, "--method", "layer-lottery", "--structured", "layers", "--sparsity", "0.3",
        "--steps", "10", "--no-baselines", "--out", out,
    )  # fmt: skip
    from prunus.sparse.models import restore

    assert list(result["levels"][0]["lines"]) == ["layer-lottery"]
    assert len(restore(residual_mlp, out / "model").blocks) == 7


@pytest.mark.parametrize(
    ("method", "units", "left"), [("game", "channels", 240), ("consensus", "channels", 240), ("consensus", "layers", 5)]
)
def test_trained_gates_leave_exactly_as_much_as_was_asked_for(as_json, tmp_path, method, units, left):
    out = tmp_path / "out"
    as_json(
        "sparsify", *RESIDUAL, "--method", method, "--structured", units, "--sparsity", "0.5",
        "--steps", "10", "--no-baselines", "--out", out,
    )  # fmt: skip
    from prunus.sparse.models import restore

    blocks = restore(residual_mlp, out / "model").blocks
    # Ten blocks, each with 48 inner neurons that can go.
    assert (len(blocks) if units == "layers" else sum(block.first.out_features for block in blocks)) == left


def test_channels_that_are_added_to_each_other_go_together(as_json, tmp_path):
    result = as_json(
        "sparsify", *RESIDUAL, "--structured", "channels", "--macs", "0.6", "--steps", "4", "--out", tmp_path / "out"
    )
    shapes = {row["name"]: row["shape"] for row in result["levels"][0]["layers"]}
    width, inner = shapes["stem.weight"][0], shapes["blocks.0.first.weight"][0]
    assert shapes["head.weight"] == [10, width] and max(width, inner) < 48
    for i in range(10):
        assert shapes[f"blocks.{i}.second.weight"] == [width, inner] == shapes[f"blocks.{i}.first.weight"][::-1]


def test_several_levels_and_seeds_give_a_plot_and_intervals(prunus, tmp_path):
    out = tmp_path / "out"
    done = prunus(
        "sparsify", *DIGITS, "--sparsity", "0.5,0.9", "--steps", "20", "--seeds", "2", "--out", out, "--quiet"
    )
    assert (out / "accuracy.png").stat().st_size > 1000
    assert sorted(p.name for p in out.iterdir()) == [
        "accuracy.png", "levels", "result.json", "run.json", "sparsity-0.5", "sparsity-0.9",
    ]  # fmt: skip
    assert "[" in done.out and "accuracy, on the test split" in done.out


def test_a_killed_run_goes_on(as_json, prunus, tmp_path, monkeypatch):
    from prunus.commands.display import Trainings

    arguments = (*DIGITS, "--method", "granet", "--sparsity", "0.9", "--steps", "30", "--save-every", "10")
    whole = as_json("sparsify", *arguments, "--out", tmp_path / "whole")

    def interrupt(self, training, step, stop, loss):
        if step == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainings, "__call__", interrupt)
        stopped = prunus("sparsify", *arguments, "--out", tmp_path / "cut", code=130)
    assert f"--resume {tmp_path / 'cut'}" in stopped.err
    assert "interrupted; finish it" in prunus("sparsify", *arguments, "--out", tmp_path / "cut", code=2).err
    resumed = as_json("sparsify", "--resume", tmp_path / "cut")
    for name, line in whole["levels"][0]["lines"].items():
        assert resumed["levels"][0]["lines"][name]["test"] == line["test"], name
    assert as_json("sparsify", "--resume", tmp_path / "cut") == resumed  # it is finished: nothing is done again


def test_dry_run_tells_shapes_and_multiply_adds_and_writes_nothing(as_json, prunus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (plan,) = as_json("sparsify", *DIGITS, "--structured", "channels", "--sparsity", "0.5", "--dry-run")["plans"]
    assert [row["shape"] for row in plan["layers"]] == [[150, 64], [50, 150], [10, 50]]
    assert (plan["dense_macs"], plan["macs"]) == (64 * 300 + 300 * 100 + 1000, 64 * 150 + 150 * 50 + 500)
    (plan,) = as_json("sparsify", *DIGITS, "--method", "granet", "--sparsity", "0.9", "--dry-run")["plans"]
    assert sum(row["kept"] for row in plan["layers"]) == round(0.1 * PRUNABLE)
    assert (
        "300x64 -> 150x64"
        in prunus("sparsify", *DIGITS, "--structured", "channels", "--sparsity", "0.5", "--dry-run").out
    )
    assert list(tmp_path.iterdir()) == []


def test_sensitivity_tells_what_each_layer_alone_loses(as_json, tmp_path):
    result = as_json("sparsify", *DIGITS, "--sensitivity", "--steps", "60", "--out", tmp_path / "scan")
    assert set(result["layers"]) == {"0.weight", "2.weight"}
    assert result["densities"] == [0.5, 0.2, 0.1, 0.05]
    for seen in result["layers"].values():
        assert seen[0]["score"] >= seen[-1]["score"] - 0.05 and len(seen) == 4
    assert json.loads((tmp_path / "scan" / "sensitivity.json").read_text()) == result


def test_masks_come_from_and_go_to_torchs_own_pruning(as_json, tmp_path):
    first = tmp_path / "first"
    options = ("--steps", "10", "--no-baselines")
    as_json("sparsify", *DIGITS, "--sparsity", "0.8", "--torch-prune", *options, "--out", first)
    theirs = load_file(first / "model" / "torch-prune.safetensors")
    from torch.nn.utils import prune

    network = lenet()
    for place in (0, 2):
        prune.identity(network[place], "weight")
    network.load_state_dict(theirs)
    assert int(theirs["0.weight_mask"].sum() + theirs["2.weight_mask"].sum()) == round(0.2 * PRUNABLE)
    again = as_json(
        "sparsify", *DIGITS, "--method", "given", "--masks", first / "model" / "torch-prune.safetensors", *options,
        "--out", tmp_path / "again",
    )  # fmt: skip
    rows = {row["name"]: row["kept"] for row in again["levels"][0]["layers"]}
    assert rows == {name: int(theirs[f"{name}_mask"].sum()) for name in ("0.weight", "2.weight")}


@pytest.mark.parametrize("method", [name for name, choice in CHOICES.items() if choice.sparsity != "none"])
def test_every_method_reaches_the_sparsity_in_the_steps_it_was_given(as_json, tmp_path, method):
    units = CHOICES[method].scopes[0]
    scope = () if units == "weights" else ("--structured", units)
    steps = 400 if method in ("lottery-ticket", "imp-rewinding", "sap") else 80
    arguments = ("--method", method, "--sparsity", "0.5", "--steps", steps, "--no-baselines")
    result = as_json("sparsify", *RESIDUAL, *scope, *arguments, "--out", tmp_path / "out")
    (line,) = result["levels"][0]["lines"].values()
    assert line["steps"] <= steps * 1.01
    if method not in ("wanda", "sparse-gpt", "sap"):  # they train less: half of it densely, or until enough is gone
        assert line["steps"] >= steps * 0.95
    blocks = 20 * 48 * 48
    kept = sum(row["kept"] for row in result["levels"][0]["layers"])
    if scope:  # a unit is a block, or a neuron with its inputs and outputs; the stem and the output layer stay
        assert 0.3 * blocks <= kept <= 0.7 * blocks + 64 * 48 + 480
    else:
        assert kept == pytest.approx(0.5 * (blocks + 64 * 48), abs=11)


def test_settings_of_a_method_stand_behind_its_name():
    wish = Wish(load(DIGITS[0], [DIGITS[2]]), sparsity=0.9, steps=40)
    assert arm("one-shot:allocation=erk", wish).method.allocation == ERK()
    with pytest.raises(SettingError, match="one of uniform, erk, global"):
        arm("one-shot:allocation=fair", wish)
    assert parse("granet:update_every=25:growth=random") == ("granet", {"update_every": 25, "growth": "random"})


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("--sparsity", "1.5"), "above 0 and below 1"),
        (("--sparsity", "half"), "write numbers"),
        ((), "one of them"),
        (("--sparsity", "0.5", "--macs", "0.5", "--structured", "channels"), "one of them"),
        (("--macs", "0.5"), "with --structured"),
        (("--sparsity", "0.9", "--method", "magic"), "prunus sparsify --list"),
        (("--sparsity", "0.9", "--method", "granet", "--structured", "channels"), "for channels take one-shot"),
        (("--sparsity", "0.9", "--structured", "heads"), "this plain model has channels"),
        (("--sparsity", "0.9", "--method", "granet:speed=3"), "speed"),
        (("--sparsity", "0.9", "--method", "granet:speed"), "write name:field=value"),
        (("--sparsity", "0.9", "--steps", "0"), "not trained"),
        (("--sparsity", "0.9", "--importance", "taste"), "package.module:Name"),
        (("--sparsity", "0.9", "--importance", "reward"), "--structured"),
        (("--sparsity", "0.9", "--reward", "a:b"), "--importance reward only"),
        (("--sparsity", "0.9", "--pattern", "two"), "write n:m"),
        (("--sparsity", "0.9", "--exclude", "conv*"), "matches none"),
        (("--sparsity", "0.9", "--optimiser", "lion"), "one of adam"),
        (("--sparsity", "0.9", "--set", "speed=3"), "speed"),
        (("--sparsity", "0.9", "--device", "toaster"), "device 'toaster' cannot be used"),
        (("--method", "given"), "--masks FILE"),
        (("--method", "given", "--masks", "nowhere.safetensors"), "does not exist"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(prunus, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert told in prunus("sparsify", *DIGITS, *arguments, code=2).err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "model, data, told",
    [
        ("torch.nn:Identity", "prunus.sparse.data:digits", "nothing to prune"),
        ("prunus.sparse.networks:resnet", "prunus.sparse.data:digits", "cannot be run on its data"),
        ("prunus.sparse.networks:lenet", "prunus.sparse.data:nothing", "has no 'nothing'"),
        ("nowhere", "prunus.sparse.data:digits", "is no folder and no import path"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_told(prunus, tmp_path, model, data, told):
    assert told in prunus("sparsify", model, "--data", data, "--sparsity", "0.5", "--out", tmp_path / "o", code=2).err


def test_a_model_is_needed_and_its_folder_is_not_overwritten(prunus, tmp_path):
    assert "name a model" in prunus("sparsify", code=2).err
    (tmp_path / "note.txt").write_text("mine")
    told = prunus("sparsify", *DIGITS, "--sparsity", "0.5", "--steps", "5", "--out", tmp_path, code=2).err
    assert "is not empty" in told and (tmp_path / "note.txt").read_text() == "mine"
