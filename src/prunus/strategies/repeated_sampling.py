"""What k samples of a model are worth: pass@k and maj@k (test-time search basics, items 1 and 2).

pass@k is the chance that one of k samples is right, maj@k that the most frequent answer among k samples is. Both are
estimated without bias from n >= k samples, as the mean over all ways to draw k of the n.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from prunus.errors import require


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that k of n samples, ``right`` of which are right, hold a right one: 1 - C(n - right, k) / C(n, k)."""
    require(0 <= right <= n, "right", right, f"from 0 to n = {n}")
    require(1 <= k <= n, "k", k, f"from 1 to n = {n}")
    if n - right < k:
        return 1.0
    return 1 - math.prod(1 - k / i for i in range(n - right + 1, n + 1))


def majority_at_k(counts: Sequence[int], k: int) -> float:
    """The chance that the first answer has most votes among k of ``sum(counts)`` samples; ties are drawn by lot.

    ``counts[i]`` samples gave answer i.
    """
    require(1 <= k <= sum(counts), "k", k, f"from 1 to the number of samples, {sum(counts)}")
    ways = [lambda m, c=count: float(math.comb(c, m)) for count in counts]
    return _first_wins(ways, k) / math.comb(sum(counts), k)


def majority_probability(probabilities: Sequence[float], k: int) -> float:
    """The same for k fresh samples of a model that gives answer i with ``probabilities[i]``; they sum to 1."""
    require(k >= 1, "k", k, "at least 1")
    require(math.isclose(sum(probabilities), 1, abs_tol=1e-6), "probabilities", list(probabilities), "summing to 1")
    ways = [lambda m, p=p: p**m / math.factorial(m) for p in probabilities]
    return _first_wins(ways, k) * math.factorial(k)


def _first_wins(ways: Sequence[Callable[[int], float]], k: int) -> float:
    """Sum over all splits of k votes that the first answer wins; ``ways[i](m)`` weighs answer i having m of them."""
    total = 0.0
    for most in range(1, k + 1):
        # (votes given so far, answers that have as many as the first) -> weight
        splits: dict[tuple[int, int], float] = {(most, 0): ways[0](most)}
        for way in ways[1:]:
            longer: dict[tuple[int, int], float] = defaultdict(float)
            for (used, ties), weight in splits.items():
                for m in range(min(most, k - used) + 1):
                    longer[used + m, ties + (m == most)] += weight * way(m)
            splits = longer
        total += sum(weight / (1 + ties) for (used, ties), weight in splits.items() if used == k)
    return total
