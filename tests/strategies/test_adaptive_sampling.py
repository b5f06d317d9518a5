"""Adaptive sampling on paper card 52's tables, each expectation summed over all that may be drawn."""

from dataclasses import dataclass, field

import pytest

from prunus import Cost, Status, search
from prunus.errors import SettingError
from prunus.roles import FunctionReward, Generator, Grown, How
from prunus.strategies.adaptive_sampling import AdaptiveSampling, annealed, rounds, samples, share_of_tokens
from prunus.testing import ScriptedGenerator, ScriptedReward, check_strategy


@dataclass(frozen=True)
class WarmHow(How):
    temperature: float | None = None


@dataclass
class Drawn(Generator):
    """Samples of ``units`` units; sample i is worth ``worth[i]``, or the last of them. Notes all temperatures."""

    worth: tuple
    units: int = 1
    temperatures: list = field(default_factory=list)
    how = WarmHow

    def begin(self, prompt):
        return ()

    def grow(self, asks):
        self.temperatures += [(a.path[0], a.how.temperature) for a in asks]
        return [Grown({}, a.path, done=len(a.path) == self.units) for a in asks]

    def render(self, nodes, view):
        return [self.worth[min(n.path[0], len(self.worth) - 1)] for n in nodes]

    def restore(self, nodes, prompt):
        return [(n.path, Cost()) for n in nodes]

    def units_left(self, node):
        return self.units - node.depth


@pytest.mark.parametrize("options", [{}, {"batches": "single", "rule": "rest"}, {"prune_at": 2, "tau": 1.0}])
def test_it_keeps_the_contract(options):
    check_strategy(AdaptiveSampling(most=8, **options))


def test_it_anneals():
    generator = Drawn((0.1,), units=2)
    search("x", generator, FunctionReward(lambda worth, _: worth, "s"), AdaptiveSampling(most=5, anneal=True))
    warmth = {0: 0.0, 1: 0.5, 2: 0.75, 3: 0.875, 4: 0.9375}
    assert sorted(generator.temperatures) == sorted((i, t) for i, t in warmth.items() for _ in range(2))
    assert [annealed(k) for k in (1, 2, 3)] == [0, 0.5, 0.75]


def test_a_generator_without_temperature_cannot_anneal():
    with pytest.raises(SettingError, match="temperature"):
        search("x", ScriptedGenerator(), ScriptedReward(), AdaptiveSampling(anneal=True))


def test_batches_double():
    generator = Drawn((0.0,))
    tree = search("x", generator, FunctionReward(lambda worth, _: worth, "s"), AdaptiveSampling(most=11))
    sizes = [sum(n.round == r for n in tree.root.children) for r in range(tree.round)]
    assert sizes == [1, 1, 2, 4, 3] and (samples(tree), rounds(tree)) == (11, 5)


# ---- the card's tables -----------------------------------------------------------------------------------------------


def expected(outcomes, strategy):
    """E[samples], E[worth], E[rounds] over (probability, worths of the samples, s of a worth)."""
    totals = [0.0, 0.0, 0.0]
    for probability, worth, s in outcomes:
        tree = search("x", Drawn(worth), FunctionReward(lambda w, _, s=s: s[w], "s"), strategy)
        for i, value in enumerate((samples(tree), worth[min(tree.result.path[0], len(worth) - 1)], rounds(tree))):
            totals[i] += probability * value
    return totals


def three_rewards(stops):
    """r in {0, 1, 2} with p = (.5, .3, .2), s = (.5, .8, 1). ``stops``: the rewards that end the search. What is drawn
    before does not matter but for its maximum, so the first place of a stop and that maximum are summed over."""
    p, s = (0.5, 0.3, 0.2), (0.5, 0.8, 1.0)
    low = [r for r in range(3) if r not in stops]
    for before in range(17):
        for top in low if before else [None]:
            below = sum(p[r] for r in low if r <= top) if before else 1.0
            under = sum(p[r] for r in low if r < top) if before else 0.0
            chance = below**before - under**before if before else 1.0
            head = (top,) * before if before else ()
            if before == 16:
                yield chance, head, s
            else:
                yield from ((chance * p[r], (*head, r), s) for r in stops)


def test_the_card_one_prompt_with_three_rewards():
    one_at_a_time = {"most": 16, "batches": "single"}
    n, r, _ = expected(three_rewards((1, 2)), AdaptiveSampling(tau=0.75, **one_at_a_time))
    assert (n, r) == (pytest.approx(1.99997, abs=5e-6), pytest.approx(1.39998, abs=5e-6))
    fixed = {1: 0.7, 2: 1.11, 16: 1.971837}  # best of N, the card's
    for count, value in fixed.items():
        assert 3 - 1 - 0.5**count - 0.8**count == pytest.approx(value, abs=5e-7)
    gain = fixed[16] - fixed[1]
    assert (r - fixed[1]) / gain == pytest.approx(0.55, abs=1e-3)
    assert (fixed[2] - fixed[1]) / gain == pytest.approx(0.322, abs=1e-3)
    n, r, _ = expected(three_rewards((2,)), AdaptiveSampling(tau=1.0, **one_at_a_time))
    assert (n, r) == (pytest.approx(4.8593, abs=5e-5), pytest.approx(1.971837, abs=5e-7))


