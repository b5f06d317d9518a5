"""A reward with noise on its logits."""

import math

import numpy as np
import pytest

from prunus.errors import SettingError
from prunus.reproductions.noisy_reward import NoisyReward
from prunus.roles import FunctionReward, Reward
from prunus.score import Score


class Half(Reward):
    """Says 0.5 of all but empty texts."""

    name, range = "half", "probability"

    def score(self, contents, prompts):
        return [Score(0.5, {"min": 0.5}) if c else None for c in contents]


def test_the_noise_is_normal_on_logits_and_the_same_for_the_same_text():
    noisy = NoisyReward(Half(), 2.0)
    texts = [f"text {i}" for i in range(2000)]
    scores = np.array(noisy.score(texts, ["p"] * 2000))
    logits = np.log(scores / (1 - scores))
    assert abs(logits.mean()) < 4 * 2 / math.sqrt(2000) and abs(logits.std() - 2) < 0.15
    assert noisy.score(texts[:3], ["p"] * 3) == scores[:3].tolist()
    assert noisy.score(texts[:1], ["q"]) != scores[:1].tolist()
    assert noisy.score(["", "a"], ["p", "p"])[0] is None


def test_no_noise_changes_nothing_and_sure_scores_stay_finite():
    assert NoisyReward(Half(), 0).score(["a"], ["p"]) == [0.5]

    class Sure(Half):
        def score(self, contents, prompts):
            return [1.0, 0.0]

    one, zero = NoisyReward(Sure(), 1.0).score(["a", "b"], ["p", "p"])
    assert 0 < zero < 0.001 and 0.999 < one < 1


def test_it_costs_what_the_reward_costs_and_says_so():
    noisy = NoisyReward(Half(), 1.0)
    assert noisy.name == "half" and noisy.cost([3]) == Half().cost([3]) and noisy.took(["a"], ["p"], [0]) is None
    assert noisy.spec() == {"name": "half", "sigma": 1.0}
    with pytest.raises(SettingError, match="probability"):
        NoisyReward(FunctionReward(len), 1.0)
    with pytest.raises(SettingError, match="sigma"):
        NoisyReward(Half(), -1)
