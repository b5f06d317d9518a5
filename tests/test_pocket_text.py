"""The gates of the text models' cards, on a few problems of the dev split, with transformers' own ``generate``."""

import json
from math import comb

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunus.generators.written import Written
from prunus.pocket import path
from prunus.rewards import OutcomeReward, StepReward
from prunus.worlds import arithmetic


@pytest.fixture(scope="module")
def language_model():
    model = AutoModelForCausalLM.from_pretrained(path("lm"), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(path("lm"))


def sample(language_model, texts, samples, tokens=140):
    """For each text so many continuations, by the folder's own settings."""
    model, tokenizer = language_model
    torch.manual_seed(0)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**inputs, num_return_sequences=samples, max_new_tokens=tokens)
    written = tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [written[i * samples : (i + 1) * samples] for i in range(len(texts))]


def solve(language_model, operations, problems, samples=32):
    prompts = arithmetic.split("dev", operations)[:problems]
    return prompts, sample(language_model, [p + "\n" for p in prompts], samples)


@pytest.mark.parametrize(("name", "most"), [("lm", 12e6), ("prm", 3e6), ("orm", 3e6)])
def test_each_is_small_and_has_a_card(name, most):
    files = [f for f in path(name).rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= most
    assert (path(name) / "README.md").is_file()
    assert {f.suffix for f in files} <= {".json", ".safetensors", ".md"}


def test_the_folder_says_how_it_is_used(language_model):
    model, tokenizer = language_model
    settings = model.generation_config
    assert settings.do_sample and settings.temperature == 1 and not settings.top_k
    assert settings.eos_token_id == tokenizer.eos_token_id and settings.pad_token_id == tokenizer.pad_token_id
    message = {"role": "user", "content": "(7+5)*3-4=?"}
    assert tokenizer.apply_chat_template([message], tokenize=False) == "(7+5)*3-4=?\n"
    every = "\n".join(p + "\n" + arithmetic.solution(p) for p in arithmetic.split("report"))
    ids = tokenizer(every).input_ids
    assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == every


def test_it_solves_some_of_its_samples_and_nearly_all_problems_in_several(language_model):
    """pass@1 within 0.3 to 0.7 and pass@16 of 0.9 at six operations; fewer with more operations."""
    rates = {}
    for operations, problems, samples in ((2, 64, 4), (6, 24, 32), (8, 64, 4)):
        prompts, solutions = solve(language_model, operations, problems, samples)
        right = [sum(arithmetic.judge(s, p).value for s in texts) for p, texts in zip(prompts, solutions, strict=True)]
        rates[operations] = np.mean(right) / samples
        if operations == 6:
            sixteen = np.mean([1 - comb(32 - int(c), 16) / comb(32, 16) for c in right])
            answered = np.mean([arithmetic.answer(s) is not None for texts in solutions for s in texts])
    assert 0.3 <= rates[6] <= 0.7 and sixteen >= 0.9
    assert rates[2] > rates[6] > rates[8]
    assert answered > 0.99


def test_the_process_reward_tells_siblings_apart(language_model):
    """Of next steps of a prefix that is right, a right one and a wrong one; halves of steps better than chance.

    Ties count half: the first halves of two steps are often the same text.
    """
    reward, rng = StepReward.load(path("prm")), np.random.default_rng(0)
    prompts = [p for operations in (3, 4, 5, 6, 7, 8) for p in arithmetic.split("dev", operations)[-12:]]
    solutions = [arithmetic.solution(p).split("\n") for p in prompts]
    before = [[f"{s}\n" for s in steps[: rng.integers(len(steps) - 1)]] for steps in solutions]
    found = sample(language_model, [f"{p}\n" + "".join(b) for p, b in zip(prompts, before)], 8, tokens=20)
    ordered, halves = [], []
    for prompt, head, texts in zip(prompts, before, found, strict=True):
        steps = [text.split("\n")[0] for text in texts]
        right = np.array([arithmetic.labels("".join(head) + f"{s}\n", prompt)[-1] for s in steps])
        for contents, out in (
            ([Written([*head, f"{s}\n"]) for s in steps], ordered),
            ([Written([*head, s[: (len(s) + 1) // 2]], whole=False) for s in steps], halves),
        ):
            values = np.array([s.value for s in reward.score(contents, [prompt] * 8)])
            out += (np.sign(values[right][:, None] - values[~right][None]) / 2 + 0.5).ravel().tolist()
    assert len(ordered) > 100
    assert np.mean(ordered) >= 0.8
    assert np.mean(halves) > 0.5


def test_the_outcome_reward_tells_right_answers(language_model):
    reward = OutcomeReward.load(path("orm"))
    prompts, solutions = solve(language_model, 5, 12, samples=8)
    texts, asked = [t for several in solutions for t in several], [p for p in prompts for _ in range(8)]
    right = np.array([arithmetic.judge(t, p).value == 1 for t, p in zip(texts, asked, strict=True)])
    scores = np.array(reward.score(texts, asked))
    assert (scores[right][:, None] > scores[~right][None]).mean() >= 0.7


def test_scores_are_what_the_folders_say(language_model):
    for name in ("prm", "orm"):
        config = json.loads((path(name) / "config.json").read_text())
        assert config["id2label"] == {"0": "wrong", "1": "right"}
