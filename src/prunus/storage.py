"""Read and write a tree: ``tree.json`` beside a safetensors file with the arrays of its units.

Whole rounds only. The JSON file is renamed into place after its arrays are complete, so a reader never sees half a tree.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prunus.budget import Cost, Spent
from prunus.errors import FileError
from prunus.roles import Generator
from prunus.score import Score
from prunus.tree import Node, Status, Tree

FORMAT = 1
_TENSOR = "$tensor"


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _take_arrays(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """A JSON copy of ``value`` in which arrays are replaced by their names in ``arrays``."""
    if _is_array(value):
        arrays[name] = value.detach().cpu().contiguous() if hasattr(value, "detach") else value
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {k: _take_arrays(v, f"{name}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_take_arrays(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
    return value


def _put_arrays(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return arrays[value[_TENSOR]] if _TENSOR in value else {k: _put_arrays(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_put_arrays(v, arrays) for v in value]
    return value


def save(tree: Tree, folder: Path) -> None:
    """Write the tree's whole rounds into ``folder``, in place of what was saved there before."""
    arrays: dict[str, Any] = {}
    nodes = []
    for node in tree.nodes:
        if node.parent is not None and node.round >= tree.round:
            continue
        nodes.append(
            {
                "id": node.id,
                "parent": node.parent.id if node.parent else None,
                "path": node.path,
                "depth": node.depth,
                "status": node.status.value,
                "boundary": node.boundary,
                "round": node.round,
                "reason": node.reason,
                "how": node.how,
                "log_probability": node.log_probability,
                "cost": vars(node.cost),
                "scores": {name: {"value": s.value, "parts": dict(s.parts)} for name, s in node.scores.items()},
                "unit": _take_arrays(node.unit, f"{node.id}", arrays),
            }
        )
    arrays_file = f"units-{tree.round}.safetensors"
    document = {
        "format": FORMAT,
        "prompt": tree.prompt,
        "seed": tree.seed,
        "round": tree.round,
        "settled": tree.settled,
        "rewards": tree.rewards,
        "result": tree.result.id if tree.result else None,
        "error": tree.error,
        "spent": tree.spent_whole.as_dict(),
        "spec": tree.spec,
        "notes": {str(k): v for k, v in tree.notes.items() if k < len(nodes)},
        "random": {name: rng.bit_generator.state for name, rng in tree._random.items()},
        "arrays": arrays_file if arrays else None,
        "nodes": nodes,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if arrays:
            _write_arrays(arrays, folder / arrays_file)
        temporary = folder / "tree.json.tmp"
        temporary.write_text(json.dumps(document))
        os.replace(temporary, folder / "tree.json")
        for old in folder.glob("units-*.safetensors"):
            if old.name != arrays_file:
                old.unlink()
    except OSError as error:
        raise FileError(
            f"cannot save the tree in {folder}: {error.strerror or error}; choose another folder"
        ) from error


def _write_arrays(arrays: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    if any(hasattr(a, "detach") for a in arrays.values()):
        import torch
        from safetensors.torch import save_file

        arrays = {k: a if hasattr(a, "detach") else torch.from_numpy(a) for k, a in arrays.items()}
        save_file(arrays, temporary)
    else:
        from safetensors.numpy import save_file

        save_file(arrays, temporary)
    os.replace(temporary, path)


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
            from safetensors.torch import load_file

            arrays = load_file(path)
        return _build(document, arrays, generator)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist; name a folder that a search has saved") from None
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"{path} is damaged ({error}); the tree cannot be read") from error


def _build(document: dict, arrays: dict[str, Any], generator: Generator | None) -> Tree:
    tree = Tree(document["prompt"], document["seed"], generator)
    tree.round, tree.settled, tree.error = document["round"], document["settled"], document["error"]
    tree.rewards, tree.spec = tuple(document["rewards"]), document["spec"]
    tree.spent = Spent.from_dict(document["spent"])
    tree.spent_whole = Spent.from_dict(document["spent"])
    tree.notes = {int(k): v for k, v in document["notes"].items()}
    tree.nodes = []
    for entry in document["nodes"]:
        parent = None if entry["parent"] is None else tree.nodes[entry["parent"]]
        node = Node(entry["id"], parent, tuple(entry["path"]), entry["depth"], status=Status(entry["status"]))
        node.boundary, node.round, node.reason = entry["boundary"], entry["round"], entry["reason"]
        node.how, node.log_probability = entry["how"], entry["log_probability"]
        node.cost = Cost(**entry["cost"])
        node.scores = {name: Score(s["value"], s["parts"]) for name, s in entry["scores"].items()}
        node.unit = _put_arrays(entry["unit"], arrays)
        tree.nodes.append(node)
    if document["result"] is not None:
        tree.result = tree.nodes[document["result"]]
    for name, state in document["random"].items():
        tree.rng(name).bit_generator.state = state
    return tree
