"""Numerics of distributions that are held as logarithms: tails far below the smallest float are kept."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SMALL = -30.0  # exp(SMALL) is lost beside 1: there log(1 - exp(-x)) is log x


def log_sum(x: Array) -> Array:
    return np.logaddexp.reduce(x, -1, keepdims=True)


def log_mean_exp(log_p: Array, x: Array) -> Array:
    """log sum p e^x, precise also if x is close to 0."""
    result = log_sum(log_p + x)[..., 0]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        near = np.log1p((np.exp(log_p) * np.expm1(x)).sum(-1))
    return np.where(np.abs(result) < 0.5, near, result)


def log_power_step(log_f: Array, log_c: Array, n: float) -> Array:
    """log(F^n - (F - c)^n), for any F in (0, 1] and 0 <= c <= F: N log F + log(1 - exp(-u)), u = -n log(1 - c/F)."""
    share = np.minimum(log_c - log_f, 0.0)
    with np.errstate(divide="ignore"):
        log_u = math.log(n) + np.where(share < SMALL, share, np.log(-np.log1p(-np.exp(share))))
        return n * log_f + np.where(log_u < SMALL, log_u, np.log(-np.expm1(-np.exp(np.minimum(log_u, 700.0)))))


def solve(increasing: Callable[[Array], Array], target: Array, low: Array, high: Array) -> Array:
    """Where an increasing function reaches ``target`` between ``low`` and ``high``, by bisection to the last bits."""
    low, high = np.array(low, float), np.array(high, float)
    for _ in range(200):
        middle = low + (high - low) / 2
        less = increasing(middle) < target
        low, high = np.where(less, middle, low), np.where(less, high, middle)
        if (high - low <= 2e-16 * np.maximum(np.abs(low), np.abs(high))).all():
            break
    return low + (high - low) / 2


def common_step(reward: Array) -> float:
    """The largest step of which all differences of rewards are multiples, to rounding; Euclid's algorithm."""
    values = np.unique(reward)
    step, tolerance = 0.0, 1e-9 * float(values[-1] - values[0])
    for difference in np.diff(values):
        a, b = float(difference), step
        while b > tolerance:
            a, b = b, abs(a - b * round(a / b))
        step = a
    return step or 1.0


def convolve(a: Array, b: Array) -> Array:
    """The distribution of a sum, all in logarithms, so that no tail is lost."""
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    out = np.full(len(a) + len(b) - 1, -np.inf)
    for i, log_mass in enumerate(short):
        out[i : i + len(long)] = np.logaddexp(out[i : i + len(long)], long + log_mass)
    return out
