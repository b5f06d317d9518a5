"""Paper 01, Stream-T1: a guided search over the chunks of a video beats plain generation, best-of-n and a chunk beam.

One-sprite prompts, 21 frames, the packaged models. Two schedules of the same cost are tried: the paper's, two survivors
with two children each, and the one that ``streaming.json`` recommends (most candidates in the first chunk). The chunk
beam has the schedule of the Stream-T1 that it is compared with; best-of-n has at least the FLOPs of the dearest search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from prunus import pocket
from prunus.reproductions.claim import HOLDS, Claim, Evidence, Finding, Trial
from prunus.reproductions.comparison import Outcome, Row, equal_cost_n, run_method, table
from prunus.roles import Reward, Strategy

DECIDER = "clip-reward"


def measure(trial: Trial) -> Evidence:
    from prunus.generators.streaming_video import StreamingVideo
    from prunus.rewards import ClipReward, FrameReward
    from prunus.strategies import Beam, BestOfN, StreamT1
    from prunus.worlds.sprites import judge, split

    prompts, seeds, frames = split(trial.split, 1)[:20], range(trial.seed, trial.seed + 2), 21
    if trial.smoke:
        prompts, seeds, frames = prompts[:1], seeds[:1], 6
    generator = StreamingVideo.load(pocket.path("video"), frames)
    short, clip = FrameReward.load(pocket.path("frame-reward")), ClipReward.load(pocket.path("clip-reward"))
    recommended = generator.model.streaming.search

    outcomes: dict[str, list[Outcome]] = {}
    strategies: dict[str, Strategy] = {}

    def run(name: str, strategy: Strategy, rewards: Sequence[Reward]) -> None:
        trial.say(f"{name}: {len(prompts) * len(seeds)} videos")
        strategies[name] = strategy
        outcomes[name] = run_method(
            prompts, seeds, generator, rewards, strategy, DECIDER, lambda v, p: judge(v.numpy(), p).value
        )

    run("plain", BestOfN(n=1, reward=DECIDER), [clip])
    pairs = {}
    for schedule, how in {"2x2": ({}, {}), "recommended": (recommended["stream-t1"], recommended["beam"])}.items():
        ours, beam = (f"{name} {schedule}" for name in ("Stream-T1", "chunk beam"))
        run(beam, Beam(**how[1], reward=DECIDER), [clip])
        run(ours, StreamT1(**how[0]), [short, clip])
        pairs[ours] = beam
    cost = {name: sum(o.cost.flops for o in some) for name, some in outcomes.items()}
    n = equal_cost_n(max(cost.values()), cost["plain"])
    run("best-of-n", BestOfN(n=n, reward=DECIDER), [clip])

    findings = [compare(outcomes, ours, base) for ours, beam in pairs.items() for base in ("plain", "best-of-n", beam)]
    settings = {
        "split": trial.split, "model": "video", "prompts": len(prompts), "seeds": len(seeds),
        "frames": frames, "n": n, "strategies": {name: strategy.spec() for name, strategy in strategies.items()},
    }  # fmt: skip
    return Evidence(findings, settings, [asdict(row) for row in table(outcomes)])


def compare(outcomes: Mapping[str, Sequence[Outcome]], ours: str, baseline: str) -> Finding:
    """The difference in the judge's score, and, where ours is not better, how alike the two searches' choices are."""
    rows: dict[str, Row] = {row.method: row for row in table(outcomes, baseline)}
    value, base, difference = rows[ours].judge, rows[baseline].judge, rows[ours].against
    assert value and base and difference
    found: dict[str, Any] = {"value": value, "base": base, "difference": difference}
    reason = ""
    if Finding(ours, baseline, **found).verdict != HOLDS:
        pairs = list(zip(outcomes[ours], outcomes[baseline], strict=True))
        alike = [(a.judge, b.judge) for a, b in pairs if a.path and b.path and a.path[0] == b.path[0]]
        reason = f"{len(alike)} of {len(pairs)} videos begin with the same first chunk in both"
        if alike:
            apart = np.abs(np.subtract(*np.array(alike, float).T)).mean()
            reason += f"; those end {apart:.3f} apart by the judge on average, whatever was decided later"
    return Finding(ours, baseline, reason=reason, **found)


CLAIM = Claim(
    paper=1,
    title="Stream-T1: Test-Time Scaling for Streaming Video Generation",
    says="Pruning chunk by chunk with noise propagation, a short and a long reward and memory sinking gives better "
    "videos than plain generation, best-of-n and a chunk beam for the same cost.",
    baseline="plain generation (cheaper), best-of-n and a chunk beam",
    measured="the sprites judge's score of 21-frame videos, one sprite; equal FLOPs in all",
    measure=measure,
)
