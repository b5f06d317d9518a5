"""Every strategy of the package on every kind of generator that it makes sense for.

A kind of generator is added to KINDS, a strategy to STRATEGIES.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import Budget, Generator, Status, Strategy, View, search, strategies
from prunus.errors import BudgetError
from prunus.roles import FunctionReward
from prunus.strategies import (
    AGGREGATES,
    DVTS,
    MCTS,
    REBASE,
    AdaptiveSampling,
    Beam,
    BestOfN,
    EarlyRejection,
    Lookahead,
    ParticleFilter,
    ProcessAdvantage,
    ProcessRewardAgent,
    PruneSchedule,
    StreamT1,
    SuccessiveHalving,
    TTSnap,
    Vote,
    aggregate,
)
from prunus.testing import ScriptedGenerator, ScriptedText, check_strategy
from prunus.testing.scripted import draw


@dataclass(frozen=True)
class Kind:
    """A generator, made when asked for; a score in [0, 1) for what it shows; the answer of an output for votes."""

    make: Callable[[pytest.FixtureRequest], Generator]
    score: Callable[[str, Any], float]
    answer: Callable[[Any], Any]

    def rewards(self, strategy):
        return [self._reward(name) for name in strategy.reads or ("reward",)]

    def _reward(self, name):
        view = View(1, progress=True) if name == "preview" else View(None)
        return FunctionReward(lambda c, prompt: self.score(name, c[0] if view.progress else c), name, view)


def video(request):
    from prunus.generators.streaming_video import StreamingVideo

    return StreamingVideo(request.getfixturevalue("video_model"), 9)


LETTERS = {"a": 0.5, "bb": 0.3, "ccc": 0.2}
NUMBERS = Kind(lambda _: ScriptedGenerator(units=4, pieces=3, early=0.15), draw, lambda numbers: int(numbers[-1] * 3))
TEXT = Kind(
    lambda _: ScriptedText(lambda written: {} if len(written) == 4 else {**LETTERS, "end": 0.1}, most=11),
    draw,
    lambda text: text[-1] if text.whole else None,
)
VIDEO = Kind(video, lambda name, frames: float(frames.mean()) % 1, lambda frames: int(frames.mean() * 1000) % 3)


def language_model(request):
    """A tiny network of a real architecture, a step of which is three tokens."""
    from tiny_text import model

    from prunus.generators.text import TextGenerator

    return TextGenerator(model("llama"), 3, max_tokens=11)


MODEL = Kind(language_model, draw, lambda text: text[-1:] if text.whole else None)
KINDS = {"numbers": NUMBERS, "text": TEXT, "model": MODEL, "video": VIDEO}

ALL = ("numbers", "text", "model", "video")
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
    (SuccessiveHalving(4, (2, 4), inside=True), ("text", "model")),
    (TTSnap(BestOfN(4, "final"), PruneSchedule((1, 2), (0.5, 0.5)), "preview"), ("numbers", "video")),
    (StreamT1(), ("video",)),
    (MCTS(iterations=5, parallel=2), ALL),
    (EarlyRejection(2, 2, tau=2), ALL),
    (EarlyRejection(2, 2, tau=1, survive=3), ALL),
    (AdaptiveSampling(most=4), ALL),
    (ProcessAdvantage(2, 2), ALL),
    (ProcessRewardAgent(2, 2), ALL),
]


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
def test_it_finds_an_answer(request, strategy, kind, by):
    kind = KINDS[kind]
    searching = Vote(strategy, by, answer=kind.answer) if by else strategy
    tree = search(PROMPT, kind.make(request), kind.rewards(strategy), searching)
    assert tree.result.status is Status.DONE and tree.best().output is not None
    assert strategy.revisits or not tree.frontier  # nothing is left half grown
    assert not any(n.children for n in tree.nodes if n.status in (Status.DONE, Status.FAILED))
    assert tree.spent.generating.nfe == sum(n.cost.nfe for n in tree.nodes)
    if by and (votes := searching.votes(tree)):
        assert votes[kind.answer(tree.best().output)] == max(votes.values())


@pytest.mark.parametrize("strategy", [s for s, kinds in STRATEGIES if "text" in kinds], ids=repr)
def test_the_contract_is_kept_on_text(request, strategy):
    check_strategy(strategy, TEXT.make(request), TEXT.rewards(strategy), seeds=(0, 1))


@pytest.mark.parametrize("strategy", [s for s, kinds in STRATEGIES if "model" in kinds], ids=repr)
def test_the_contract_is_kept_by_a_language_model(request, strategy):
    check_strategy(strategy, MODEL.make(request), MODEL.rewards(strategy), seeds=(0,), tolerance=1e-4)


AGGREGATING = [  # the last two have rules of their own
    s
    for s, kinds in STRATEGIES
    if "text" in kinds and hasattr(s, "aggregate") and not isinstance(s, ProcessAdvantage | ProcessRewardAgent)
]


@pytest.mark.parametrize("how", AGGREGATES)
@pytest.mark.parametrize("strategy", AGGREGATING, ids=repr)
def test_the_aggregate_decides_the_final_choice(request, strategy, how):
    step = FunctionReward(lambda text, prompt: draw(text) / 4, "step", View(1))  # the sum is a probability too
    for seed in range(3):
        tree = search(PROMPT, TEXT.make(request), step, replace(strategy, aggregate=how), seed=seed)
        units = {n: [draw(u.unit["text"]) / 4 for u in n.units()] for n in tree.finished}
        assert all(aggregate(n, "step", how) == pytest.approx(AGGREGATES[how](units[n])) for n in units)
        assert AGGREGATES[how](units[tree.result]) == pytest.approx(max(map(AGGREGATES[how], units.values())))


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
    rewards = NUMBERS.rewards(strategy)
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
    tree = search(PROMPT, writer, lambda text, prompt: 0.5, Vote(strategy, answer=TEXT.answer))
    assert tree.best().output == "same same same "
