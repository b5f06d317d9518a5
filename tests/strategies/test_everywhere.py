"""Every strategy of the package on every kind of generator that it makes sense for.

A generator is added to GENERATORS with the rewards that it needs, a strategy to STRATEGIES.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import Budget, Status, Strategy, View, search, strategies
from prunus.errors import BudgetError
from prunus.roles import FunctionReward
from prunus.strategies import (
    DVTS,
    REBASE,
    Beam,
    BestOfN,
    Lookahead,
    ParticleFilter,
    PruneSchedule,
    StreamT1,
    SuccessiveHalving,
    TTSnap,
    Vote,
)
from prunus.testing import ScriptedGenerator, ScriptedText, check_strategy
from prunus.testing.scripted import draw

LETTERS = {"a": 0.5, "bb": 0.3, "ccc": 0.2}


def halves(numbers):
    return int(numbers[-1] * 3)


def text_answer(text):
    return text[-1] if text.whole else None


ANSWERS = {"numbers": halves, "text": text_answer, "video": lambda frames: int(frames.mean() * 1000) % 3}

ALL = ("numbers", "text", "video")
STRATEGIES = [
    (BestOfN(4), ALL),
    (BestOfN(3, aggregate="mean"), ALL),
    (Beam(2, 2), ALL),
    (Beam(2, 2, aggregate="min"), ALL),
    (DVTS(2, 2), ALL),
    (Lookahead(2, 2, 1), ALL),
    (REBASE(4), ALL),
    (ParticleFilter(4), ALL),
    (ParticleFilter.published(n=4), ALL),
    (SuccessiveHalving(4, (1, 2)), ALL),
    (SuccessiveHalving(4, (2, 4), inside=True), ("text",)),
    (TTSnap(BestOfN(4, "final"), PruneSchedule((1, 2), (0.5, 0.5)), "preview"), ("numbers", "video")),
    (StreamT1(), ("video",)),
]


class Generators:
    """One generator of each kind, made when it is asked for; ``reward`` scores what each of them shows in [0, 1)."""

    def __init__(self, request):
        self.request = request

    def make(self, kind):
        if kind == "numbers":
            return ScriptedGenerator(units=4, pieces=3, early=0.15)
        if kind == "text":
            return ScriptedText(lambda written: {} if len(written) == 4 else {**LETTERS, "end": 0.1}, most=11)
        from prunus.generators.streaming_video import StreamingVideo

        return StreamingVideo(self.request.getfixturevalue("video_model"), 9)

    @staticmethod
    def reward(kind, name):
        view = View(1, progress=True) if name == "preview" else View(None)

        def score(content, prompt):
            shown = content[0] if view.progress else content
            return float(shown.mean()) % 1 if kind == "video" else draw(name, shown)

        return FunctionReward(score, name, view)


@pytest.fixture
def generators(request):
    return Generators(request)


CASES = [
    pytest.param(s, kind, id=f"{type(s).__name__}-{i}-{kind}")
    for i, (s, kinds) in enumerate(STRATEGIES)
    for kind in kinds
]
PROMPT = "a red circle moving left"


def test_every_strategy_of_the_package_is_here():
    known = {s for s in vars(strategies).values() if isinstance(s, type) and issubclass(s, Strategy)}
    assert known == {type(s) for s, _ in STRATEGIES} | {Vote}


@pytest.mark.parametrize("by", [None, "majority", "weighted"])
@pytest.mark.parametrize(("strategy", "kind"), CASES)
def test_it_finds_an_answer(generators, strategy, kind, by):
    generator = generators.make(kind)
    rewards = [generators.reward(kind, name) for name in strategy.reads or ("reward",)]
    if by:
        strategy = Vote(strategy, by, answer=ANSWERS[kind])
    tree = search(PROMPT, generator, rewards, strategy)
    assert tree.result.status is Status.DONE and tree.best().output is not None
    assert not tree.frontier  # nothing is left half grown
    assert not any(n.children for n in tree.nodes if n.status in (Status.DONE, Status.FAILED))
    assert tree.spent.generating.nfe == sum(n.cost.nfe for n in tree.nodes)
    if by:
        votes = strategy.votes(tree)
        assert not votes or votes[ANSWERS[kind](tree.best().output)] == max(votes.values())


@pytest.mark.parametrize("strategy", [s for s, kinds in STRATEGIES if "text" in kinds], ids=repr)
def test_the_contract_is_kept_on_text(generators, strategy):
    check_strategy(strategy, generators.make("text"), [generators.reward("text", "reward")], seeds=(0, 1))


class Counting(ScriptedGenerator):
    """Counts what its network is really asked for."""

    def forward(self, rows):
        object.__setattr__(self, "rows", self.__dict__.get("rows", 0) + len(rows))
        return super().forward(rows)


def counted(name, scored):
    """A reward that notes every content that it scores."""

    def score(content, prompt):
        scored.append(content)
        return draw(name, content)

    return FunctionReward(score, name, View(1, progress=name == "preview"))


@pytest.mark.parametrize("strategy", [s for s, kinds in STRATEGIES if "numbers" in kinds], ids=repr)
def test_the_ledger_equals_a_counting_mock(strategy):
    for seed in range(3):
        generator, scored = Counting(units=5, pieces=3, early=0.2), []
        rewards = [counted(name, scored) for name in strategy.reads or ("reward",)]
        tree = search(PROMPT, generator, rewards, strategy, seed=seed)
        assert tree.spent.generating.nfe == generator.rows
        assert len(scored) == sum(len(n.scores) for n in tree.nodes)  # no one is scored twice


@pytest.mark.parametrize("strategy", [s for s, kinds in STRATEGIES if "numbers" in kinds], ids=repr)
@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.05, 1), seed=st.integers(0, 20), early=st.sampled_from([0.0, 0.3]))
def test_any_budget_ends_with_a_finished_candidate_or_at_once(strategy, share, seed, early):
    generator = ScriptedGenerator(units=4, pieces=3, early=early)
    rewards = [Generators.reward("numbers", name) for name in strategy.reads or ("reward",)]
    whole = search(PROMPT, generator, rewards, strategy, seed=seed).spent.total.nfe
    limit = max(1, int(share * whole))
    try:
        tree = search(PROMPT, generator, rewards, strategy, seed=seed, budget=Budget(nfe=limit))
    except BudgetError as error:
        assert error.tree.spent.total.nfe == 0
    else:
        assert tree.spent.total.nfe <= limit and tree.result.status is Status.DONE


@pytest.mark.parametrize("strategy", [s for s, kinds in STRATEGIES if "text" in kinds], ids=repr)
def test_identical_siblings_are_no_reason_to_crash(strategy):
    writer = ScriptedText(lambda written: {} if len(written) == 3 else {"same ": 1.0})
    tree = search(PROMPT, writer, lambda text, prompt: 0.5, Vote(strategy, answer=text_answer))
    assert tree.best().output == "same same same "
