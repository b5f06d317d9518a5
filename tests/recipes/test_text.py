"""The recipes of the text models at tiny size: they train, go on from checkpoints, and export folders that are read."""

import json
import os
import subprocess
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from prunus.generators.written import Written
from prunus.rewards import OutcomeReward, StepReward

RECIPES = Path(__file__).parents[2] / "recipes" / "text"


def run(script, *arguments, smoke=True):
    return subprocess.run(
        [sys.executable, RECIPES / script, *map(str, arguments), *["--smoke"] * smoke],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
    ).stdout  # fmt: skip


def test_the_recipes_train_a_language_model_and_its_rewards(tmp_path):
    model, solutions, rewards = tmp_path / "lm" / "model", tmp_path / "solutions", tmp_path / "rewards"
    assert "from step 0" in run("language_model.py", "--out", tmp_path / "lm")
    assert "from step 4" in run("language_model.py", "--out", tmp_path / "lm")
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = "(7+5)*3-4=?\n7+5=12\nanswer 12"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids
    assert tokenizer.apply_chat_template([{"role": "user", "content": "1+2=?"}], tokenize=False) == "1+2=?\n"
    assert AutoModelForCausalLM.from_pretrained(model).generation_config.do_sample

    rates = run("pass_rates.py", "--model", model, "--operations", 2, "--problems", 2, "--samples", 4, smoke=False)
    assert set(json.loads(rates)) == {"operations", "pass@1", "pass@4", "no answer"}

    assert "train.jsonl: 56" in run("solutions.py", "--model", model, "--out", solutions)
    row = json.loads((solutions / "train.jsonl").read_text().splitlines()[0])
    assert row["prompt"].endswith("=?\n") and len(row["completions"]) == len(row["labels"])
    trained = run("rewards.py", "--model", model, "--solutions", solutions, "--out", rewards)
    assert '"reward": "orm", "step": 3' in trained and "siblings" in trained
    content = [Written(("7+5=12\n",)), Written(("7+5=1",), whole=False)]
    assert all(0 < s.value < 1 for s in StepReward.load(rewards / "prm").score(content, ["7+5=?"] * 2))
    assert all(0 < s < 1 for s in OutcomeReward.load(rewards / "orm").score(content, ["7+5=?"] * 2))
