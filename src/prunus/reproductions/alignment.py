"""Paper 58, Asymptotics of Language Model Alignment: best-of-N with N = exp(m d) nears the KL-constrained optimum.

Sequences of m independent symbols of three references, rewards that add up, d = 0.1 nats a symbol. Nothing is sampled:
both distributions are computed exactly (``audit.alignment``), the first of them is the paper card's. Rewards of a
symbol lie in [0, 1], so that "the same" means within 0.02 of their range.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from prunus.audit.alignment import (
    best_of_n,
    frontier,
    mean_reward,
    memoryless,
    optimum,
    relative_entropy,
    tilt,
)
from prunus.report.curves import Curve, write_curves
from prunus.reproductions.claim import SAME, Claim, Evidence, Finding, Trial
from prunus.reproductions.comparison import Interval

KL = 0.1
LENGTHS = (10, 50, 100, 400, 1000, 2000)
REFERENCES = {
    "coin": ([0.5, 0.5], [0.0, 1.0]),
    "three symbols": ([0.5, 0.3, 0.2], [0.0, 0.5, 1.0]),
    "rare best": ([0.9, 0.09, 0.01], [0.0, 0.5, 1.0]),
}
COLUMNS = ("reference", "m", "N", "optimum", "best-of-N", "gap", "KL(best-of-N, reference)", "KL(best-of-N, optimum)")


def measure(trial: Trial) -> Evidence:
    lengths = LENGTHS[:3] if trial.smoke else LENGTHS
    rows = [row(name, m) for name in REFERENCES for m in lengths]
    findings = []
    for name in REFERENCES:
        own = [r for r in rows if r["reference"] == name]
        first, before, last = own[0], own[-2], own[-1]
        seen = (
            f"at m = {first['m']}, where N = {first['N']:.1f}, the gap is {first['gap']:.3f}; N is {last['N']:.0e} here"
        )
        at = f"{name}, m = {last['m']}"
        findings += [
            _finding(f"reward of best-of-N: {at}", "optimum", last["best-of-N"], last["optimum"], SAME, seen),
            _finding(f"minus KL(best-of-N, optimum): {at}", "0", -last[COLUMNS[-1]], 0.0, SAME),
            _finding(f"gap: {name}, m = {before['m']}", f"m = {last['m']}", before["gap"], last["gap"]),
        ]
    settings = {
        "KL per symbol": KL,
        "symbols": f"{lengths[0]} to {lengths[-1]}",
        "figures": "exact",
    }
    return Evidence(findings, settings, rows, COLUMNS, {"frontier": draw})


def row(name: str, m: int) -> dict:
    """What best-of-N and the optimum have at one length: figures per symbol."""
    log_p, reward = np.log(REFERENCES[name][0]), np.array(REFERENCES[name][1])
    best, n = optimum(log_p, reward, KL), math.exp(KL * m)
    sums, total = memoryless(log_p, reward, m)
    log_q, log_phi = best_of_n(sums, total, n), tilt(sums, total, best.strength)
    reached = float(mean_reward(log_q, total)) / m
    kls = (float(relative_entropy(log_q, other)) / m for other in (sums, log_phi))
    return dict(
        zip(COLUMNS, (name, m, n, float(best.reward), reached, float(best.reward) - reached, *kls), strict=True)
    )


def draw(path: Path) -> None:
    """The coin's reward against its KL, per symbol: the frontier, and best-of-N of short and longer sequences."""
    log_p, reward = np.log(REFERENCES["coin"][0]), np.array(REFERENCES["coin"][1])
    curves = [_curve("optimum", *frontier(log_p, reward, np.linspace(0, 1.4, 71)))]
    for m in (10, 100):
        sums, total = memoryless(log_p, reward, m)
        policies = [best_of_n(sums, total, math.exp(kl * m)) for kl in np.linspace(0, 0.32, 97)]
        kl = np.array([relative_entropy(log_q, sums) for log_q in policies]) / m
        gained, shown = np.array([mean_reward(log_q, total) for log_q in policies]) / m, kl < curves[0].at[-1]
        curves.append(_curve(f"best-of-N, m = {m}", kl[shown], gained[shown]))
    write_curves(path, curves, "reward per symbol", "KL from the reference per symbol, nats")


def _curve(name: str, kl: np.ndarray, reward: np.ndarray) -> Curve:
    return Curve(name, [_exact(value) for value in reward], kl.tolist())


def _exact(value: float) -> Interval:
    return Interval(float(value), float(value), float(value))


def _finding(ours: str, base: str, a: float, b: float, more_than: float = 0.0, reason: str = "") -> Finding:
    return Finding(ours, base, _exact(a), _exact(b), _exact(a - b), more_than, reason)


CLAIM = Claim(
    paper=58,
    title="Asymptotics of Language Model Alignment",
    says="Best-of-N with N = exp(m d) and the optimum of KL m d come to the same expected reward per symbol, and are "
    "close in KL, as sequences of m independent symbols grow.",
    baseline="the exact optimum, an exponential tilt of the reference",
    measured="expected reward and KL per symbol at d = 0.1 nats, by exact computation for three references",
    measure=measure,
)
