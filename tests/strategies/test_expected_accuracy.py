"""The expected accuracy of every strategy, worked out over all draws, against plain code of the same algorithm.

The world is three lines, each right or wrong; only a text of three right ones is right. The scorer likes right lines,
but not always: each beginning of a text has a score of its own. Both sides draw in their own order; only the sums over
all that can be drawn are compared.
"""

import math
from dataclasses import dataclass

import pytest
from enumerated import EnumeratedText, expectation

from prunus import Tree, search
from prunus.roles import FunctionReward
from prunus.strategies import (
    DVTS,
    REBASE,
    Beam,
    BestOfN,
    Lookahead,
    ParticleFilter,
    SuccessiveHalving,
    Vote,
)
from prunus.testing.scripted import draw

RIGHT = {"right ": 0.6, "wrong ": 0.4}


def options(written, length):
    """The next line's chances: a text that is wrong already is more likely to go wrong again."""
    if len(written) == length:
        return {}
    return RIGHT if "wrong " not in written else {"right ": 0.3, "wrong ": 0.7}


def score(steps):
    """Between 0 and 1, different for every beginning; on the whole higher for right ones."""
    return 0.05 + 0.5 * steps.count("right ") / len(steps) + 0.4 * draw("score", *steps)


class Marked(Tree):
    """A tree whose random numbers are one of so many evenly spaced marks."""

    def __init__(self, draws, marks):
        super().__init__("a prompt")
        self.draws, self.marks = draws, marks

    def rng(self, purpose):
        return self

    def random(self):
        return (self.draws.among([1] * self.marks) + 0.5) / self.marks


def measured(strategy, length, marks=1):
    """The strategy's expected accuracy, by running it for every way in which the draws can fall."""

    def run(draws):
        writer = EnumeratedText(lambda written: options(written, length), draws=draws)
        reward = FunctionReward(lambda text, prompt: score(text.steps), "reward")
        tree = search(Marked(draws, marks), writer, reward, strategy)
        return float("wrong " not in tree.best().output.steps)

    return expectation(run)


# ---- plain code: a candidate is a tuple of lines ---------------------------------------------------------------------


