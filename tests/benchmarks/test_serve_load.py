"""The load test runs: all that was sent was answered, and shared calls are larger than a search's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve_load.py"


def test_both_servers_answer():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--strategy", "beam-2x2"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    figures = json.loads(done.stdout)
    alone, several = figures["shared"]
    assert (alone["answered"], several["answered"], several["refused"]) == (2, 8, 0)
    assert several["batch"] > alone["batch"]
    assert figures["one by one"][1]["batch"] <= 4.0
    assert several["p99"] >= several["p50"] > 0 and several["tokens_per_second"] > 0 and 0 < several["busy"] <= 1.05
