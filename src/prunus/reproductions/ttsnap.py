"""Paper 04 in miniature: pruned best-of-n over noise seeds of one-frame images of the sprites world, 20 Euler steps.

A pool of candidates is grown once for each prompt (``previews.py``); searches are simulated on it, averaged over random
subsets of its candidates. Costs are honest: FLOPs of all network calls, of decoding and of reading every estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prunus import pocket
from prunus.reproductions.claim import HOLDS, Claim, Evidence, Finding, Trial
from prunus.reproductions.comparison import bootstrap
from prunus.strategies import PruneSchedule

STEPS = 20
SCHEDULE = PruneSchedule(after=(7, 10, 14), keep=(0.5, 0.5, 0.5))
"""Chosen on the dev split. The paper's (3, 7, 12) is for another generator; estimates are still black there in ours."""
SEEDS = tuple(range(2, 17))
"""Budgets: what best-of-n pays for so many seeds."""
MAIN = 8
"""The budget of the findings, in seeds of best-of-n."""
POOL = 64


def measure(trial: Trial) -> Evidence:
    from prunus.generators.streaming_video import StreamingVideo
    from prunus.reproductions.previews import area_gain, grow, simulate, taus
    from prunus.rewards import FrameReward, NoiseAwareReward
    from prunus.worlds.sprites import split

    one, two = split(trial.split, 1)[:20], split(trial.split, 2)
    prompts, seeds, pool_size, main = [*one, *two[:: max(1, len(two) // 80)][:80]], SEEDS, POOL, MAIN
    if trial.smoke:
        prompts, seeds, pool_size, main = prompts[:2], (2, 3, 4), 24, 3
    model = StreamingVideo.load(pocket.path("video")).model
    video = StreamingVideo(model, 1, model.streaming.euler(STEPS))
    decider = FrameReward.load(pocket.path("image-reward"), chunk_frames=1)
    aware = NoiseAwareReward.load(pocket.path("image-preview-reward"), chunk_frames=1)
    trial.say(f"{len(prompts)} prompts x {pool_size} images of {STEPS} steps")
    pool = grow(video, prompts, pool_size, decider, {"plain": decider, "noise-aware": aware}, 1000 * trial.seed)
    readings = {**pool.readings, "oracle": np.repeat(pool.final[:, :, None], STEPS, axis=2)}
    pool = type(pool)(pool.prompts, pool.final, pool.judge, readings)

    call, verification = model.flops(1, 0), model.decode_flops(1) + decider.cost([1]).flops
    alone = STEPS * call + verification
    affordable = {n: SCHEDULE.candidates_for(n * alone, call, verification, STEPS) for n in seeds}
    curves = {"best-of-n": [simulate(pool, None, None, n, seed=trial.seed) for n in seeds]}
    for name in ("noise-aware", "plain", "oracle"):
        curves[name] = [simulate(pool, name, SCHEDULE, affordable[n], seed=trial.seed) for n in seeds]

    at = list(seeds).index(main)
    findings = []
    for ours, name, against in (
        ("TTSnap", "noise-aware", "best-of-n"),
        ("TTSnap", "noise-aware", "plain"),
        ("pruning by the plain reward", "plain", "best-of-n"),
    ):
        mine, other = curves[name][at][1], curves[against][at][1]
        baseline = {"plain": "pruning by the plain reward"}.get(against, against)
        value, level, difference = (bootstrap([[v] for v in values]) for values in (mine, other, mine - other))
        findings.append(Finding(ours, baseline, value, level, difference))
    gains = {
        name: {
            kind: area_gain(*([c[i].mean() for c in curves[m]] for m in (name, "best-of-n")))
            for i, kind in enumerate(("reward", "judge"))
        }
        for name in ("noise-aware", "plain", "oracle")
    }
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "reward_by_budget": _means(curve, 0),
            "judge_by_budget": _means(curve, 1),
            "area_gain": gains.get(name),
            "tau_by_step": _taus(taus(pool.readings[name], pool.final)) if name in pool.readings else None,
        }
        for name, curve in curves.items()
    ]
    settings = {
        "split": trial.split, "model": "video", "prompts": len(prompts), "steps": STEPS, "pool": pool_size,
        "schedule": {"after": list(SCHEDULE.after), "keep": list(SCHEDULE.keep)}, "budgets": list(seeds),
        "candidates": list(affordable.values()), "n": main, "flops": {"call": call, "verification": verification},
        "judge_of_one": float(pool.judge.mean()),
    }  # fmt: skip
    return Evidence(_with_reasons(findings, gains, rows), settings, rows)


def _means(curve: Sequence[tuple[np.ndarray, np.ndarray]], which: int) -> list[float]:
    return [round(float(c[which].mean()), 4) for c in curve]


def _taus(found: Sequence[Any]) -> list[float | None]:
    return [round(t.mean, 3) if t else None for t in found]


def _with_reasons(findings: Sequence[Finding], gains: dict, rows: Sequence[dict]) -> list[Finding]:
    """Where the judge does not side with us, what the reward says: its area metric, and how it ranks estimates."""
    tau = {row["method"]: row["tau_by_step"] for row in rows}
    out = []
    for f in findings:
        name = "noise-aware" if f.ours == "TTSnap" else "plain"
        area = gains[name]
        early = ", ".join(f"{tau[name][s - 1]:.2f}" for s in SCHEDULE.after)
        reason = (
            f"by area the reward gains {area['reward']:+.1%} and the judge {area['judge']:+.1%} over best-of-n; "
            f"tau with the final reward where it prunes: {early}"
        )
        out.append(f if f.verdict == HOLDS else replace(f, reason=reason))
    return out


CLAIM = Claim(
    paper=4,
    title="TTSnap: Test-Time Scaling of Diffusion Models via Noise-Aware Pruning",
    says="Pruning noise seeds by a reward that was trained to read early estimates finds better images than best-of-n "
    "for the same compute; pruning by the plain reward does not.",
    baseline="best-of-n, and the same pruning by the plain reward",
    measured="the sprites judge's score of one-frame images, 20 Euler steps; equal FLOPs, all reading included",
    measure=measure,
)
