"""Every look at the report split is counted: what is mended after a look is tuned on it (DESIGN: once a version)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.errors import FileError

REPORT_RUNS = Path("runs/report-split.jsonl")


def count_run(about: Mapping[str, Any], methods: Sequence[str]) -> int:
    """Note in ``runs/report-split.jsonl`` that the report split was run; returns how often with this version and model.

    ``about`` has at least ``prunus`` and ``model``.
    """
    try:
        REPORT_RUNS.parent.mkdir(exist_ok=True)
        with REPORT_RUNS.open("a+") as file:
            file.write(json.dumps({**about, "methods": list(methods)}) + "\n")
            file.seek(0)
            runs = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise FileError(f"{REPORT_RUNS}, where runs on the report split are counted, cannot be used: {error}") from None
    return sum((run["prunus"], run["model"]) == (about["prunus"], about["model"]) for run in runs)
