"""Small tasks: scikit-learn's digits, files in MNIST's idx format, and solutions of arithmetic problems as text."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.errors import FileError, SettingError, require
from prunus.sparse.task import NOT_COUNTED, Examples, mixed_seed

CHARACTERS = "\n ()*+-0123456789=?aenrsw"
"""What arithmetic problems and solutions are written with; the places in it are the tokens. One more token pads."""


def digits(split_seed: int = 0, batch_size: int = 60, flat: bool = True) -> Examples:
    """1797 handwritten digits of 8x8 pixels in [0, 1]: 900 to train, 300 to validate, 597 to test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SettingError("the digits come with scikit-learn: pip install 'prunus[sparse]'") from None
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).div_(16).unsqueeze(1)
    return _split(images, torch.tensor(found.target), (900, 300), split_seed, batch_size, flat)


def arithmetic(operations: int = 2, rows: int = 4000, seed: int = 0, batch_size: int = 32) -> Examples:
    """Problems of the arithmetic world with their solutions, character by character: which comes next?

    Inputs and targets are (n, t) integers, places in ``CHARACTERS``; only the solution's characters count, so that the
    score is the share of them that is right after the right ones before. ``rows`` sampled problems train; the world's
    dev split validates and its report split tests, neither of which is ever sampled. The network for it is
    ``networks.transformer(tokens=len(CHARACTERS) + 1, length=t)``.
    """
    from prunus.worlds import arithmetic as world

    require(rows >= 1, "rows", rows, "at least 1")
    rng = np.random.default_rng(seed)
    parts = [tuple(world.sample(rng, operations) for _ in range(rows))]
    parts += [world.split(name, operations) for name in ("dev", "report")]
    texts = [[(f"{problem}\n", f"{world.solution(problem)}\n") for problem in part] for part in parts]
    length = max(len(problem) + len(solution) for part in texts for problem, solution in part) - 1
    train, validation, test = (_next_characters(part, length) for part in texts)
    return Examples(train, validation, test, batch_size, next_token_loss)


def _next_characters(texts: Sequence[tuple[str, str]], length: int) -> tuple[Tensor, Tensor]:
    inputs = torch.full((len(texts), length), len(CHARACTERS))
    targets = torch.full((len(texts), length), NOT_COUNTED)
    for row, (problem, solution) in enumerate(texts):
        ids = torch.tensor([CHARACTERS.index(c) for c in problem + solution])
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, len(problem) - 1 : len(ids) - 1] = ids[len(problem) :]
    return inputs, targets


def next_token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy of (n, t, tokens) logits at the counted targets (n, t)."""
    return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=NOT_COUNTED)


def mnist(folder: Path, split_seed: int = 0, batch_size: int = 60) -> Examples:
    """MNIST digits from the folder that has its idx files of 5 000 or 10 000 images: 3/5 to train, 1/5 to validate.

    Pixels (n, 1, 28, 28) in [0, 1]. Raises FileError if a file is missing.
    """
    found = [sorted(Path(folder).glob(f"*{kind}*ubyte*")) for kind in ("images-idx3", "labels-idx1")]
    if not all(found):
        raise FileError(f"{folder} does not hold an images-idx3 and a labels-idx1 file (…-ubyte or …-ubyte.gz)")
    rows = len(read_idx(found[1][0]))
    return idx_images(found[0][0], found[1][0], (rows * 3 // 5, rows // 5), split_seed, batch_size)


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
