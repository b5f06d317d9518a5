"""How much reward a divergence from the reference buys: the exact optimum, best-of-N, and the frontier between them.

A reference p over finitely many outcomes and a reward r. Of all distributions with KL(q || p) <= D the tilt

    phi(y) = p(y) exp(lambda r(y)) / Z(lambda),    log Z(lambda) = log E_p exp(lambda r),    KL(phi || p) = D

has the most reward, and anything with nearly as much is near it, because for every q

    KL(q || phi) = KL(q || p) - KL(phi || p) + lambda (E_phi r - E_q r)

KL grows with lambda (its derivative is lambda Var_phi r), so lambda is found by bisection. It cannot grow beyond
-log p(best outcomes): there the optimum is p among the best outcomes. Best-of-N takes the best of N draws: with F the
distribution function of the reward, the outcomes of reward r_i together have F_i^N - F_(i-1)^N, shared as p shares it.

For m independent symbols and a reward that is a sum over them everything is m times that of a symbol. The mean reward
R/m under the tilt by lambda deviates at the rate I(u) = sup_t (t u - Lambda(t)), Lambda(t) = log Z(lambda + t) -
log Z(lambda). If r = log q, then log Z(t) = -t H_t(p, q) with the Renyi cross entropy H_t. Best-of-N with N = exp(m d)
comes, per symbol, as close to the optimum of KL m d as one likes when m grows.

Shapes: ``log_p`` and ``reward`` are (outcomes,) or (prompts, outcomes), natural logarithms; results have the shape
without the last axis, KL in nats per outcome (a sequence, if outcomes are sequences). Everything is float64; tails are
kept by logarithms of the survival function, so that N may be e^700. Rewards are tied if they are exactly equal.

Source: Yang, Salamatian, Sun, Suresh, Beirami, arXiv 2404.01730 (2024). Its theorems are about the given reward: with a
proxy both over-optimise. Best-of-N spends about the same KL on every prompt, one lambda for all (RL) does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunus.audit.log_space import Array, common_step, convolve, log_mean_exp, log_power_step, log_sum, solve
from prunus.errors import SettingError, require

MOST_SUMS = 10**6


@dataclass(frozen=True)
class Optimum:
    """The tilt of a given KL: ``log_probabilities`` (..., outcomes), its ``strength`` lambda, ``kl`` and ``reward``.

    ``saturated``: the KL allows for the best outcomes alone, lambda is infinite. ``constant``: all outcomes have the
    same reward, so that every lambda is as good; it is the reference, lambda 0.
    """

    log_probabilities: Array
    strength: Array
    kl: Array
    reward: Array
    saturated: NDArray[np.bool_]
    constant: NDArray[np.bool_]


@dataclass(frozen=True)
class Distance:
    """A policy beside the optimum of its own KL: ``gap`` = ``best_reward`` - ``reward``; ``kl_to_optimum``."""

    kl: Array
    reward: Array
    best_reward: Array
    gap: Array
    kl_to_optimum: Array


# ---- finite outcomes -------------------------------------------------------------------------------------------------


def tilt(log_p: ArrayLike, reward: ArrayLike, strength: ArrayLike) -> Array:
    """log phi for lambda = ``strength`` (...), of any sign; infinite: the reference among the best (worst) outcomes."""
    log_p, reward = _checked(log_p, reward)
    lam = np.asarray(strength, float)[..., None]
    require(not np.isnan(lam).any(), "strength", strength, "a number")
    low, high = _ends(log_p, reward)
    from_peak = np.where(log_p > -np.inf, reward, high) - np.where(lam < 0, low, high)
    with np.errstate(invalid="ignore"):
        tilted = log_p + np.where(from_peak == 0, 0.0, lam * from_peak)
    return tilted - log_sum(tilted)


def optimum(log_p: ArrayLike, reward: ArrayLike, kl: ArrayLike) -> Optimum:
    """The distribution of the most reward within ``kl`` (...) of the reference."""
    log_p, reward = _checked(log_p, reward)
    require(bool((np.asarray(kl) >= 0).all()), "kl", kl, "at least 0")
    kl = np.broadcast_to(np.asarray(kl, float), np.broadcast_shapes(np.shape(kl), log_p.shape[:-1]))
    low, high = _ends(log_p, reward)
    can = log_p > -np.inf
    second = np.where((reward < high) & can, reward, -np.inf).max(-1)
    constant = np.broadcast_to((low == high)[..., 0], kl.shape)
    most = np.where(constant, 0.0, _far(log_p) / (high[..., 0] - second))  # leaves nothing of the others
    highest = relative_entropy(tilt(log_p, reward, most), log_p)
    saturated = ~constant & (kl >= highest)
    strength = solve(lambda lam: relative_entropy(tilt(log_p, reward, lam), log_p), kl, np.zeros_like(kl), most)
    strength = np.where(constant | (kl == 0), 0.0, np.where(saturated, np.inf, strength))
    log_phi = tilt(log_p, reward, strength)
    reached = relative_entropy(log_phi, log_p)
    return Optimum(log_phi, strength, reached, mean_reward(log_phi, reward), saturated, constant)


def best_of_n(log_p: ArrayLike, reward: ArrayLike, n: float) -> Array:
    """Logarithms of the probabilities with which each outcome is the best of ``n`` draws, ties drawn; any n >= 1."""
    log_p, reward = _checked(log_p, reward)
    require(1 <= n < math.inf, "n", n, "a finite number from 1")
    log_q = np.full_like(log_p, -np.inf)
    for row in np.ndindex(log_p.shape[:-1]):
        can = log_p[row] > -np.inf
        p, (values, which) = log_p[row][can], np.unique(reward[row][can], return_inverse=True)
        tied = np.full(len(values), -np.inf)  # the outcomes of each reward together
        np.logaddexp.at(tied, which, p)
        above = np.append(np.logaddexp.accumulate(tied[::-1])[-2::-1], -np.inf)
        # Near 1 the distribution function says nothing any more, the survival function does.
        upper = np.log1p(-np.exp(np.minimum(above, -0.5)))
        log_f = np.where(above < -0.5, upper, np.logaddexp.accumulate(tied))
        log_q[row][can] = p + (log_power_step(log_f, tied, n) - tied)[which]
    return log_q


def best_of_n_kl_bound(n: ArrayLike) -> Array:
    """log N - (N - 1)/N: KL(best-of-N || reference) of a continuous reward; an upper bound, not close, with ties."""
    n = np.asarray(n, float)
    require(bool((n >= 1).all()), "n", n, "at least 1")
    return np.log(n) + np.expm1(-np.log(n))


def n_for_kl(kl: ArrayLike) -> Array:
    """The real N whose bound is ``kl``."""
    kl = np.asarray(kl, float)
    require(bool((kl >= 0).all()), "kl", kl, "at least 0")
    return np.exp(solve(lambda log_n: log_n + np.expm1(-log_n), kl, kl, kl + 1))


def frontier(log_p: ArrayLike, reward: ArrayLike, strengths: ArrayLike) -> tuple[Array, Array]:
    """KL and expected reward of the tilts: two arrays (strengths, ...)."""
    tilts = [tilt(log_p, reward, lam) for lam in np.ravel(np.asarray(strengths, float))]
    return np.array([relative_entropy(t, log_p) for t in tilts]), np.array([mean_reward(t, reward) for t in tilts])


def distance_to_frontier(log_q: ArrayLike, log_p: ArrayLike, reward: ArrayLike) -> Distance:
    """How far an aligned policy q is from the most reward that its KL could buy."""
    kl, got = relative_entropy(log_q, log_p), mean_reward(log_q, reward)
    best = optimum(log_p, reward, kl)
    return Distance(kl, got, best.reward, best.reward - got, relative_entropy(log_q, best.log_probabilities))


def relative_entropy(log_q: ArrayLike, log_p: ArrayLike) -> Array:
    """KL(q || p), summed as q log(q/p) - q + p: each term is at least 0, so that little is lost if q is close to p."""
    log_q, log_p = np.broadcast_arrays(np.asarray(log_q, float), np.asarray(log_p, float))
    q, p = np.exp(log_q), np.exp(log_p)
    with np.errstate(invalid="ignore", over="ignore"):
        a = np.where(q > 0, log_q - log_p, -np.inf)
        near = p * (np.where(q > 0, a, 0.0) * np.exp(np.minimum(a, 1)) - np.expm1(np.minimum(a, 1)))
        return np.maximum(np.where(a < 1, near, q * a - q + p).sum(-1), 0.0)


def mean_reward(log_q: ArrayLike, reward: ArrayLike) -> Array:
    """E_q r; what an outcome without probability would bring does not matter."""
    q = np.exp(np.asarray(log_q, float))
    return (q * np.where(q > 0, reward, 0.0)).sum(-1)


# ---- memoryless sequences --------------------------------------------------------------------------------------------


def memoryless(log_p: ArrayLike, reward: ArrayLike, m: int) -> tuple[Array, Array]:
    """The sum of the rewards of ``m`` independent symbols: logarithms of its probabilities, and its values.

    Sequences of equal sums have one reward, so that all functions here hold for sums as for sequences. Symbols (v,)
    have rewards that are multiples of one step apart, such as 0, 1, 2; SettingError if that gives over 10^6 sums.
    """
    log_p, reward = _checked(log_p, reward)
    require(m >= 1 and log_p.ndim == 1, "m", m, "at least 1, for the symbols of one prompt")
    log_p, reward = log_p[log_p > -np.inf], reward[log_p > -np.inf]
    least, step = float(reward.min()), common_step(reward)
    places = np.rint((reward - least) / step).astype(int)
    sums = m * int(places.max()) + 1
    require(sums <= MOST_SUMS, "reward", reward, f"multiples of one step apart, with at most {MOST_SUMS} sums")
    symbol = np.full(places.max() + 1, -np.inf)
    np.logaddexp.at(symbol, places, log_p)
    total, power, left = np.zeros(1), symbol, m
    while left:
        total = convolve(total, power) if left % 2 else total
        left //= 2
        power = convolve(power, power) if left else power
    return total, m * least + step * np.arange(sums, dtype=float)


def cumulant_function(log_p: ArrayLike, reward: ArrayLike, t: ArrayLike, strength: float = 0.0) -> Array:
    """Lambda(t) = log E_phi exp(t r), phi the tilt by ``strength``, for each t (...): its derivatives at 0 are phi's
    cumulants, the mean reward and its variance first. One prompt: (outcomes,)."""
    log_phi = tilt(log_p, reward, strength)
    return log_mean_exp(log_phi, np.asarray(t, float)[..., None] * np.asarray(reward, float))


def rate_function(log_p: ArrayLike, reward: ArrayLike, u: ArrayLike, strength: float = 0.0) -> Array:
    """I(u) = sup_t (t u - Lambda(t)): P(R/m near u) falls as exp(-m I(u)) under the tilt by ``strength``.

    Computed as KL(phi_(lambda + t) || phi_lambda) where the further tilt has mean u; infinite where no outcome reaches.
    """
    log_p, reward = _checked(log_p, reward)
    u, log_phi = np.asarray(u, float), tilt(log_p, reward, strength)
    low, high = (end[..., 0] for end in _ends(log_p, reward))
    if low == high:
        return np.where(u == low, 0.0, np.inf)
    values = np.unique(reward[log_p > -np.inf])
    far = _far(log_p) / np.diff(values).min()
    t = solve(lambda t: mean_reward(tilt(log_phi, reward, t), reward), u, np.full_like(u, -far), np.full_like(u, far))
    t = np.where(u <= low, -np.inf, np.where(u >= high, np.inf, t))
    return np.where((u < low) | (u > high), np.inf, relative_entropy(tilt(log_phi, reward, t), log_phi))


def renyi_cross_entropy(log_p: ArrayLike, log_q: ArrayLike, t: float) -> Array:
    """H_t(p, q) = -(1/t) log sum p q^t; t = 0: the cross entropy -sum p log q."""
    log_p, log_q = np.asarray(log_p, float), np.asarray(log_q, float)
    if t == 0:
        return -mean_reward(log_p, log_q)
    return -log_mean_exp(log_p, t * np.where(log_p > -np.inf, log_q, 0.0)) / t


# ---- checks ----------------------------------------------------------------------------------------------------------


def _checked(log_p: ArrayLike, reward: ArrayLike) -> tuple[Array, Array]:
    log_p, reward = np.broadcast_arrays(np.asarray(log_p, float), np.asarray(reward, float))
    require(log_p.ndim >= 1 and log_p.shape[-1] >= 1, "log_p", log_p.shape, "(..., outcomes) with at least one outcome")
    with np.errstate(invalid="ignore"):
        total = log_sum(log_p)
    if not (np.abs(total) < 1e-4).all():
        raise SettingError(f"log_p must be logarithms of probabilities that sum to 1; they sum to {np.exp(total).T}")
    require(bool(np.isfinite(reward[log_p > -np.inf]).all()), "reward", reward, "finite wherever p is not 0")
    return log_p - total, reward


def _ends(log_p: Array, reward: Array) -> tuple[Array, Array]:
    """The least and the most reward of outcomes that can happen, (..., 1)."""
    can = log_p > -np.inf
    return np.where(can, reward, np.inf).min(-1, keepdims=True), np.where(can, reward, -np.inf).max(-1, keepdims=True)


def _far(log_p: Array) -> Array:
    """A lambda times a difference of rewards that takes any of these outcomes below the smallest float."""
    return 800 - np.where(log_p > -np.inf, log_p, 0.0).min(-1)
