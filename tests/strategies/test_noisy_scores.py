"""Search with a scorer that is the truth and noise, at equal tokens: what it finds as the noise grows.

Six lines, each right with chance 0.6 whatever stands before; the truth of a beginning is 1 if all its lines are right,
else 0. One sample is right with chance 0.6^6 = 0.047, the best of eight with 1 - (1 - 0.047)^8 = 0.32.
"""

import math
from functools import cache

import pytest

from prunus import search_many
from prunus.roles import FunctionReward
from prunus.strategies import (
    DVTS,
    REBASE,
    Beam,
    BestOfN,
    Lookahead,
    ParticleFilter,
    SuccessiveHalving,
)
from prunus.testing import ScriptedText
from prunus.testing.scripted import draw

LINES, TOKENS = 6, 8 * 6 * 6
WRITER = ScriptedText(lambda written: {} if len(written) == LINES else {"right ": 0.6, "wrong ": 0.4}, most=6 * LINES)
STRATEGIES = {
    "best-of-n": BestOfN(8),
    "beam": Beam(2, 4),
    "dvts": DVTS(2, 4),
    "rebase": REBASE(8),
    "particles": ParticleFilter(8, "exponential", 0.2),
    "halving": SuccessiveHalving(16, (1, 2, 4)),
    "lookahead": Lookahead(1, 4, 1),
}
GUIDED = ("beam", "dvts", "rebase", "particles")
PROMPTS = 60


def gauss(*parts):
    """A standard normal number that depends on the parts alone."""
    return math.sqrt(-2 * math.log(1 - draw("radius", *parts))) * math.cos(2 * math.pi * draw("angle", *parts))


@cache
def searched(name, sigma):
    reward = FunctionReward(
        lambda text, prompt: float("wrong " not in text.steps) + sigma * gauss(prompt, *text.steps), "noisy"
    )
    return search_many([f"problem {i}" for i in range(PROMPTS)], WRITER, reward, STRATEGIES[name])


def accuracy(name, sigma):
    return sum("wrong " not in tree.best().output.steps for tree in searched(name, sigma)) / PROMPTS


@pytest.mark.parametrize("name", STRATEGIES)
def test_all_live_within_the_same_tokens(name):
    spent = {tree.spent.generating.tokens for tree in searched(name, 0.0)}
    assert max(spent) <= TOKENS
    if name not in ("halving", "lookahead"):
        assert spent == {TOKENS}


def test_with_the_truth_as_scorer_they_find_the_answer():
    # Particles that are not drawn anew while half are effective may still lose the last right ones together.
    for name, least in {"beam": 0.95, "dvts": 0.9, "rebase": 0.95, "particles": 0.85}.items():
        assert accuracy(name, 0.0) >= least
    assert accuracy("best-of-n", 0.0) == pytest.approx(0.32, abs=0.16)  # three standard errors


def test_with_some_noise_steps_still_pay():
    assert min(accuracy(name, 0.5) for name in GUIDED) > accuracy("best-of-n", 0.5) + 0.2


@pytest.mark.parametrize("name", GUIDED)
def test_as_the_noise_grows_they_find_less(name):
    curve = [accuracy(name, sigma) for sigma in (0.0, 0.5, 2.0)]
    assert curve[0] > curve[1] + 0.1 and curve[1] > curve[2] + 0.2
