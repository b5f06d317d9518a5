"""Any torch model: data of every allowed form, errors before training, removal replayed in another process."""

import json
import subprocess
import sys
from pathlib import Path

import brought
import pytest
import torch
from torch import nn

from prunus.errors import FileError, ModelError, SettingError
from prunus.sparse import Masks, Recipe, prune, train
from prunus.sparse.importance import Magnitude
from prunus.sparse.models import load, restore
from prunus.sparse.models.plain import Plain
from prunus.sparse.networks import drawn, mlp
from prunus.sparse.scope import Units

TESTS = str(Path(brought.__file__).parent)


def halved(plain, model, kind="channels"):
    masks = Masks.of(model, plain.exclude())
    return prune(model, masks, 0.5, Magnitude(), scope=plain.units(kind, masks))


def in_another_process(build, folder, inputs, out):
    torch.save(inputs, out / "inputs.pt")
    code = (
        f"import sys, torch; sys.path.insert(0, {TESTS!r}); import brought; from prunus.sparse.models import restore\n"
        f"model = restore(brought.{build}, {str(folder)!r})\n"
        f"torch.save(model(torch.load({str(out / 'inputs.pt')!r})).detach(), {str(out / 'outputs.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return torch.load(out / "outputs.pt")


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["examples", "pairs", "two_pairs", "loaders"])
def test_every_allowed_form_of_data_trains_and_is_evaluated(data):
    plain = load("brought:build", [f"brought:{data}"], batch_size=20)
    model = drawn(plain.build, 0)
    before = plain.task.evaluate(model, "validation")
    train(model, plain.task, Recipe(30))
    assert plain.task.evaluate(model, "validation") != before
    assert 0 <= plain.task.evaluate(model, "test").score <= 1
    assert plain.task.example.shape == (1, 8)


def test_batches_of_loaders_depend_on_order_and_step_alone_and_cover_an_epoch():
    task = load("brought:build", ["brought:loaders"]).task
    again = load("brought:build", ["brought:loaders"]).task
    first = [task.batch(3, step) for step in range(3)]
    assert torch.equal(again.batch(3, 2)[0], first[2][0])
    rows = torch.cat([inputs for inputs, _ in first])
    assert len(rows.unique(dim=0)) == 48  # three batches of sixteen, no row twice
    assert not torch.equal(task.batch(4, 0)[0], first[0][0])


def test_loaders_are_scored_row_by_row_as_tensors_are():
    as_loaders = load("brought:build", ["brought:loaders"]).task
    as_pairs = load("brought:build", ["brought:pairs"]).task
    model = drawn(brought.build, 1)
    one, other = (task.evaluate(model, "test") for task in (as_loaders, as_pairs))
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    assert one.score == other.score


def test_a_test_split_is_half_of_validation_where_none_is_given():
    task = load("brought:build", ["brought:two_pairs"]).task
    rows = torch.cat([task.validation[0], task.test[0]])
    assert len(task.validation[0]) == len(task.test[0]) == 30
    assert len(rows.unique(dim=0)) == 60


@pytest.mark.parametrize(
    ("model", "data", "error", "says"),
    [
        ("brought:absent", "examples", SettingError, "has no 'absent'"),
        ("brought:not_a_network", "examples", ModelError, r"gives a str; it must give a torch.nn.Module"),
        ("brought:fails", "examples", ModelError, "no weights here"),
        ("brought:build", "fails", SettingError, "no weights here"),
        ("brought:build", "nothing", SettingError, r"are a NoneType; they must be a Task"),
        ("brought:build", "four", SettingError, "a list of 4"),
        ("brought:build", "wide", ModelError, r"cannot be run on its data.*\(20, 9\)"),
        ("brought:build", "many_classes", ModelError, "(?i)target 7"),
        ("brought:build", "real_targets", SettingError, "of float32; they must be whole numbers"),
        ("brought:build", "uneven", SettingError, "20 inputs with 19 classes"),
        ("brought:build", "endless", SettingError, "Endless; they must have rows"),
        ("brought:not_a_number", "examples", ModelError, "the loss of the untrained model is nan"),
    ],
)
def test_what_does_not_fit_is_an_error_before_any_training(model, data, error, says):
    with pytest.raises(error, match=says):
        load(model, [f"brought:{data}"])


