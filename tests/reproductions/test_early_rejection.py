"""The miniature of paper 41, with a reward that knows the truth of beginnings."""

import pytest

from prunus import pocket
from prunus.budget import Cost
from prunus.generators.text import TextGenerator
from prunus.generators.text_model import TextModel
from prunus.reproductions import early_rejection
from prunus.reproductions.claim import Trial
from prunus.reproductions.comparison import Outcome
from prunus.roles import FunctionReward
from prunus.score import Score
from prunus.worlds import arithmetic


def truth(text, prompt):
    """Whether all whole lines are right; an unfinished line counts for nothing."""
    whole = text if text.whole else text[: text.rfind("\n") + 1]
    value = float(all(arithmetic.labels(str(whole), prompt))) if whole else 0.5
    return Score(value, {} if text.whole else {"partial": value})


def outcome(prompt, tokens):
    return Outcome(prompt, 0, 1.0, 1.0, Cost(tokens=tokens))


def test_how_many_times_fewer_tokens():
    beam, ours = [outcome("a", 300), outcome("b", 100)], [outcome("a", 100), outcome("b", 100)]
    found = early_rejection.fewer_tokens(ours, beam)
    assert (found.mean, found.low, found.high) == (2.0, 1.0, 3.0)  # 400 / 200; both a, both b


def test_the_miniature_runs_and_saves_tokens():
    model = TextModel.load(pocket.path("lm"))
    generators = TextGenerator(model, early_rejection.FOUR_LINES), TextGenerator(model)
    evidence = early_rejection.study(Trial("dev", smoke=True), *generators, FunctionReward(truth, "truth"))
    tokens, beam, lots, best = evidence.findings
    assert tokens.value.mean > 1.2 and tokens.more_than == pytest.approx(0.4)
    assert (beam.baseline, lots.baseline, best.baseline) == ("beam", "random rejection", "best-of-n")
    assert beam.more_than == pytest.approx(-0.03)
    rows = {row["method"]: row for row in evidence.rows}
    assert len(rows) == 8 and all(set(evidence.columns) <= set(row) for row in rows.values())
    assert rows["early rejection"]["tokens"] < rows["beam"]["tokens"]
    assert early_rejection.CLAIM.paper == 41


def test_lots_say_nothing_and_are_the_same_for_the_same_text():
    scores = early_rejection.Lots().score(["a", "b", "a"], ["p"] * 3)
    assert scores[0] == scores[2] != scores[1] and all(0 <= s <= 1 for s in scores)
