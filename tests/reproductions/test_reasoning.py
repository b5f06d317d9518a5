"""The study of reasoning at equal cost, tiny: its rows, its files, and that it goes on."""

import argparse
import json

import pytest

from prunus import pocket, search
from prunus.errors import FileError
from prunus.generators.text import TextGenerator
from prunus.reproductions import reasoning
from prunus.roles import FunctionReward
from prunus.worlds import arithmetic


def truth(text, prompt):
    return float(bool(text) and all(arithmetic.labels(str(text), prompt)))


@pytest.fixture(scope="module")
def generator():
    return TextGenerator.load(pocket.path("lm"))


def arguments(out, **changes):
    given = {"split": "dev", "operations": [2], "limit": 3, "widths": [1, 4], "noise": [0.0], "cost": "flops"}
    return argparse.Namespace(**{**given, "methods": ["majority", "beam"], "out": out, **changes})


def test_methods_at_equal_cost(generator, tmp_path, capsys):
    reasoning.run(arguments(tmp_path), generator, FunctionReward(truth, "truth"), "weights")
    shown = capsys.readouterr()
    assert "3 dev problems with 2 operations" in shown.out and "| majority |" in shown.out
    (result,) = json.loads((tmp_path / "results.json").read_text())
    found = {(s["method"], s["budget"]): s for s in result["standings"]}
    budgets = {budget for _, budget in found}
    assert {m for m, _ in found} == {"best-of-n", "majority", "beam"} and len(budgets) == 2
    assert all(
        s["spent"] <= s["budget"] and (s["against"] is None) == (m == "best-of-n") for (m, _), s in found.items()
    )
    # With one candidate all choices are the same; with four, the truth finds what there is.
    best, majority = (
        json.loads((tmp_path / "2-operations" / f"{m}-4.json").read_text()) for m in ("best-of-n", "majority")
    )
    assert sum(r["right"] for r in best["rows"]) >= sum(r["right"] for r in majority["rows"])
    assert best["rows"][0]["flops"] == majority["rows"][0]["flops"]  # a function costs nothing
    assert (tmp_path / "2-operations.png").stat().st_size > 1000
    assert "best-of-n 4" in shown.err


def test_the_likeliest_sample_has_the_highest_sum_of_log_probabilities(generator):
    tree = search("(7+5)*3-4=?", generator, FunctionReward(truth, "truth"), reasoning.Likeliest(8))
    sums = [sum(float(n.unit["log_probabilities"].sum()) for n in leaf.units()) for leaf in tree.finished]
    assert tree.finished.index(tree.result) == sums.index(max(sums))


def test_rows_that_are_there_are_not_made_again(generator, tmp_path, capsys):
    few = arguments(tmp_path, widths=[1], methods=[])
    reasoning.run(few, generator, FunctionReward(truth, "truth"), "weights")
    capsys.readouterr()
    reasoning.run(few, generator, FunctionReward(truth, "truth"), "weights")
    assert capsys.readouterr().err == ""
    with pytest.raises(FileError, match="is of other settings"):
        reasoning.run(few, generator, FunctionReward(truth, "truth"), "other weights")


def test_the_command_explains_what_it_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit):
        reasoning.main(["--methods", "magic", "--reward", "x", "--out", str(tmp_path)])
    assert "methods magic are unknown; take best-of-n" in capsys.readouterr().err
