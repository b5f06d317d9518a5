"""The recipes for word problems at tiny size: problems that are cut, and a read-out that is trained and loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import run as prunus

from prunus import pocket
from prunus.commands.solve_job import SolveJob
from prunus.generators.text_model import TextModel
from prunus.rewards import StepReward

RECIPES = Path(__file__).parents[2] / "recipes" / "text"


def recipe(script, *arguments):
    return subprocess.run(
        [sys.executable, RECIPES / script, *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
    ).stdout  # fmt: skip


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_problems_are_cut_and_stories_are_not_shared(tmp_path):
    names = ("apples", "boats", "coins", "drums", "eels", "forks")
    gsm8k = [
        {"question": f"Many {n} cost 1,{i}00 dollars?", "answer": f"So\n#### 1,{i}00"} for i, n in enumerate(names)
    ]
    svamp = [
        {"Body": f"There were {i} {n} near {n} house {n}s", "Question": f"How many {q}?", "Answer": float(i)}
        for i, n in enumerate(names)
        for q in ("left", "came")
    ]
    (tmp_path / "gsm8k.jsonl").write_text("\n".join(map(json.dumps, gsm8k)))
    (tmp_path / "svamp.json").write_text(json.dumps(svamp))
    sources = ("--gsm8k", tmp_path / "gsm8k.jsonl", "--svamp", tmp_path / "svamp.json")
    recipe("word_problems.py", *sources, "--out", tmp_path, "--report", 3, "--train", 9)
    report, train = (lines(tmp_path / f"svamp-{part}.jsonl") for part in ("report", "train"))
    assert len(report) == 3 and all(row["answer"] == row["prompt"].split()[2] for row in report + train)
    assert not {row["answer"] for row in report} & {row["answer"] for row in train}  # of one story each
    assert len(lines(tmp_path / "gsm8k-report.jsonl")) == 3
    assert all(row["answer"] in row["prompt"] for row in lines(tmp_path / "gsm8k-train.jsonl"))
    assert "{prompt}" in (RECIPES / "few-shot.txt").read_text()


def test_a_read_out_of_frozen_layers_is_a_reward(here):
    arguments = ("--world", "arithmetic", "--split", "train", "--operations", 6, "--limit", 20)
    assert prunus("solve", *arguments, "--strategy", "best-of-n", "--n", 4, "--out", "train", "--quiet") == 0
    folder = pocket.path("lm")
    told = recipe(
        "probe.py", "--model", folder, "--dtype", "float32", "--runs", "train", "--layers", 2, "--out", "probe"
    )
    assert "layer 2" in told
    metrics = json.loads((here / "probe" / "metrics.json").read_text())
    assert metrics["solutions"] == 80 and metrics["layer"] == 2 and 0 <= min(metrics["auroc"].values()) <= 1
    reward = StepReward.load("probe")
    assert reward.reads_on and len(reward.model.model.layers) == 2
    row = lines(here / "train" / "rows.jsonl")[0]
    # The score by hand: the frozen model's own state after two layers, at the end of the text.
    problem = SolveJob.load(here / "train")[0].problems()[row["problem"]].prompt
    text = row["candidates"][0]["text"].removesuffix("\n")
    model = TextModel.load(folder)
    ids = torch.tensor([reward.prompt_ids(problem) + reward.tokens(text + "\n")])
    with torch.no_grad():
        hidden = model.network.model(ids, output_hidden_states=True).hidden_states[2][0, -1]
    state = hidden * torch.rsqrt(hidden.square().mean() + model.config.rms_norm_eps)
    wrong, right = reward.model.score(state)
    assert reward.score([text], [problem])[0].value == pytest.approx((right - wrong).sigmoid().item(), abs=1e-4)
