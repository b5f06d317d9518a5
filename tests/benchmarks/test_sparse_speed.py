"""The speed of pruned networks is measured: really smaller ones have fewer multiply-adds, masked ones have as many."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sparse_speed.py"

pytest.importorskip("torch_pruning")


def test_all_kinds_of_networks_are_timed():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--json"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    rows = json.loads(done.stdout)["rows"]
    assert {row["network"] for row in rows} == {"conv net", "Llama", "pocket/lm", "pocket/video"}
    for row in rows:
        assert row["wall"] > 0 and row["ratio"] == pytest.approx(row["wall_gain"] / row["mac_gain"])
        whole = row["pruned"] == "dense" or "masked" in row["pruned"]
        assert row["mac_gain"] == 1 if whole else row["mac_gain"] > 1.2
        assert row["asked"] == (not whole and "pocket" not in row["network"])
    conv = next(row for row in rows if row["network"] == "conv net" and row["asked"])
    # 9 x 1024 places x (3 x 192 + 192 x 192), 9 x 256 x (192 x 384 + 384 x 384), and a head of 10 x 384 x 64
    assert conv["macs"] == 9 * 1024 * (3 * 192 + 192 * 192) + 9 * 256 * (192 * 384 + 384 * 384) + 10 * 384 * 64