def test_data_must_be_one_import_path_and_settings_those_of_the_class():
    with pytest.raises(SettingError, match="one import path"):
        load("brought:build", [])
    with pytest.raises(SettingError, match="length"):
        load("brought:build", ["brought:examples"], length=3)


# ---- units and removal -----------------------------------------------------------------------------------------------


def test_the_output_layer_is_excluded_and_units_are_listed():
    plain = load("brought:build", ["brought:examples"])
    assert plain.exclude() == ("4.weight",)
    assert plain.unit_kinds() == ("channels",)
    with pytest.raises(SettingError, match="kind = 'heads' is not allowed; kind must be channels"):
        plain.units("heads", Masks.of(plain.build()))
    masks = Masks.of(plain.build())
    assert list(plain.units("channels", masks).groups) == ["0.weight", "2.weight"]
    assert not plain.pretrained
    assert load("brought:trained", ["brought:examples"], pretrained=True).pretrained


def test_layers_whose_outputs_are_added_lose_the_same_channels():
    plain = load("brought:residual", ["brought:images"])
    units = plain.units("channels", Masks.of(plain.build()))
    assert "stem.0.weight + blocks.0.second.weight" in units.groups
    model = drawn(plain.build, 0)
    smaller = plain.remove(model, halved(plain, model))
    widths = {name: module.out_channels for name, module in smaller.named_modules() if isinstance(module, nn.Conv2d)}
    assert widths["stem.0"] == widths["blocks.0.second"] == 2


def test_nothing_to_remove_is_an_error():
    plain = load("brought:build", ["brought:examples"])
    model = drawn(plain.build, 0)
    masks = prune(model, Masks.of(model), 0.5)
    with pytest.raises(ModelError, match="no whole channel or block is pruned"):
        plain.remove(model, masks)


# ---- export ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "data", "kind"),
    [
        ("build", "examples", "channels"),
        ("convolutional", "images", "channels"),
        ("residual", "images", "channels"),
        ("deep", "examples", "layers"),
    ],
)
def test_the_smaller_model_is_the_same_when_restored(tmp_path, build, data, kind):
    plain = load(f"brought:{build}", [f"brought:{data}"])
    model = drawn(plain.build, 0)
    train(model, plain.task, Recipe(5))
    smaller = plain.remove(model, halved(plain, model, kind))
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    facts = plain.export(smaller, None, tmp_path / "small")
    inputs = plain.task.test[0][:7]
    found = restore(getattr(brought, build), tmp_path / "small")(inputs)
    assert torch.allclose(found, smaller.eval()(inputs), atol=1e-6)
    assert "any hardware" in facts["speed_up"]
    assert set(facts["files"]) == {"model.safetensors", "pruning.json"}
    assert not list(tmp_path.glob("small/*.bin")) and not list(tmp_path.glob("small/*.pt"))


def test_it_is_the_same_in_a_fresh_process(tmp_path):
    plain = load("brought:residual", ["brought:images"])
    model = drawn(plain.build, 0)
    smaller = plain.remove(model, halved(plain, model))
    plain.export(smaller, None, tmp_path / "small")
    inputs = plain.task.test[0]
    found = in_another_process("residual", tmp_path / "small", inputs, tmp_path)
    assert torch.allclose(found, smaller.eval()(inputs), atol=1e-6)


