"""The process reward agent's beam on the world of look-ups and on scripted models."""

from dataclasses import dataclass

import numpy as np
import pytest

from prunus import Status, search, search_many
from prunus.errors import SettingError
from prunus.roles import FunctionReward
from prunus.strategies.process_reward_agent import ProcessRewardAgent
from prunus.testing import ScriptedGenerator, ScriptedReward, assert_same_tree, check_strategy
from prunus.tree import seed_of
from prunus.worlds.lookups import LookupPolicy, Table, labels

TABLE = Table(7)


@pytest.mark.parametrize("aggregate", ["sum", "mean"])
def test_it_keeps_the_contract(aggregate):
    check_strategy(ProcessRewardAgent(2, 3, aggregate=aggregate))
    check_strategy(ProcessRewardAgent.post_hoc(4, aggregate))
    right = FunctionReward(lambda text, prompt: float(labels(text.steps, prompt, TABLE)[-1]), "right")
    prompt = TABLE.prompts(1, 3)[0]
    check_strategy(ProcessRewardAgent(2, 4, aggregate=aggregate), LookupPolicy(TABLE), [right], prompt)


@pytest.mark.parametrize(("aggregate", "longer"), [("sum", True), ("mean", False)])
def test_a_sum_favours_long_traces(aggregate, longer):
    """The card's: 0.9 + 0.9 + 0.2 against 0.7 + 0.7."""
    scores = {(0,): 0.9, (0, 0): 0.9, (0, 0, 0): 0.2, (1,): 0.7, (1, 0): 0.7}

    @dataclass(frozen=True)
    class Two(ScriptedGenerator):
        def _grow(self, ask, pays):
            grown = super()._grow(ask, pays)
            return type(grown)({**grown.unit, "path": list(ask.path)}, grown.state, ask.path in ((0, 0, 0), (1, 0)))

        def render(self, nodes, view):
            return [tuple(n.path) for n in nodes]

    tree = search(
        "x", Two(), FunctionReward(lambda path, _: scores[path], "r"), ProcessRewardAgent(2, 1, aggregate=aggregate)
    )
    assert len(tree.finished) == 2
    assert tree.result.path == ((0, 0, 0) if longer else (1, 0))


def test_an_ended_trace_keeps_its_place():
    lengths = ScriptedGenerator(units=6, early=0.3)
    for seed in range(10):
        tree = search("x", lengths, ScriptedReward(), ProcessRewardAgent(3, 3, aggregate="mean"), seed=seed)
        assert len(tree.finished) <= 3 and not tree.frontier
        last = [n for n in tree.nodes[1:] if n.status is not Status.CLOSED]
        kept = sum(n.status is Status.DONE for n in last)
        assert kept == 3  # the beam ends full


def test_equal_steps_are_scored_and_kept_once():
    seen = []
    right = FunctionReward(lambda text, prompt: seen.append(str(text)) or 0.5, "r")
    prompt = TABLE.prompts(1, 2)[0]
    tree = search(prompt, LookupPolicy(TABLE, knows=1.0), right, ProcessRewardAgent(4, 4))
    assert len(seen) == len(set(seen)) == 2 and len(tree.finished) == 1
    seen.clear()
    search(prompt, LookupPolicy(TABLE, knows=1.0), right, ProcessRewardAgent(4, 4, merge=False))
    assert len(seen) == 16 + 16


def accuracy(strategy, noise, runs=40):
    """The card's run: a step is right with a chance of 0.5, six steps; 0.75 for a right step, 0.25 for a wrong one, and
    Gaussian noise that is drawn anew for each candidate; what comes of it stays a probability."""

    def right(values):
        return all(v < 0.5 for v in values)

    def score(values, _):
        rng = np.random.default_rng(seed_of(values))
        return float(np.clip((0.75 if right(values) else 0.25) + noise * rng.normal(), 0, 1))

    reward = FunctionReward(score, "r")
    trees = [search("x", ScriptedGenerator(units=6), reward, strategy, seed=seed) for seed in range(runs)]
    return np.mean([right(t.best().output) for t in trees])


def test_the_cards_reference_runs():
    """4 x 16 against 64 samples (its own calculation): noise 0.25: 0.978 and 0.475, noise 0.6: 0.252 and 0.160."""
    online, afterwards = ProcessRewardAgent(), ProcessRewardAgent.post_hoc(64, "mean")
    assert accuracy(online, 0.25) == pytest.approx(0.978, abs=0.07)  # three deviations of 40 runs
    assert accuracy(afterwards, 0.25) == pytest.approx(0.475, abs=0.24)
    assert accuracy(online, 0.6) == pytest.approx(0.252, abs=0.2)


def test_what_is_no_setting_is_refused():
    with pytest.raises(SettingError, match="aggregate = 'product'"):
        ProcessRewardAgent(aggregate="product")


def test_many_questions_share_their_batches_and_come_to_the_same():
    class Counted(FunctionReward):
        def score(self, contents, prompts):
            sizes.append(len(contents))
            return super().score(contents, prompts)

    sizes = []
    reward = Counted(lambda text, prompt: float(labels(text.steps, prompt, TABLE)[-1]), "r")
    prompts, policy, strategy = TABLE.prompts(5, 3), LookupPolicy(TABLE), ProcessRewardAgent(2, 4)
    together = search_many(prompts, policy, reward, strategy)
    assert len(sizes) == 3  # one a level, for all questions
    for prompt, tree in zip(prompts, together, strict=True):
        assert_same_tree(search(prompt, policy, reward, strategy), tree, "alone and together")
