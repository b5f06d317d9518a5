"""OutcomeReward on tiny random folders, against the model run by hand."""

import pytest
import torch
from text_folders import write_folder

from prunus.errors import ModelError, PromptError
from prunus.generators.written import Written
from prunus.rewards import OutcomeReward
from prunus.testing import check_reward

PROMPT = "7+5-2=?"
TEXTS = [Written(("7+5=12\n", "12-2=10\n", "answer 10")), "7+5=12\n1", "answer 3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    kinds = ("LlamaForSequenceClassification", "BertForSequenceClassification")
    return [write_folder(tmp_path_factory.mktemp("outcome"), kind) for kind in kinds]


def test_is_the_probability_of_the_second_label(folders):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for folder in folders:
        model = AutoModelForSequenceClassification.from_pretrained(folder).float().eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text, score in zip(TEXTS, OutcomeReward.load(folder).score(TEXTS, [PROMPT] * 3), strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([tokenizer(f"{PROMPT}\n{text}").input_ids])).logits
            assert score == pytest.approx(logits.softmax(-1)[0, 1].item(), abs=1e-5)


def test_keeps_the_contract(folders):
    for folder in folders:
        check_reward(OutcomeReward.load(folder, batch=2), TEXTS, [PROMPT, PROMPT, "1+2=?"])


def test_costs_the_tokens_of_each_text(folders):
    reward = OutcomeReward.load(folders[0])
    took = reward.took(TEXTS[:2], [PROMPT] * 2, [0, 5])
    lengths = [len(PROMPT) + 1 + len(text) for text in TEXTS[:2]]
    assert took.tokens == sum(lengths)
    assert took.flops == sum(reward.flops(0, n) for n in lengths)
    assert reward.flops(0, 40) == pytest.approx(reward._measured(40), rel=1e-6)
    assert took.flops < reward.cost([3, 2]).flops


def test_what_cannot_be_used_is_refused(tmp_path, folders):
    headless = write_folder(tmp_path / "lm", "LlamaForCausalLM")
    with pytest.raises(ModelError, match="lacks weights of a LlamaForSequenceClassification: score"):
        OutcomeReward.load(headless)
    three = write_folder(tmp_path / "three", "LlamaForSequenceClassification", labels=("a", "b", "c"))
    with pytest.raises(ModelError, match="has 3 labels"):
        OutcomeReward.load(three)
    with pytest.raises(PromptError, match="reads at most 128 tokens"):
        OutcomeReward.load(folders[0]).score(["1" * 200], [PROMPT])