PROMPTS = [(0.4, 0.95), (0.3, 0.5), (0.2, 0.1), (0.1, 0.0)]  # weight, chance that a sample is right


def right_or_wrong(weight, p):
    """All places of the first right sample; the oracle's s of a wrong answer is 1 - p, of a right one 1."""
    s = (1 - p, 1.0)
    for wrong in range(16):
        if p:
            yield weight * p * (1 - p) ** wrong, (0,) * wrong + (1,), s
    yield weight * (1 - p) ** 16, (0,) * 16, s


def all_prompts():
    return [outcome for prompt in PROMPTS for outcome in right_or_wrong(*prompt)]


@pytest.mark.parametrize(("tau", "n", "r"), [(0.75, 1.32104, 0.719995), (0.95, 2.75044, 0.862935)])
def test_the_card_mixed_prompts_one_at_a_time(tau, n, r):
    found = expected(all_prompts(), AdaptiveSampling(tau=tau, batches="single"))
    assert found[:2] == [pytest.approx(n, abs=5e-6), pytest.approx(r, abs=5e-7)]
    fixed = [sum(w * (1 - (1 - p) ** k) for w, p in PROMPTS) for k in (1, 2, 3, 4, 16)]
    assert fixed == pytest.approx([0.55, 0.662, 0.71665, 0.750027, 0.862935], abs=5e-7)


@pytest.mark.parametrize(("tau", "n", "batches"), [(0.75, 1.40639, 1.26592), (0.95, 3.12401, 1.82524)])
def test_the_card_mixed_prompts_in_doubling_batches(tau, n, batches):
    found = expected(all_prompts_to_the_end(), AdaptiveSampling(tau=tau))
    assert found[::2] == [pytest.approx(n, abs=5e-6), pytest.approx(batches, abs=5e-6)]


def all_prompts_to_the_end():
    """As ``all_prompts``; what follows the first right sample in its batch does not matter."""
    return [(chance, worth + worth[-1:] * (16 - len(worth)), s) for chance, worth, s in all_prompts()]


def test_impossible_prompts_take_one_sample_and_an_absolute_score_takes_all():
    for rule in ("next", "rest"):
        assert expected(right_or_wrong(1.0, 0.0), AdaptiveSampling(rule=rule))[0] == 1
    quality = [(1.0, (0,) * 16, (0.0, 1.0))]  # how good it is, not whether it could be better
    assert expected(quality, AdaptiveSampling())[0] == 16


def test_the_rule_of_the_rest_goes_on_where_right_answers_are_rare():
    rare = list(right_or_wrong(1.0, 0.1))
    n, r, _ = expected(rare, AdaptiveSampling(tau=0.75, batches="single"))
    assert (n, r) == (pytest.approx(1), pytest.approx(0.1))  # s = 0.9 ends it
    n, r, _ = expected(rare, AdaptiveSampling(tau=0.75, batches="single", rule="rest"))
    # 0.9^k >= 0.75 from k = 2 samples left on: it stops at a wrong answer after 14 samples.
    assert r == pytest.approx(1 - 0.9**14)
    assert n == pytest.approx(sum(0.9**k for k in range(14)))


def test_equal_samples_the_earliest_wins():
    tree = search("x", Drawn((0.5,)), FunctionReward(lambda w, _: w, "s"), AdaptiveSampling(most=4))
    assert tree.result.path == (0,)


# ---- pruning on the way ----------------------------------------------------------------------------------------------


def test_the_cards_share_of_tokens():
    assert share_of_tokens(0.5, 64, 512) == 0.5625
    assert share_of_tokens(0.75, 128, 512) == 0.4375


def test_beginnings_are_evaluated_once_and_the_best_go_on():
    s = {i: 0.1 + 0.05 * ((i * 5) % 8) for i in range(8)}
    scored = []

    class Numbered(Drawn):
        def render(self, nodes, view):
            return [(n.path[0], n.depth) for n in nodes]

    def score(content, _):
        scored.append(content)
        return s[content[0]]

    strategy = AdaptiveSampling(most=8, prune_at=2, keep=0.25)
    tree = search("x", Numbered((0,), units=4), FunctionReward(score, "s"), strategy)
    batches = [[0], [1], [2, 3], [4, 5, 6, 7]]
    kept = [max(batch, key=s.__getitem__) for batch in batches]  # a quarter of 4, and at least 1
    assert sorted(n.path[0] for n in tree.finished) == sorted(kept)
    assert sorted(scored) == sorted([(i, 2) for i in range(8)] + [(i, 4) for i in kept])
    assert tree.result.path[0] == max(s, key=s.__getitem__)
    assert all(n.status is not Status.OPEN for n in tree.nodes[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": 0}, "most = 0"),
        ({"tau": 0}, "tau = 0"),
        ({"rule": "all"}, "next or rest"),
        ({"batches": "4"}, "doubling or single"),
        ({"prune_at": 0}, "prune_at = 0"),
        ({"keep": 0.0}, "keep = 0.0"),
    ],
)
def test_what_is_no_setting_is_refused(options, message):
    with pytest.raises(SettingError, match=message):
        AdaptiveSampling(**options)
