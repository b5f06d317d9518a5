"""The whole path of a real checkpoint, tiny: converted, searched through UMT5 and Wan's autoencoder, written as mp4."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "full_path.py"


def test_a_checkpoint_goes_through_every_part_to_a_video():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    figures = json.loads(done.stdout)
    # Two chunks of 3 latent frames: the first shows 1 frame, the others 4 each. 2 x 4 candidates in 4 steps, 2 commits.
    assert figures["video"] == [1 + 5 * 4, 32, 48, 3] and figures["nfe"] == 2 * 4 * 4 + 2
    assert [stage["command"] for stage in figures["stages"]] == ["prunus convert", "prunus video"]
    assert all(stage["peak_bytes"] > 100e6 for stage in figures["stages"])
