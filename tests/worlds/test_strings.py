"""The string task against enumeration and simulation."""

import itertools
import random

import numpy as np
import pytest

from prunus import search
from prunus.errors import PromptError
from prunus.strategies import BestOfN
from prunus.testing import check_generator, check_reward
from prunus.worlds.strings import (
    END,
    LENGTH,
    PAPERS_PROMPT,
    VOCABULARY,
    StringPolicy,
    StringValue,
    automaton,
    choices,
    judge,
    matched,
    parse,
    split,
    success,
    value,
)

TARGET = (3, 6, 0, 3, 5)


def test_they_keep_their_contracts():
    check_generator(StringPolicy(), ["3 6 0 3 5", "1 1 2 1 1"])
    check_reward(StringValue(rollouts=20), [(), (3, 6), (3, 6, 0, 3, 5)], [PAPERS_PROMPT] * 3)


def test_a_token_may_lead_back_to_a_shorter_match():
    assert matched((3, 6, 0, 3), TARGET) == 4
    assert matched((3, 6, 0, 3, 6), TARGET) == 2  # the card's: not 0
    assert matched((3, 3), TARGET) == 1 and matched((3, 6, 3), TARGET) == 1 and matched((3, 6, 1), TARGET) == 0
    assert matched((3, 6, 0, 3, 5, 9), TARGET) == 5


def test_the_automaton_is_the_longest_beginning_that_a_string_ends_with():
    rng = random.Random(0)
    for target in (TARGET, (1, 1, 2, 1, 1), (4, 4, 4)):
        for _ in range(300):
            tokens = [rng.choice([*target, 9]) for _ in range(8)]
            done = any(tuple(tokens[i : i + len(target)]) == target for i in range(8))
            longest = max(k for k in range(len(target) + 1) if tuple(tokens[8 - k :]) == target[:k])
            assert matched(tokens, target) == (len(target) if done else longest)
            assert judge(tokens, " ".join(map(str, target))) == float(done)


def test_choices_favour_what_goes_on_with_a_match():
    p = choices(TARGET, 5.0)
    assert p[0] == pytest.approx(np.full(VOCABULARY, 1 / 15))
    assert p[2, 0] == pytest.approx(5 / 19) and p[2, END] == pytest.approx(1 / 19)
    assert p.sum(1) == pytest.approx(np.ones(6))


def test_success_is_the_sum_over_all_strings():
    """Enumerated for a short hidden sequence and four tokens left."""
    target, gamma = (2, 2), 4.0
    p, follows = choices(target, gamma), automaton(target)
    total = 0.0
    for tokens in itertools.product(range(VOCABULARY), repeat=4):
        k, chance, ended = 0, 1.0, False
        for t in tokens:
            if k == 2 or ended:
                chance /= VOCABULARY  # counted once in all
            else:
                chance *= p[k, t]
                ended, k = t == END, follows[k, t]
        total += chance * (k == 2)
    assert success(target, gamma)[4, 0] == pytest.approx(total)


def test_the_policy_succeeds_as_often_as_foreseen():
    generator, reward = StringPolicy(50.0), StringValue(50.0)
    trees = [search(PAPERS_PROMPT, generator, reward, BestOfN(8), seed=s) for s in range(60)]
    found = [judge(generator.output(n), PAPERS_PROMPT) for t in trees for n in t.finished]
    chance = value((), PAPERS_PROMPT, 50.0)
    assert len(found) == 480 and np.mean(found) == pytest.approx(chance, abs=3 * (chance * (1 - chance) / 480) ** 0.5)
    assert all(n.scores["string-value"].value == judge(generator.output(n), PAPERS_PROMPT) for n in trees[0].finished)


def test_rollouts_tell_the_chance_with_noise_of_their_number():
    beginnings = [(3, 6, 0, i) for i in range(14) if i != 3] * 1 + [(i, 3, 6) for i in range(14)]
    reward = StringValue(50.0, rollouts=20)
    told = np.array(reward.score(beginnings, [PAPERS_PROMPT] * len(beginnings)))
    true = np.array([value(b, PAPERS_PROMPT, 50.0) for b in beginnings])
    assert np.all(told * 20 == np.round(told * 20)) and len(set(told[13:])) > 3
    assert np.mean(told - true) == pytest.approx(0, abs=0.1)


def test_splits_differ_and_prompts_are_checked():
    dev, report = split("dev", 50), split("report", 50)
    assert split("dev", 20) == dev[:20] and not set(dev) & set(report)
    assert all(len(parse(p)) == 5 for p in dev)
    for bad in ("", "3 14", "a b", " ".join(["1"] * (LENGTH + 1))):
        with pytest.raises(PromptError, match="no hidden sequence"):
            parse(bad)