def test_layers_and_channels_are_removed_together_and_restored(tmp_path):
    plain = load("brought:deep", ["brought:examples"])
    model = drawn(plain.build, 0)
    masks = halved(plain, model, "layers")
    inner = {n: [{n: (r,)} for r in range(len(masks[n]))] for n in masks if n.endswith("first.weight")}
    alive = {name: units for name, units in inner.items() if bool(masks[name].any())}
    masks = prune(model, masks, 0.5, scope=Units(alive))
    smaller = plain.remove(model, masks)
    plain.export(smaller, None, tmp_path / "small")
    inputs = plain.task.test[0]
    assert torch.allclose(restore(brought.deep, tmp_path / "small")(inputs), smaller.eval()(inputs), atol=1e-6)


def test_removing_twice_is_replayed_twice(tmp_path):
    plain = load("brought:build", ["brought:examples"])
    model = drawn(plain.build, 0)
    once = plain.remove(model, halved(plain, model))
    twice = plain.remove(once, halved(plain, once))
    plain.export(twice, None, tmp_path / "small")
    steps = json.loads((tmp_path / "small" / "pruning.json").read_text())["steps"]
    assert [len(step["kept"]["0"]) for step in steps] == [8, 4]
    inputs = plain.task.test[0]
    assert torch.equal(restore(brought.build, tmp_path / "small")(inputs), twice.eval()(inputs))


def test_masks_are_written_beside_masked_weights_and_no_speed_is_promised(tmp_path):
    plain = load("brought:build", ["brought:examples"])
    model = drawn(plain.build, 0)
    masks = prune(model, Masks.of(model), 0.25)
    dense = model[0].weight.detach().clone()
    facts = plain.export(model, masks, tmp_path / "masked")
    assert facts["speed_up"].startswith("none on ordinary libraries")
    assert "its speed was not measured" in facts["speed_up"]
    assert torch.equal(model[0].weight, dense), "the caller's model is left as it was"
    back = restore(brought.build, tmp_path / "masked")
    assert torch.equal(back[0].weight, dense * masks["0.weight"])
    assert Masks.load(tmp_path / "masked" / "masks.safetensors", back) == masks


def test_a_model_that_was_made_smaller_elsewhere_cannot_be_exported(tmp_path):
    plain = load("brought:build", ["brought:examples"])
    with pytest.raises(ModelError, match="only what remove"):
        plain.export(mlp(8, 3, 12, 4), None, tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_restoring_refuses_what_does_not_fit(tmp_path):
    plain = load("brought:build", ["brought:examples"])
    model = drawn(plain.build, 0)
    folder = tmp_path / "small"
    plain.export(plain.remove(model, halved(plain, model)), None, folder)
    with pytest.raises(ModelError, match="keeps rows of"):
        restore(lambda: mlp(8, 2, 4), folder)
    with pytest.raises(ModelError, match="from another network"):
        restore(lambda: mlp(7, 16, 12, 4), folder)
    with pytest.raises(FileError, match="cannot be read"):
        restore(brought.build, tmp_path / "nowhere")
    said = json.loads((folder / "pruning.json").read_text())
    (folder / "pruning.json").write_text(json.dumps({**said, "format": "other"}))
    with pytest.raises(FileError, match="'other'"):
        restore(brought.build, folder)
    (folder / "pruning.json").write_text(json.dumps({"format": said["format"], "steps": [{}]}))
    with pytest.raises(FileError, match="cannot be read"):
        restore(brought.build, folder)


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_folder_that_exists_is_left_alone(tmp_path):
    plain = load("brought:build", ["brought:examples"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        plain.export(plain.build(), None, tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_a_place_below_a_file_is_an_error(tmp_path):
    plain = load("brought:build", ["brought:examples"])
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="choose another place"):
        plain.export(plain.build(), None, tmp_path / "file" / "out")


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, file_size_limit):
    plain = load("brought:convolutional", ["brought:images"])
    with file_size_limit(3000), pytest.raises(FileError, match=r"cannot write .*make room"):
        plain.export(plain.build(), None, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_plain_is_made_from_objects_too():
    assert Plain(brought.build, brought.examples()).kind == "plain"
