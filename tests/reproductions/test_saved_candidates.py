"""Choices among saved candidates: by hand on one problem, and against the searches of ``prunus solve`` themselves."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run

from prunus.reproductions.saved_candidates import Pool, main, within

REWARDS = """
def length(text, prompt):
    return float(len(text) % 7)
"""
POOL = Pool(
    answers=["3", "5", "3", None],
    right=[0.0, 1.0, 0.0, 0.0],
    scores=[0.1, 0.9, 0.5, 0.7],
    prompt=100,
    tokens=[10, 20, 30, 40],
    scoring_prompt=50,
    scoring=[4, 4, 8, 8],
)


@pytest.mark.parametrize(
    ("method", "accuracies"),
    [
        ("oracle", {1: 1 / 4, 2: 1 / 2, 4: 1}),
        # Pairs: 3|5 a tie, 3|3, 3|none, 5|3 a tie, 5|none right, 3|none.
        ("majority", {1: 1 / 4, 2: 2 / 6, 4: 0}),
        ("best-of-n", {1: 1 / 4, 2: 1 / 2, 4: 1}),
        # All four: 0.1 + 0.5 for the 3, 0.9 for the 5.
        ("weighted", {1: 1 / 4, 2: 1 / 2, 4: 1}),
    ],
)
def test_choices_from_all_subsets(method, accuracies):
    assert {n: POOL.accuracy(method, n) for n in accuracies} == pytest.approx(accuracies)


def test_only_choices_by_the_reward_pay_for_it():
    assert POOL.cost("majority", 2) == POOL.cost("oracle", 2) == 100 + 2 * 25
    assert POOL.cost("weighted", 2) == POOL.cost("best-of-n", 2) == 150 + 50 + 2 * 6
    assert POOL.cost("best-of-n", 1) == 125  # there is nothing to choose


def test_how_well_a_signal_tells_right_from_wrong_within_a_problem():
    assert within([POOL], lambda pool: pool.scores) == 1
    assert within([POOL, POOL], lambda pool: [0.5, 0.5, 0.1, 0.9]) == (0.5 + 1 + 0) / 3
    assert math.isnan(within([replace(POOL, right=[0.0] * 4)], lambda pool: pool.scores))


def test_they_agree_with_the_searches(here, monkeypatch, capsys):
    monkeypatch.syspath_prepend(here)
    (here / "user_rewards.py").write_text(REWARDS)
    same = ("--world", "arithmetic", "--operations", 4, "--limit", 6, "--strategy", "best-of-n", "--n", 4, "--quiet")
    assert run("solve", *same, "--out", "pool", "--choose", "majority") == 0  # which pays for no reward
    assert run("solve", *same, "--out", "best", "--reward", "user_rewards:length") == 0
    main(["--runs", "pool", "--others", "best", "--reward", "user_rewards:length", "--out", "out"])
    assert "majority 4" in capsys.readouterr().out and (here / "out" / "results.png").stat().st_size > 1000
    [study] = json.loads(Path("out/results.json").read_text())
    rows = {(row["method"], row["n"]): row for row in study["table"]}
    assert set(rows) == {(m, n) for m in ("majority", "best-of-n", "weighted", "oracle") for n in (1, 2, 4)}
    searched = [json.loads(line) for line in Path("best/rows.jsonl").read_text().splitlines()]
    [other] = study["others"]
    ties = any(len({c["reward"] for c in r["candidates"]}) < 4 for r in searched)
    assert ties or rows["best-of-n", 4]["accuracy"]["mean"] == pytest.approx(other["accuracy"]["mean"])
    assert rows["best-of-n", 4]["tokens"] == pytest.approx(other["tokens"])  # a function reads no tokens
    assert rows["oracle", 4]["accuracy"]["mean"] >= rows["best-of-n", 4]["accuracy"]["mean"]
    with pytest.raises(SystemExit):
        main(["--runs", "absent", "--reward", "user_rewards:length", "--out", "out"])
    assert "holds no run" in capsys.readouterr().err
