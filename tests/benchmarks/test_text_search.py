"""Step beam search by Prunus and by batched ``generate`` on full texts: the same tokens, and far fewer of them read."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "text_search.py"


def test_both_sides_write_the_same_and_ours_reads_each_token_once():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    figures = json.loads(done.stdout)  # it ends with an error if the two differ
    assert figures["search"] == "4x4" and figures["steps"] == 3 and figures["prompt_tokens"] >= 64
    assert figures["tokens_per_needed"] <= 1.05
    assert figures["partner_tokens"] > 3 * figures["tokens"]
    assert figures["seconds"]["median"] > 0
