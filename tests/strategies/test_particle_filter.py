"""The particle filter: the card's weights, resampling, and what becomes of finished particles."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import Status, Tree, View, search, stream_search
from prunus.errors import SearchError, SettingError
from prunus.roles import FunctionReward
from prunus.strategies import ParticleFilter
from prunus.strategies.particle_filter import POTENTIALS, effective_size, systematic
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy

NAME = "scripted-reward"
CARD = [0.9, 0.6, 0.2]


@pytest.mark.parametrize(
    "strategy",
    [
        ParticleFilter(1),
        ParticleFilter(6),
        ParticleFilter(6, threshold=None),
        ParticleFilter(5, "exponential", 0.1, resampling="multinomial"),
        ParticleFilter(4, aggregate="product"),
        ParticleFilter.published(n=6),
    ],
)
def test_it_keeps_the_contract(strategy):
    check_strategy(strategy)


def shares(logs):
    weights = np.exp(np.array(logs) - max(logs))
    return weights / weights.sum()


def test_the_cards_weights_and_effective_sizes():
    odds = shares([POTENTIALS["odds"](s) for s in CARD])
    assert odds == pytest.approx([0.837, 0.140, 0.023], abs=5e-4)
    assert effective_size(odds) == pytest.approx(1.39, abs=5e-3)
    exponential = shares([POTENTIALS["exponential"](s) for s in CARD])
    assert exponential == pytest.approx([0.447, 0.331, 0.222], abs=5e-4)
    assert effective_size(exponential) == pytest.approx(2.79, abs=5e-3)
    assert shares([POTENTIALS["probability"](s) for s in CARD]) == pytest.approx(np.array(CARD) / sum(CARD))


def test_scores_of_zero_and_one_have_finite_weights():
    for potential in POTENTIALS.values():
        assert math.isfinite(potential(0.0)) and math.isfinite(potential(1.0))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=9).filter(lambda w: sum(w) > 1e-3), st.integers(1, 40), st.data()
)
def test_systematic_draws_differ_from_their_expectation_by_less_than_one(weights, n, data):
    offset = data.draw(st.floats(0, 1, exclude_max=True))
    drawn = systematic(weights, n, offset)
    assert sum(drawn) == n
    for count, weight in zip(drawn, weights, strict=True):
        assert abs(count - n * weight / sum(weights)) < 1 + 1e-6


def test_systematic_draws_are_unbiased():
    offsets = (np.arange(1000) + 0.5) / 1000
    mean = np.mean([systematic(CARD, 5, u) for u in offsets], axis=0)
    assert mean == pytest.approx(5 * np.array(CARD) / sum(CARD), abs=2e-3)


def settled_rounds(strategy, generator, reward, seed=0):
    """The tree after each of its rounds: (node, status, note) of what had been grown."""
    for event in stream_search("a prompt", generator, reward, strategy, seed=seed):
        if event.kind == "round":
            tree = event.tree
            yield tree, {n: (n.status, dict(tree.notes.get(n.id, {}))) for n in tree.nodes[1:]}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.floats(0, 0.6), st.sampled_from([0.5, None, 0.0]), st.integers(0, 99))
def test_counts_sum_to_n_and_finished_particles_never_grow(n, early, threshold, seed):
    strategy, last = ParticleFilter(n, threshold=threshold), {}
    generator = ScriptedGenerator(units=4, early=early)
    for tree, nodes in settled_rounds(strategy, generator, ScriptedReward(), seed):
        alive = {k: v for k, v in nodes.items() if v[0] in (Status.OPEN, Status.DONE)}
        assert sum(note["count"] for _, note in alive.values()) == pytest.approx(n)
        for node, (status, note) in last.items():  # what grew is what was live, each as often as it was drawn
            if status is Status.OPEN:
                assert len(node.children) == note["count"]
        last, finished = nodes, tree.finished
    assert not any(node.children for node in finished)
    assert sum(last[node][1]["count"] for node in finished) == pytest.approx(n)


def test_weights_are_ratios_of_potentials_until_the_particles_are_drawn_anew():
    strategy = ParticleFilter(4, threshold=0.0)  # never
    for tree, nodes in settled_rounds(strategy, ScriptedGenerator(units=3), ScriptedReward()):
        if tree.round == 3:
            continue  # all have finished: weights became counts
        for node, (status, note) in nodes.items():
            if status is Status.OPEN:  # the ratios multiply to the last potential
                assert note["log_weight"] == pytest.approx(math.log(node.scores[NAME].value))
    total = sum(n.scores[NAME].value for n in tree.finished)
    for node in tree.finished:
        assert tree.notes[node.id]["count"] == pytest.approx(4 * node.scores[NAME].value / total)


def test_they_are_drawn_anew_only_when_few_are_effective():
    drawn = []
    for values, expected in [([0.9, 0.9, 0.8, 0.7], False), ([0.9, 0.01, 0.01, 0.01], True)]:
        reward = FunctionReward(lambda c, p, values=values: sorted(values)[int(c[0] * 4)], "steps", View(1))
        for tree, nodes in settled_rounds(ParticleFilter(4), FirstFour(units=2), reward):
            if tree.round == 1:
                drawn.append(any(v[0] is Status.PRUNED for v in nodes.values()))
                assert drawn[-1] == expected == (effective_size(values) < 2)
                if expected:  # 0.9 of 0.93: at least three of four marks
                    assert max(v[1]["count"] for v in nodes.values()) >= 3
                    assert {v[1]["log_weight"] for v in nodes.values()} == {0.0}


class FirstFour(ScriptedGenerator):
    """Its first four units are 0, 1/4, 2/4, 3/4."""

    def forward(self, rows):
        return [(row[2][0] % 4) / 4 if row[3] == "piece" else 0.0 for row in rows if len(row) > 3] or [0.0] * len(rows)


def test_a_finished_particle_counts_and_its_weight_is_not_forgotten():
    """Two of four finish at once; the better one is drawn more often, and stays one node."""
    reward = FunctionReward(lambda c, p: [0.01, 0.8, 0.01, 0.02][int(c[0] * 4)] if len(c) == 1 else 0.02, "steps")

    class TwoEnd(FirstFour):
        def grow(self, asks):
            return [replace(g, done=g.done or a.path[0] < 2) for a, g in zip(asks, super().grow(asks), strict=True)]

    tree = search("a prompt", TwoEnd(units=2), reward, ParticleFilter(4))
    best = tree.nodes[2]
    assert tree.result is best and tree.notes[best.id]["count"] >= 3 and not best.children
    assert len(tree.nodes) == 1 + 4 + sum(len(n.children) for n in tree.nodes[1:])


def test_the_copies_of_a_finished_particle_make_it_effective_and_are_drawn_from_again():
    """Three copies that have finished, of weight 1, and a live particle of weight 10: 13^2 / 103 = 1.64 of 4 < 2."""
    first, later = [0.003, 0.26, 0.003, 0.08], 0.8  # ten times 0.08
    reward = FunctionReward(lambda c, p: first[int(c[0] * 4)] if len(c) == 1 else later, "steps")

    class SecondEnds(FirstFour):
        def grow(self, asks):
            return [replace(g, done=g.done or a.path == (1,)) for a, g in zip(asks, super().grow(asks), strict=True)]

    seen = 0
    for seed in range(6):
        for tree, nodes in settled_rounds(ParticleFilter(4), SecondEnds(units=3), reward, seed):
            counts = [nodes[n][1].get("count") for n in tree.nodes[1:]]
            if tree.round == 1 and (counts[1], counts[3]) != (3, 1):
                break
            if tree.round == 2:
                [live] = [n for n in tree.nodes if n.path == (3, 0)]
                seen += 1
                assert nodes[live][1]["count"] >= 3
                assert nodes[live][1]["count"] + (counts[1] if tree.nodes[2].status is Status.DONE else 0) == 4
    assert seen >= 3


def test_after_a_draw_only_what_has_changed_since_counts():
    redrawn, strategy = 0, ParticleFilter(6, threshold=0.75)
    for seed in range(10):
        before = {}
        for _, nodes in settled_rounds(strategy, ScriptedGenerator(units=5), ScriptedReward(), seed):
            fresh = {n: note for n, (s, note) in nodes.items() if s is Status.OPEN}
            if any(note["log_weight"] for note in fresh.values()):  # not drawn anew in this round
                for node, note in fresh.items():
                    was = before[node.parent] if node.depth > 1 else {"log_weight": 0.0, "potential": 0.0}
                    ratio = math.log(node.scores[NAME].value) - was["potential"]
                    assert note["log_weight"] == pytest.approx(was["log_weight"] + ratio)
                    redrawn += node.depth > 1 and was["log_weight"] == 0.0
            before = fresh
    assert redrawn > 5


def test_the_published_one_weighs_by_the_last_odds_and_draws_after_every_step():
    seen = 0
    for tree, nodes in settled_rounds(ParticleFilter.published(n=6), ScriptedGenerator(units=3), ScriptedReward()):
        for node, (status, note) in nodes.items():
            if node.round == tree.round - 1:
                score = node.scores[NAME].value
                assert note["log_weight"] == pytest.approx(math.log(score / (1 - score)))
                seen += status is Status.PRUNED
        assert sum(n[1].get("count", 0) for k, n in nodes.items() if k.round == tree.round - 1) == 6
    assert seen >= 3
    one, many = ParticleFilter.published(), ParticleFilter.published(n=3, resampling="systematic")
    assert (one.n, one.potential, one.threshold, one.absolute) == (8, "odds", None, True)
    assert many.resampling == "systematic"


def test_a_particle_that_was_not_scored_keeps_its_parents_weight():
    class Half(ScriptedReward):
        def score(self, contents, prompts):
            scores = super().score(contents, prompts)
            return [None if len(c) == 2 else s for c, s in zip(contents, scores, strict=True)]

    for tree, nodes in settled_rounds(ParticleFilter(3, threshold=0.0), ScriptedGenerator(units=3), Half()):
        if tree.round == 2:
            for node, (_, note) in nodes.items():
                if node.depth == 2:
                    assert note["log_weight"] == tree.notes[node.parent.id]["log_weight"]


def test_failed_particles_are_replaced_at_the_next_draw():
    generator = ScriptedGenerator(units=4, failing=0.3)
    for seed in range(5):
        for _, nodes in settled_rounds(ParticleFilter(6, threshold=None), generator, ScriptedReward(), seed):
            alive = [note for status, note in nodes.values() if status in (Status.OPEN, Status.DONE)]
            assert sum(note["count"] for note in alive) == 6


def test_scores_that_are_no_probability_are_refused_with_the_remedy():
    for score in (1.5, -0.5):
        with pytest.raises(SearchError, match=r"no probability.*take potential='exponential'") as caught:
            search("a prompt", ScriptedGenerator(), lambda c, p, score=score: score, ParticleFilter())
        assert isinstance(caught.value.tree, Tree)
    search("a prompt", ScriptedGenerator(), lambda c, p: -7.0, ParticleFilter(potential="exponential"))


@pytest.mark.parametrize(
    "setting",
    [{"n": 0}, {"potential": "score"}, {"temperature": 0}, {"threshold": 1.5}, {"resampling": "stratified"}],
)
def test_settings_are_checked(setting):
    [(name, value)] = setting.items()
    with pytest.raises(SettingError, match=f"{name} = {value!r}"):
        ParticleFilter(**setting)
