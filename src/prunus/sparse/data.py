"""Small real images: scikit-learn's digits, and files in MNIST's idx format."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunus.errors import FileError, SettingError, require
from prunus.sparse.task import Examples, mixed_seed


def digits(split_seed: int = 0, batch_size: int = 60, flat: bool = True) -> Examples:
    """1797 handwritten digits of 8x8 pixels in [0, 1]: 900 to train, 300 to validate, 597 to test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SettingError("the digits come with scikit-learn: pip install 'prunus[sparse]'") from None
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).div_(16).unsqueeze(1)
    return _split(images, torch.tensor(found.target), (900, 300), split_seed, batch_size, flat)


def idx_images(
    images: Path, labels: Path, parts: tuple[int, int], split_seed: int = 0, batch_size: int = 60
) -> Examples:
    """Images (n, 1, h, w) in [0, 1] and their labels from a pair of idx files, gzipped or not; the rest is the test."""
    pixels, targets = read_idx(Path(images)), read_idx(Path(labels))
    if pixels.ndim != 3 or targets.ndim != 1 or len(pixels) != len(targets):
        raise FileError(f"{images} and {labels} are not images with a label each: {pixels.shape}, {targets.shape}")
    tensor = torch.from_numpy(pixels).float().div_(255).unsqueeze(1)
    return _split(tensor, torch.from_numpy(targets).long(), parts, split_seed, batch_size, flat=False)


def of_classes(examples: Examples, classes: Iterable[int]) -> Examples:
    """Those of the examples whose target is one of ``classes``: one task becomes two, for transfer. Targets stay as
    they are. SettingError if a part has none of them."""
    wanted = torch.tensor(sorted(set(classes)))
    parts = {}
    for name in ("train", "validation", "test"):
        inputs, targets = getattr(examples, name)
        chosen = torch.isin(targets, wanted.to(targets))
        require(bool(chosen.any()), "classes", wanted.tolist(), f"some that the {name} part has")
        parts[name] = inputs[chosen], targets[chosen]
    return replace(examples, **parts)  # type: ignore[arg-type]


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in idx format: two zero bytes, type 8, the number of dimensions, each as 4 bytes, the data."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        if raw[:3] != b"\0\0\x08":
            raise FileError(f"{path} is not an idx file of bytes")
        dimensions = raw[3]
        shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", dimensions, 4))
        return np.frombuffer(raw, np.uint8, int(np.prod(shape)), 4 + 4 * dimensions).reshape(shape).copy()
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise FileError(f"{path} cannot be read as an idx file: {error}") from error


def _split(images: Tensor, targets: Tensor, parts: tuple[int, int], seed: int, batch_size: int, flat: bool) -> Examples:
    require(
        sum(parts) < len(images), "parts", parts, f"fewer than {len(images)} together, so that some are left to test"
    )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(mixed_seed(seed)))
    images = images.flatten(1) if flat else images
    train, validation, test = (
        (images[rows], targets[rows]) for rows in order.split([*parts, len(images) - sum(parts)])
    )
    return Examples(train, validation, test, batch_size)
