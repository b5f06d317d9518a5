"""The miniature of paper 61, with a reward that knows the truth."""

from prunus import pocket
from prunus.generators.text import TextGenerator
from prunus.reproductions import rest_mcts
from prunus.reproductions.claim import Trial
from prunus.roles import FunctionReward
from prunus.worlds import arithmetic


def truth(text, prompt):
    return float(bool(text) and all(arithmetic.labels(str(text), prompt)))


def test_the_miniature_runs_at_equal_cost():
    generator = TextGenerator.load(pocket.path("lm"))
    evidence = rest_mcts.study(Trial("dev", smoke=True), generator, FunctionReward(truth, "truth"))
    rows = {row["method"]: row for row in evidence.rows}
    assert len(rows) == 6 and all(set(evidence.columns) <= set(row) for row in rows.values())
    ours = rows["MCTS*"]
    assert rows["MCTS*, gate 0.9"]["flops"] <= ours["flops"]
    assert evidence.settings["n"] == evidence.settings["votes"]  # a function costs nothing
    assert [f.baseline for f in evidence.findings] == ["best-of-n", "majority"]
    assert ours["right"] >= rows["one sample"]["right"]
    assert rest_mcts.CLAIM.paper == 61