@dataclass
class Plain:
    """The algorithms without a tree; ``line`` draws one more line."""

    draws: object
    length: int

    def line(self, steps):
        chances = options(steps, self.length)
        return (*steps, list(chances)[self.draws.among(list(chances.values()))])

    def best_of_n(self, n, how=lambda scores: scores[-1]):
        texts = [()] * n
        for _ in range(self.length):
            texts = [self.line(t) for t in texts]
        return max(texts, key=lambda t: how([score(t[: i + 1]) for i in range(self.length)]))

    def beam(self, keep, branch):
        beams = [self.line(()) for _ in range(keep * branch)]
        for _ in range(self.length - 1):
            kept = sorted(beams, key=score, reverse=True)[:keep]
            beams = [self.line(t) for t in kept for _ in range(branch)]
        return max(beams, key=score)

    def dvts(self, keep, branch):
        finals = []
        for _ in range(keep):
            best = ()
            for _ in range(self.length):
                children = [self.line(best) for _ in range(branch)]
                best = max(children, key=score)
            finals.append(best)
        return max(finals, key=score)

    def lookahead(self, branch, ahead):
        """One beam; a roll takes the likelier line, and is the first child of the one that wins."""
        best, rolled = (), None
        for _ in range(self.length):
            children = [] if rolled is None else [rolled]
            children += [self.line(best) for _ in range(branch - len(children))]
            ends = [self.greedy(child, ahead) for child in children]
            top = max(range(branch), key=lambda i: score(ends[i]))
            best = children[top]
            rolled = ends[top][: len(best) + 1] if len(ends[top]) > len(best) else None
        return best

    def greedy(self, steps, more):
        while more and (chances := options(steps, self.length)):
            steps, more = (*steps, max(chances, key=chances.get)), more - 1
        return steps

    def rebase(self, n, temperature):
        texts = [self.line(()) for _ in range(n)]
        for _ in range(self.length - 1):
            texts.sort(key=score, reverse=True)
            weights, left, grown = [math.exp(score(t) / temperature) for t in texts], n, []
            for i, text in enumerate(texts):
                width = math.ceil(left * weights[i] / sum(weights[i:]) - 1e-9)
                grown += [self.line(text) for _ in range(width)]
                left -= width
            texts = grown
        return max(texts, key=score)

    def halving(self, n, cuts):
        texts = [()] * n
        for depth in range(1, self.length + 1):
            texts = [self.line(t) for t in texts]
            if depth in cuts:
                texts = sorted(texts, key=score, reverse=True)[: max(1, len(texts) // 2)]
        return max(texts, key=score)

    def majority(self, n):
        """The right text is one answer, the number of wrong lines makes the others; ties go to the earlier sample."""
        texts = [()] * n
        for _ in range(self.length):
            texts = [self.line(t) for t in texts]
        wrongs = [t.count("wrong ") for t in texts]
        winner = max(wrongs, key=wrongs.count)
        return texts[wrongs.index(winner)]

    def particles(self, n, threshold, marks):
        """Ratios of scores as weights, systematic draws when too few are effective."""
        particles, weights, before = [()] * n, [1.0] * n, [1.0] * n
        for _ in range(self.length):
            particles = [self.line(p) for p in particles]
            weights = [w * score(p) / b for w, p, b in zip(weights, particles, before)]
            before = [score(p) for p in particles]
            if len(particles[0]) < self.length and sum(weights) ** 2 / sum(w * w for w in weights) < threshold * n:
                offset = (self.draws.among([1] * marks) + 0.5) / marks
                chosen, total, at = [], 0.0, 0
                for i, weight in enumerate(weights):
                    total += weight / sum(weights)
                    while at < n and (at + offset) / n < total:
                        chosen.append(i)
                        at += 1
                chosen += [n - 1] * (n - len(chosen))
                particles, before = [particles[i] for i in chosen], [before[i] for i in chosen]
                weights = [1.0] * n
        return max(particles, key=score)


def worked_out(name, *arguments, length):
    return expectation(lambda draws: float("wrong " not in getattr(Plain(draws, length), name)(*arguments)))


CASES = [
    (BestOfN(3), 3, ("best_of_n", 3)),
    (BestOfN(3, aggregate="min"), 3, ("best_of_n", 3, min)),
    (BestOfN(3, aggregate="product"), 3, ("best_of_n", 3, math.prod)),
    (Beam(1, 3), 3, ("beam", 1, 3)),
    (Beam(2, 2), 2, ("beam", 2, 2)),
    (DVTS(2, 2), 2, ("dvts", 2, 2)),
    (DVTS(1, 3), 3, ("dvts", 1, 3)),
    (Lookahead(1, 3, 1), 3, ("lookahead", 3, 1)),
    (Lookahead(1, 2, 2), 3, ("lookahead", 2, 2)),
    (REBASE(3, 0.2), 3, ("rebase", 3, 0.2)),
    (REBASE(4, 0.3), 2, ("rebase", 4, 0.3)),
    (SuccessiveHalving(4, (1,)), 3, ("halving", 4, (1,))),
    (SuccessiveHalving(4, (1, 2)), 3, ("halving", 4, (1, 2))),
    (Vote(BestOfN(3), answer=lambda text: text.steps.count("wrong ")), 3, ("majority", 3)),
    (ParticleFilter(2, threshold=0.9), 3, ("particles", 2, 0.9, 5)),
    (ParticleFilter(3, threshold=0.5), 2, ("particles", 3, 0.5, 5)),
    (ParticleFilter(3, threshold=0.8), 2, ("particles", 3, 0.8, 7)),
]


@pytest.mark.parametrize(("strategy", "length", "plain"), CASES, ids=lambda x: x[0] if isinstance(x, tuple) else None)
def test_the_expected_accuracy_is_that_of_the_plain_algorithm(strategy, length, plain):
    expected = worked_out(*plain, length=length)
    marks = plain[-1] if plain[0] == "particles" else 1
    assert measured(strategy, length, marks) == pytest.approx(expected, abs=1e-9)
    assert 0 < expected < 1


def test_the_values_by_hand():
    """One sample: 0.6^3. Best of two samples of one line: 1 - 0.4^2, as the right line has the higher score."""
    assert measured(BestOfN(1), 3) == pytest.approx(0.216)
    assert score(("right ",)) > score(("wrong ",))
    for strategy in (BestOfN(2), Beam(1, 2), DVTS(1, 2), DVTS(2, 1), REBASE(2), ParticleFilter(2), Lookahead(1, 2, 3)):
        assert measured(strategy, 1) == pytest.approx(0.84)
