"""The big tables: cells are kept as they come, a run that was killed goes on, and what is printed is what was found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sparse_table.py"

pytest.importorskip("sklearn")


def run(cells, *more):
    return subprocess.run(
        [sys.executable, SCRIPT, "mlp", "--smoke", "--cells", cells, "--seeds", "100", "101", "--split", "validation",
         "--only", "dense", "magnitude", "GMP", *more],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip


def test_a_killed_run_goes_on_with_the_missing_cells(tmp_path):
    cells = tmp_path / "cells.jsonl"
    whole = run(cells, "--no-scratch")
    lines = cells.read_text().splitlines()
    assert len(lines) == 6  # three arms, two seeds
    assert all(json.loads(line)["steps"] == 60 for line in lines)  # equal totals, pre-training included
    cells.write_text("\n".join(lines[:4]) + "\n" + lines[4][:40])  # killed while the fifth was written
    again = run(cells, "--no-scratch")
    ran = [line for line in again.splitlines() if line.startswith("mlp ")]
    assert [line.split(":")[0] for line in ran] == [f"mlp 0.9 seed 101 {json.loads(x)['arm']}" for x in lines[4:]]
    table = whole[whole.index("##") :]
    assert "| magnitude one-shot |" in table and table.count("| 60 |") == 3 and "| arm | 90% |" in table
    mean = sum(json.loads(x)["validation"] for x in lines if json.loads(x)["arm"] == "GMP") / 2
    assert f"| GMP | {100 * mean:.1f} [" in table


def test_the_pruned_architecture_is_trained_from_scratch_beside_it(tmp_path):
    run(tmp_path / "cells.jsonl", "--only", "magnitude")
    found = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    steps = {cell["arm"]: cell["steps"] for cell in found}
    assert steps == {"magnitude one-shot": 60, "scratch-E": 60, "scratch-B": 240}
    assert all(cell["capped"] for cell in found if cell["arm"] == "scratch-B")
    assert len({round(cell["density"], 6) for cell in found}) == 1
