"""How many tokens of a step must be seen before losers can be rejected (paper 41, arXiv 2508.01969).

Formulas of the paper, for N candidates of which N / M are kept, steps of L tokens and sub-Gaussian noise sigma:

    cost        N tau + (N / M) (L - tau) tokens, against N L
    bound       P(the best is rejected) <= (N - 1) exp(-gap^2 / (4 sigma^2))
    tau         >= rho^2 L for a correlation of rho, if every token adds as much noise as any other

That last assumption seldom holds, so tau is chosen from logged pairs: what was said of each candidate after tau tokens,
and of the same step when it was whole. A ``Group`` holds the pairs of candidates that competed with each other, since
correlations over all problems together flatter a reward. ``logged`` reads groups off a tree; to be fair they come from
``EarlyRejection(survive=keep * branch)``, which rejects nothing. Where an error stands in a step's last token partial
scores say nothing: then no tau is found, and early rejection should be left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prunus.errors import require
from prunus.strategies.early_rejection import partial

if TYPE_CHECKING:
    from prunus.tree import Tree

Group = Sequence[tuple[float, float]]
"""(partial, final) scores of the candidates of one choice."""


def expected_cost(candidates: int, branch: int, length: int, tau: int, scoring: float = 0.0) -> tuple[float, float]:
    """Tokens of a round with early rejection and without; a scoring counts as so many tokens."""
    kept = candidates / branch
    early = candidates * (tau + scoring) + kept * (length - tau + scoring)
    return early, candidates * (length + scoring)


def rejection_bound(candidates: int, gap: float, sigma: float) -> float:
    """The paper's bound of P(the best candidate is rejected); above 1 it says nothing."""
    return (candidates - 1) * math.exp(-(gap**2) / (4 * sigma**2))


def tau_for(rho: float, length: int) -> int:
    """The tau at which partial and final score correlate by ``rho`` if tokens contribute alike and independently."""
    require(0 < rho <= 1, "rho", rho, "in (0, 1]")
    return math.ceil(rho**2 * length)


def logged(tree: Tree, reward: str, preview: str | None = None) -> list[Group]:
    """The pairs of an EarlyRejection tree: one group for each round in which unfinished steps were weighed.

    Only steps that were finished have a pair; where some were rejected the pairs are of the better ones only.
    """
    groups: dict[int, list[tuple[float, float]]] = {}
    for node in tree.nodes[1:]:
        begun = node.parent
        if begun is None or begun.boundary or not node.boundary or reward not in node.scores:
            continue
        if (preview or reward) in begun.scores:
            pair = partial(begun.scores[preview or reward]), node.scores[reward].value
            groups.setdefault(begun.round, []).append(pair)
    return list(groups.values())


def correlation(groups: Sequence[Group]) -> float:
    """Pearson's correlation of partial and final scores within groups: their means are taken off first. 0 where either
    does not vary."""
    xs, ys = [], []
    for group in groups:
        partials, finals = [p for p, _ in group], [f for _, f in group]
        xs += [p - sum(partials) / len(group) for p in partials]
        ys += [f - sum(finals) / len(group) for f in finals]
    spread = math.sqrt(sum(x * x for x in xs) * sum(y * y for y in ys))
    return sum(x * y for x, y in zip(xs, ys, strict=True)) / spread if spread > 1e-12 else 0.0


def best_kept(groups: Sequence[Group], share: float) -> float:
    """How often the candidate of the best final score (any of them, if several share it) is among the round(share * n)
    best partial scores. Ties of partial scores are broken at random: their expectation is taken."""
    require(len(groups) > 0, "groups", groups, "at least one")
    return sum(_kept(group, max(1, round(share * len(group)))) for group in groups) / len(groups)


def _kept(group: Group, keep: int) -> float:
    top = max(final for _, final in group)
    edge = sorted((p for p, _ in group), reverse=True)[keep - 1]
    if any(p > edge for p, final in group if final == top):
        return 1.0
    tied, places = sum(p == edge for p, _ in group), keep - sum(p > edge for p, _ in group)
    ours = sum(p == edge for p, final in group if final == top)
    return 1 - math.comb(tied - ours, places) / math.comb(tied, places)


def choose_tau(pairs: Mapping[int, Sequence[Group]], rho: float = 0.9) -> int | None:
    """The smallest tau whose correlation is at least ``rho``; None if there is none."""
    return next((tau for tau in sorted(pairs) if correlation(pairs[tau]) >= rho), None)


def choose_tau_by_best(pairs: Mapping[int, Sequence[Group]], share: float, delta: float = 0.1) -> int | None:
    """The smallest tau at which the best is kept with 1 - ``delta``, where ``share`` is kept; None if there is none.

    That is the better criterion: the correlation may be high among candidates that do not matter.
    """
    return next((tau for tau in sorted(pairs) if best_kept(pairs[tau], share) >= 1 - delta), None)
