"""How the published families of streaming Wan generators stream: the ``streaming.json`` of a converted checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

STEPS = {"timesteps": [1000, 750, 500, 250], "shift": 5.0, "chunk": 3}
PICTURE = {"text_length": 512, "fps": 16, "size": [480, 832]}
FAMILIES: dict[str, dict[str, Any]] = {
    # 21 frames are all that they saw and attend to; a cache that rolls beyond them is the Self-Forcing paper's.
    "self-forcing": {**STEPS, "window": 21, "sink": 0, "max_sink": 0, "trained_frames": 21, **PICTURE},
    # Its published steps are not warped.
    "causvid": {**STEPS, "timesteps": [1000, 757, 522], "shift": 1.0, "window": 21, "sink": 0, "max_sink": 0,
                "trained_frames": 21, **PICTURE},
    # max_sink is Stream-T1's, which runs on LongLive; LongLive itself never adds sinks.
    "longlive": {**STEPS, "window": 12, "sink": 3, "max_sink": 15, "trained_frames": 240, **PICTURE},
    "wan": {},
}  # fmt: skip
"""``streaming.json`` by family, from their published settings; ``wan`` is bidirectional and gets none."""
ASSUMED = {
    "self-forcing": ["window 21 and no sinks (published: all frames, at most 21)"],
    "causvid": ["window 21 and no sinks (published: all frames, at most 21)"],
    "longlive": ["max_sink 15 (Stream-T1's; LongLive adds no sinks)"],
    "wan": [],
}


def guess_family(src: Path, lora: bool, nested: bool) -> tuple[str, str]:
    """The family of a checkpoint at ``src``, and the reason for the guess."""
    path = re.sub(r"[^a-z]", "", "".join(src.resolve().parts[-3:]).lower())
    for family in ("self-forcing", "causvid", "longlive"):
        if family.replace("-", "") in path:
            return family, "from its path"
    if lora:
        return "longlive", "it has a LoRA"
    return ("self-forcing", "it is a trainer's checkpoint") if nested else ("wan", "its tensors stand at the top")
