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
SCHEDULE = PruneSchedule(after=(8,), keep=(0.3,))
"""The best of thirteen on the dev split. After the paper's 3, 7 and 12 steps, estimates of this generator tell less."""
SEEDS = tuple(range(2, 17))
"""Budgets: what best-of-n pays for so many seeds."""
MAIN = 8
"""The budget of the findings, in seeds of best-of-n."""
POOL = 40
BEST_OF_N, PLAIN, AWARE, ORACLE = "best-of-n", "pruning by the plain reward", "TTSnap", "pruning by the final reward"


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
    decider = FrameReward.load(pocket.path("frame-reward"), chunk_frames=1)
    aware = NoiseAwareReward.load(pocket.path("image-preview-reward"), chunk_frames=1)
    trial.say(f"{len(prompts)} prompts x {pool_size} images of {STEPS} steps")
    pool = grow(video, prompts, pool_size, decider, {PLAIN: decider, AWARE: aware}, 1000 * trial.seed)
    readings = {**pool.readings, ORACLE: np.repeat(pool.final[:, :, None], STEPS, axis=2)}
    pool = type(pool)(pool.prompts, pool.final, pool.judge, readings)

    call, verification = model.flops(1, 0), model.decode_flops(1) + decider.cost([1]).flops
    alone = STEPS * call + verification
    affordable = {n: SCHEDULE.candidates_for(n * alone, call, verification, STEPS) for n in seeds}
    curves = {BEST_OF_N: [simulate(pool, None, None, n, seed=trial.seed) for n in seeds]}
    for name in (AWARE, PLAIN, ORACLE):
        curves[name] = [simulate(pool, name, SCHEDULE, affordable[n], seed=trial.seed) for n in seeds]

    at = list(seeds).index(main)
    findings = []
    mine = curves[AWARE][at][1]
    for baseline in (BEST_OF_N, PLAIN):
        other = curves[baseline][at][1]
        value, level, difference = (bootstrap([[v] for v in values]) for values in (mine, other, mine - other))
        findings.append(Finding("TTSnap", baseline, value, level, difference))
    gains = {
        name: {
            kind: area_gain(*([c[i].mean() for c in curves[m]] for m in (name, BEST_OF_N)))
            for i, kind in enumerate(("reward", "judge"))
        }
        for name in curves
    }
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "reward_by_budget": _means(curve, 0),
            "judge_by_budget": _means(curve, 1),
            "area gain, reward": gains[name]["reward"],
            "area gain, judge": gains[name]["judge"],
            "judge": float(curve[at][1].mean()),
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
    findings = _with_reasons(findings, gains, rows, verification / call)
    return Evidence(findings, settings, rows, columns=("method", "judge", "area gain, reward", "area gain, judge"))


def _means(curve: Sequence[tuple[np.ndarray, np.ndarray]], which: int) -> list[float]:
    return [round(float(c[which].mean()), 4) for c in curve]


def _taus(found: Sequence[Any]) -> list[float | None]:
    return [round(t.mean, 3) if t else None for t in found]


def _with_reasons(findings: Sequence[Finding], gains: dict, rows: Sequence[dict], price: float) -> list[Finding]:
    """Where the judge does not side with us: the area metric, how estimates are ranked, and what reading one costs."""
    tau = {row["method"]: row["tau_by_step"] for row in rows}
    early, plain = (", ".join(f"{tau[name][s - 1]:.2f}" for s in SCHEDULE.after) for name in (AWARE, PLAIN))
    mine, most = gains[AWARE], gains[ORACLE]
    reason = (
        f"by area the reward gains {mine['reward']:+.0%} and the judge {mine['judge']:+.0%} over best-of-n, with an "
        f"oracle {most['reward']:+.0%} and {most['judge']:+.0%}; where it prunes, tau with the final reward is {early} "
        f"(plain {plain}), and reading an estimate costs {price:.1f} network calls (paper: 0.1)"
    )
    return [f if f.verdict == HOLDS else replace(f, reason=reason) for f in findings]


CLAIM = Claim(
    paper=4,
    title="TTSnap: Test-Time Scaling of Diffusion Models via Noise-Aware Pruning",
    says="Pruning noise seeds by a reward that was trained to read early estimates finds better images than best-of-n "
    "for the same compute; pruning by the plain reward does not.",
    baseline="best-of-n, and the same pruning by the plain reward",
    measured="the sprites judge's score of one-frame images, 20 Euler steps; equal FLOPs, all reading included",
    measure=measure,
)
