"""Read and write a tree: ``tree.json`` beside a safetensors file with the arrays of its units.

Whole rounds only. The JSON file is renamed into place after its arrays are complete: a reader never sees half a tree.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunus.budget import Cost, Spent
from prunus.errors import FileError
from prunus.roles import Generator
from prunus.score import Score
from prunus.tree import Node, Status, Tree

FORMAT = 1
_TENSOR, _ARRAY = "$tensor", "$array"  # torch's and numpy's


def _take_arrays(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """A JSON copy of ``value`` in which arrays are replaced by their names in ``arrays``."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        while name in arrays:  # keys may hold dots
            name += "'"
        arrays[name] = value
        return {_TENSOR if hasattr(value, "detach") else _ARRAY: name}
    if isinstance(value, dict):
        if odd := [k for k in value if not isinstance(k, str)]:
            raise TypeError(f"the key {odd[0]!r} is not a string")
        return {k: _take_arrays(v, f"{name}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_take_arrays(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
    return value


def _put_arrays(value: Any, arrays: dict[str, Any], sequence: Callable = list) -> Any:
    """The reverse; sequences come back as ``sequence``."""
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return arrays[value[_TENSOR]]
        if value.keys() == {_ARRAY}:
            array = arrays[value[_ARRAY]]
            return array.numpy() if hasattr(array, "numpy") else array
        return {k: _put_arrays(v, arrays, sequence) for k, v in value.items()}
    if isinstance(value, list):
        return sequence(_put_arrays(v, arrays, sequence) for v in value)
    return value


def save(tree: Tree, folder: Path) -> None:
    """Write the tree's whole rounds into ``folder``, in place of what was saved there before. Raises FileError."""
    from safetensors import SafetensorError

    arrays_file = f"units-{tree.round}.safetensors"
    try:
        arrays: dict[str, Any] = {}
        document = json.dumps(_document(tree, arrays, arrays_file))
        folder.mkdir(parents=True, exist_ok=True)
        if arrays:
            _replace(folder / arrays_file, lambda path: _write_arrays(arrays, path))
        _replace(folder / "tree.json", lambda path: path.write_text(document))
        for old in folder.glob("units-*.safetensors"):
            if old.name != arrays_file or not arrays:
                old.unlink()
    except (TypeError, ValueError) as error:
        raise FileError(
            f"cannot save the tree: {error}; units and settings are made of arrays, numbers, strings, lists and dicts"
        ) from error
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"cannot save the tree in {folder}: {reason}; choose another folder") from error


def _document(tree: Tree, arrays: dict[str, Any], arrays_file: str) -> dict[str, Any]:
    """What stands in tree.json; fills ``arrays`` with what stands in the other file."""
    whole = tree.whole()
    nodes = [
        {
            "id": node.id,
            "parent": node.parent.id if node.parent else None,
            "path": node.path,
            "depth": node.depth,
            "status": status.value,
            "boundary": node.boundary,
            "round": node.round,
            "reason": reason,
            "rendered": node.rendered or node.rendering is not None,
            "log_probability": node.log_probability,
            "cost": asdict(node.cost),
            "scores": {name: {"value": s.value, "parts": dict(s.parts)} for name, s in scores.items()},
            "unit": _take_arrays(node.unit, f"{node.id}", arrays),
            "how": _take_arrays(node.how, f"{node.id}.how", arrays),
        }
        for node, (status, reason, scores) in whole.nodes.items()
    ]
    return {
        "format": FORMAT,
        "prompt": tree.prompt,
        "seed": tree.seed,
        "round": tree.round,
        "settled": tree.settled,
        "rewards": tree.rewards,
        "result": tree.result.id if tree.result else None,
        "error": tree.error,
        "spent": whole.spent.as_dict(),
        "spec": tree.spec,
        "notes": {str(id): note for id, note in whole.notes.items()},
        "random": whole.random,
        "arrays": arrays_file if arrays else None,
        "torch": any(hasattr(a, "detach") for a in arrays.values()),
        "nodes": nodes,
    }


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under another name and rename it into place; nothing is left of one that could not be written."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        temporary.chmod(0o644)  # safetensors lets only its owner read a file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_arrays(arrays: dict[str, Any], path: Path) -> None:
    import numpy as np

    if not any(hasattr(a, "detach") for a in arrays.values()):
        from safetensors.numpy import save_file as save_numpy

        save_numpy({name: np.asarray(a, order="C") for name, a in arrays.items()}, path)
        return
    import torch
    from safetensors.torch import save_file as save_torch

    tensors, storages = {}, set()
    for name, array in arrays.items():
        tensor = array.detach().cpu() if hasattr(array, "detach") else torch.from_numpy(np.array(array))
        storage = tensor.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone(memory_format=torch.contiguous_format)  # views of one storage are saved apart
        storages.add(storage.data_ptr())
        tensors[name] = tensor.contiguous()
    save_torch(tensors, path)


def _read_arrays(path: Path, torch: bool) -> dict[str, Any]:
    if torch:
        from safetensors.torch import load_file as load_torch

        return load_torch(path)
    from safetensors.numpy import load_file as load_numpy

    return load_numpy(path)


def load(folder: Path, generator: Generator | None = None) -> Tree:
    """Read what ``save`` wrote. Raises FileError that names what is missing or damaged."""
    path = folder / "tree.json"
    try:
        document = json.loads(path.read_text())
        if document.get("format") != FORMAT:
            raise FileError(f"{path} has format {document.get('format')!r}; this version reads format {FORMAT}")
        arrays: dict[str, Any] = {}
        if document["arrays"]:
            path = folder / document["arrays"]
            arrays = _read_arrays(path, document["torch"])
            path = folder / "tree.json"
        return _build(document, arrays, generator)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist; name a folder that a search has saved") from None
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"{path} is damaged ({type(error).__name__}: {error}); the tree cannot be read") from error


def _build(document: dict, arrays: dict[str, Any], generator: Generator | None) -> Tree:
    tree = Tree(document["prompt"], document["seed"], generator)
    tree.round, tree.settled, tree.error = document["round"], document["settled"], document["error"]
    tree.rewards, tree.spec = tuple(document["rewards"]), document["spec"]
    tree.spent = Spent.from_dict(document["spent"])
    tree.notes = {int(k): v for k, v in document["notes"].items()}
    tree.nodes = []
    for entry in document["nodes"]:
        parent = None if entry["parent"] is None else tree.nodes[entry["parent"]]
        node = Node(entry["id"], parent, tuple(entry["path"]), entry["depth"], status=Status(entry["status"]))
        node.boundary, node.round, node.reason = entry["boundary"], entry["round"], entry["reason"]
        node.rendered, node.log_probability = entry["rendered"], entry["log_probability"]
        node.how = {k: _put_arrays(v, arrays, tuple) for k, v in entry["how"].items()}
        node.cost = Cost(**entry["cost"])
        node.scores = {name: Score(s["value"], s["parts"]) for name, s in entry["scores"].items()}
        node.unit = _put_arrays(entry["unit"], arrays)
        tree.nodes.append(node)
    if document["result"] is not None:
        tree.result = tree.nodes[document["result"]]
    for name, state in document["random"].items():
        tree.rng(name).bit_generator.state = state
    return tree
