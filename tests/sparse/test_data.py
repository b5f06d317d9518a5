"""Digits and idx files."""

import gzip

import numpy as np
import pytest
import torch

from prunus.errors import FileError, SettingError
from prunus.sparse.data import digits, idx_images, read_idx
from prunus.sparse.task import Examples


def write_idx(path, array, zipped):
    raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(raw) if zipped else raw)


def test_digits_are_split_without_overlap():
    pytest.importorskip("sklearn")
    task = digits()
    assert [len(part[0]) for part in (task.train, task.validation, task.test)] == [900, 300, 597]
    assert task.example.shape == (1, 64) and 0 <= float(task.train[0].min()) <= float(task.train[0].max()) == 1
    assert digits(flat=False).example.shape == (1, 1, 8, 8)
    assert not torch.equal(digits(split_seed=1).test[1], task.test[1])


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_become_a_task(tmp_path, zipped):
    images = np.arange(10 * 4 * 3, dtype=np.uint8).reshape(10, 4, 3)
    labels = np.arange(10, dtype=np.uint8)
    write_idx(tmp_path / "images", images, zipped)
    write_idx(tmp_path / "labels", labels, zipped)
    task = idx_images(tmp_path / "images", tmp_path / "labels", (5, 2), batch_size=2)
    assert [len(part[0]) for part in (task.train, task.validation, task.test)] == [5, 2, 3]
    for inputs, targets in (task.train, task.validation, task.test):
        for x, y in zip(inputs, targets):
            assert torch.equal(x, torch.tensor(images[int(y)][None] / 255).float())


def test_examples_move_to_a_device():
    x, y = torch.zeros(3, 2), torch.zeros(3).long()
    moved = Examples((x, y), (x, y), (x, y), batch_size=2).to("meta")
    assert moved.test[0].device.type == "meta" and moved.batch_size == 2


def test_bad_files_and_sizes_say_so(tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FileError, match="not an idx"):
        read_idx(tmp_path / "text")
    with pytest.raises(FileError, match="cannot be read"):
        read_idx(tmp_path / "nowhere")
    write_idx(tmp_path / "images", np.zeros((4, 2, 2), np.uint8), False)
    write_idx(tmp_path / "labels", np.zeros(3, np.uint8), False)
    with pytest.raises(FileError, match="label each"):
        idx_images(tmp_path / "images", tmp_path / "labels", (1, 1))
    short = (tmp_path / "images").read_bytes()[:-3]
    (tmp_path / "images").write_bytes(short)
    with pytest.raises(FileError, match="cannot be read"):
        read_idx(tmp_path / "images")
    x, y = torch.zeros(3, 2), torch.zeros(3).long()
    with pytest.raises(SettingError, match="as many targets"):
        Examples((x, y[:2]), (x, y), (x, y), batch_size=2)
    with pytest.raises(SettingError, match="batch_size"):
        Examples((x, y), (x, y), (x, y), batch_size=4)
