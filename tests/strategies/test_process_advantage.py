"""Process-advantage beam against the numbers of paper card 24 and a slow and obvious one."""

import numpy as np
import pytest

from prunus import search
from prunus.errors import SettingError
from prunus.roles import FunctionReward
from prunus.strategies import Beam
from prunus.strategies.process_advantage import ProcessAdvantage, best_of_k, progress
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy
from prunus.testing.scripted import draw

Q, Q0 = [0.3, 0.2, 0.6, 1.0], 0.1  # the card's path


@pytest.mark.parametrize("options", [{}, {"prover": "prover", "reward": "base"}, {"final": "final", "reward": "base"}])
def test_it_keeps_the_contract(options):
    check_strategy(ProcessAdvantage(2, 3, **options))


def test_the_cards_path():
    q, q0 = np.array([Q]), np.array([Q0])
    mu, mu0 = best_of_k(q, 4), best_of_k(q0, 4)
    assert mu0 == pytest.approx([0.3439]) and mu[0] == pytest.approx([0.7599, 0.5904, 0.9744, 1.0])
    a = progress(mu, mu0)
    assert a[0] == pytest.approx([0.4160, -0.1695, 0.3840, 0.0256])
    assert a.sum() == pytest.approx(0.6561)
    assert progress(q, q0)[0] == pytest.approx([0.2, -0.1, 0.4, 0.4])
    assert (q + 0.5 * a)[0] == pytest.approx([0.5080, 0.1152, 0.7920, 1.0128], abs=5e-5)


def test_the_search_gives_the_cards_path_its_values():
    def chance(values, _):
        return Q[len(values) - 1]

    strategy = ProcessAdvantage(1, 1, start=best_of_k(Q0, 4))
    tree = search("x", ScriptedGenerator(units=4), FunctionReward(chance, "q"), strategy)
    assert [strategy.value(tree, n) for n in tree.nodes[1:]] == pytest.approx(
        [0.5080, 0.1152, 0.7920, 1.0128], abs=5e-5
    )
    assert [strategy.advantage(tree, n) for n in tree.nodes[1:]] == pytest.approx(
        [0.4160, -0.1695, 0.3840, 0.0256], abs=5e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_slow_and_obvious_beam_with_a_prover_of_its_own(seed):
    def numbers(path):
        return [draw(seed, "x", path[: i + 1], "piece", i, 0) for i in range(len(path))]

    def q(name, path):
        return draw(name, numbers(path), "x")

    def merit(path):
        before = q("prover", path[:-1]) if len(path) > 1 else 0.0
        return q("base", path) + 0.3 * (q("prover", path) - before)

    rewards = [ScriptedReward(name=name) for name in ("base", "prover", "final")]
    strategy = ProcessAdvantage(2, 3, reward="base", prover="prover", final="final", alpha=0.3)
    tree = search("x", ScriptedGenerator(units=4), rewards, strategy, seed=seed)
    kept = [()]
    for depth in range(4):
        width = 6 if depth == 0 else 3
        kept = sorted(((*p, i) for p in kept for i in range(width)), key=lambda p: (-merit(p), p))[:2]
    assert sorted(n.path for n in tree.finished) == sorted(kept)
    assert tree.result.path == max(kept, key=lambda p: q("final", p))
    assert all("final" not in n.scores for n in tree.nodes[1:] if n.depth < 4)


def test_without_weight_it_is_the_beam():
    for seed in range(3):
        plain = search("x", ScriptedGenerator(), ScriptedReward(), Beam(2, 3), seed=seed)
        ours = search("x", ScriptedGenerator(), ScriptedReward(), ProcessAdvantage(2, 3, alpha=0.0), seed=seed)
        assert [n.path for n in ours.nodes] == [n.path for n in plain.nodes] and ours.result.path == plain.result.path


@pytest.mark.parametrize(("options", "message"), [({"alpha": -1}, "alpha = -1"), ({"k": 0}, "k = 0")])
def test_what_is_no_setting_is_refused(options, message):
    with pytest.raises(SettingError, match=message):
        ProcessAdvantage(**options)
