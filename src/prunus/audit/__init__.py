"""Audit: can a reward be trusted, and what does optimising it cost?"""

from prunus.audit.alignment import (
    Distance,
    Optimum,
    best_of_n,
    best_of_n_kl_bound,
    cumulant_function,
    distance_to_frontier,
    frontier,
    mean_reward,
    memoryless,
    n_for_kl,
    optimum,
    rate_function,
    relative_entropy,
    renyi_cross_entropy,
    tilt,
)

__all__ = [
    "Distance",
    "Optimum",
    "best_of_n",
    "best_of_n_kl_bound",
    "cumulant_function",
    "distance_to_frontier",
    "frontier",
    "mean_reward",
    "memoryless",
    "n_for_kl",
    "optimum",
    "rate_function",
    "relative_entropy",
    "renyi_cross_entropy",
    "tilt",
]
