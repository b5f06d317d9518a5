"""The transformer: causal, removable block by block, and it learns arithmetic."""

import pytest
import torch

from prunus.errors import SettingError
from prunus.sparse import Recipe, train
from prunus.sparse.data import CHARACTERS, NOT_COUNTED, arithmetic, mnist
from prunus.sparse.macs import macs_by_module
from prunus.sparse.methods.layer_lottery import drop_blocks, removable_blocks
from prunus.sparse.networks import drawn, transformer
from prunus.worlds import arithmetic as world


def small():
    return transformer(len(CHARACTERS) + 1, 60, width=32, heads=2, inner=64, layers=2)


def test_a_place_does_not_see_those_after_it():
    model = drawn(small, 0).eval()
    ids = torch.randint(25, (2, 9), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 25
    assert torch.equal(model(ids)[:, :5], model(other)[:, :5])
    assert not torch.allclose(model(ids)[:, 5:], model(other)[:, 5:])


def test_attention_and_feed_forward_are_blocks_that_can_go():
    model = drawn(small, 0).eval()
    ids = torch.zeros(1, 9, dtype=torch.long)
    assert removable_blocks(model, ids) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    shorter = drop_blocks(model, ["blocks.1", "blocks.2"])
    assert len(shorter.blocks) == 2 and shorter(ids).shape == (1, 9, len(CHARACTERS) + 1)


def test_multiply_adds_of_attention_are_counted():
    t, width, inner, tokens = 9, 32, 64, len(CHARACTERS) + 1
    found = macs_by_module(drawn(small, 0), torch.zeros(1, t, dtype=torch.long))
    assert found["blocks.0"] == 4 * t * width**2 + 2 * t * t * width
    assert found["blocks.1"] == 2 * t * width * inner and found["head"] == t * width * tokens


def test_heads_must_divide_the_width():
    with pytest.raises(SettingError, match="heads"):
        transformer(5, 5, width=10, heads=3)


def test_arithmetic_asks_for_the_solutions_characters_alone():
    task = arithmetic(operations=2, rows=50, batch_size=10)
    assert (len(task.train[0]), len(task.validation[0]), len(task.test[0])) == (50, 100, 200)
    for name, (inputs, targets) in (("dev", task.validation), ("report", task.test)):
        for problem, row, wanted in zip(world.split(name, 2), inputs, targets):
            problem_, solution = f"{problem}\n", f"{world.solution(problem)}\n"
            read = "".join(CHARACTERS[i] for i in row if i < len(CHARACTERS))
            assert read == (problem_ + solution)[:-1]
            counted = wanted != NOT_COUNTED
            assert "".join(CHARACTERS[i] for i in wanted[counted]) == solution
            assert int(counted.nonzero()[0]) == len(problem_) - 1  # said by the problem's last character
    seen = {tuple(row.tolist()) for row in task.train[0]}
    assert not seen & {tuple(row.tolist()) for part in (task.validation, task.test) for row in part[0]}


def test_it_learns_arithmetic_beyond_chance():
    task = arithmetic(rows=400)
    model = drawn(lambda: transformer(len(CHARACTERS) + 1, task.example.shape[1], 32, 2, 64, 1), 0)
    before = task.evaluate(model, "validation")
    train(model, task, Recipe(60, 1e-2))
    after = task.evaluate(model, "validation")
    assert before.score < 0.2 < 0.4 < after.score and after.loss < before.loss


def test_a_character_that_is_not_counted_changes_neither_loss_nor_score():
    task = arithmetic(rows=50, batch_size=10)
    inputs, targets = task.test
    length = int((targets != NOT_COUNTED).nonzero()[:, 1].max())

    def says(ids):
        """The next character, always right where there is one; nonsense elsewhere."""
        wanted = torch.where(targets[: len(ids)] == NOT_COUNTED, 0, targets[: len(ids)])
        return torch.nn.functional.one_hot(wanted, len(CHARACTERS) + 1) * 100.0

    oracle = torch.nn.Module()
    oracle.forward = says
    found = task.evaluate(oracle, "test")
    assert found.score == 1 and found.loss < 1e-6 and length < inputs.shape[1]


def test_mnist_is_found_in_its_folder(tmp_path):
    import gzip

    import numpy as np

    from prunus.errors import FileError

    with pytest.raises(FileError, match="images-idx3"):
        mnist(tmp_path)
    for name, array in (
        ("images-idx3", np.zeros((10, 4, 4), np.uint8)),
        ("labels-idx1", np.arange(10, dtype=np.uint8)),
    ):
        raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(raw))
    task = mnist(tmp_path, batch_size=2)
    assert [len(part[0]) for part in (task.train, task.validation, task.test)] == [6, 2, 2]
