"""TransformersReward on tiny random folders of real architectures: Gemma 3 with its processor, and wrong ones."""

import json

import pytest
import torch

from prunus.commands.methods import find_reward
from prunus.errors import ModelError, SettingError, VideoError
from prunus.rewards import TransformersReward
from prunus.roles import WHOLE, View
from prunus.testing import check_reward

ONE, TWO = "a red circle", "a green square moving left"
SPECIAL = "<pad> <eos> <bos> <unk> <start_of_image> <end_of_image> <image_soft_token>".split()
WORDS = [*SPECIAL, *"a red green circle square moving left right".split()]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
)


def write_gemma(folder, labels=("bad", "good"), kind="Gemma3ForSequenceClassification", **config):
    """A Gemma 3 folder that reads 32 x 32 pictures as four tokens each; two labels unless said otherwise."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
        extra_special_tokens=names,
    )  # fmt: skip
    image_processor = getattr(transformers, "Gemma3ImageProcessorPil", None) or transformers.Gemma3ImageProcessor
    transformers.Gemma3Processor(
        image_processor(size={"height": 32, "width": 32}), fast, chat_template=TEMPLATE, image_seq_length=4
    ).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    settings = transformers.Gemma3Config(
        text_config={
            **small, "vocab_size": len(WORDS), "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8,
            "pad_token_id": 0, "max_position_embeddings": 128,
        },
        vision_config={**small, "num_hidden_layers": 1, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4, boi_token_index=4, eoi_token_index=5, image_token_index=6,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)}, **config,
    )  # fmt: skip
    model = getattr(transformers, kind)(settings)
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)  # so that what it sees makes a difference
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_gemma(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="module")
def reward(folder):
    return TransformersReward.load(folder, label="good", frames=3)


def clip(frames, seed=0):
    return torch.rand(frames, 3, 40, 40, generator=torch.Generator().manual_seed(seed))


def test_is_the_probability_of_the_label(reward, folder):
    from PIL import Image
    from transformers import AutoModelForSequenceClassification, AutoProcessor

    content = clip(2)
    pixels = content.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=["<bos><start_of_image><start_of_image>" + ONE], images=[[Image.fromarray(p) for p in pixels]],
        return_tensors="pt",
    )  # fmt: skip
    logits = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**inputs).logits[0]
    (score,) = reward.score([content], [ONE])
    assert score.value == pytest.approx(logits.softmax(-1)[1].item(), abs=1e-5)
    assert score.parts == pytest.approx({"bad": 1 - score.value, "good": score.value}, abs=1e-5)
    assert reward.range == "probability"


def test_keeps_the_contract_for_any_lengths(reward, monkeypatch):
    monkeypatch.setattr(reward, "batch", 2)
    check_reward(reward, [clip(2), clip(1, 1), clip(9, 2)], [TWO, ONE, TWO])
    assert reward.score([], []) == []


def test_sees_pictures_and_words(reward):
    scores = [s.value for s in reward.score([clip(3), clip(3, 1), clip(3)], [ONE, ONE, TWO])]
    assert min(abs(a - b) for a, b in [scores[:2], scores[1:], scores[::2]]) > 1e-4


def test_shows_at_most_so_many_frames(reward):
    content = clip(9)
    assert reward.score([content], [ONE]) == reward.score([content[[0, 4, 8]]], [ONE])


def test_labels_are_chosen_by_name_or_index(folder, reward):
    assert TransformersReward.load(folder, label=1, frames=3).score([clip(1)], [ONE]) == reward.score([clip(1)], [ONE])
    for wrong in (None, "lovely", 2, -1):
        with pytest.raises(SettingError, match=f"label = {wrong!r} is not allowed.*'bad', 'good'"):
            TransformersReward.load(folder, label=wrong)


@pytest.mark.parametrize(
    ("config", "labels", "expected", "value_range"),
    [
        ({}, ["score"], lambda x: x, "unbounded"),
        ({"problem_type": "regression"}, ["motion", "text"], lambda x: x, "unbounded"),
        ({"problem_type": "multi_label_classification"}, ["sharp", "true"], torch.sigmoid, "probability"),
    ],
)
def test_outputs_are_read_as_the_folder_says(tmp_path, config, labels, expected, value_range):
    write_gemma(tmp_path, labels, **config)
    reward = TransformersReward.load(tmp_path, label=None if len(labels) == 1 else labels[1])
    logits = []
    reward.model.register_forward_hook(lambda module, args, output: logits.append(output.logits))
    (score,) = reward.score([clip(2)], [ONE])
    numbers = expected(logits[0][0]).tolist()
    assert score.value == pytest.approx(numbers[-1], abs=1e-6) and reward.range == value_range
    assert score.parts == (pytest.approx(dict(zip(labels, numbers)), abs=1e-6) if len(labels) > 1 else {})


def test_cost_is_counted_and_adds_up(folder):
    reward = TransformersReward.load(folder, label="good", frames=6, chunk_frames=3)
    one, two = reward.cost([1]).flops, reward.cost([2]).flops
    assert 0 < one < two == reward.cost([9]).flops  # it sees six frames at most
    assert reward.cost([1, 2, 1]).flops == 2 * one + two


def _edit(folder, name, change):
    config = json.loads((folder / name).read_text())
    change(config)
    (folder / name).write_text(json.dumps(config))


def _text_only(folder):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    LlamaForSequenceClassification(
        LlamaConfig(vocab_size=15, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(folder)


WRONG = {
    "no folder": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "weights cut short": (lambda f: (f / "model.safetensors").write_bytes(b"1234567890"), "cannot be loaded"),
    "weights to unpickle": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "cannot be loaded"),
    "config cut short": (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
    "no head": (lambda f: write_gemma(f, kind="Gemma3ForConditionalGeneration"), "lacks weights.*score.weight"),
    "text only": (_text_only, "LlamaForSequenceClassification, which reads no pictures"),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), "with a chat template"),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), "processor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_folder_is_explained(name, tmp_path):
    spoil, message = WRONG[name]
    spoil(write_gemma(tmp_path))
    with pytest.raises(ModelError, match=message):
        TransformersReward.load(tmp_path, label="good")


def test_takes_the_padding_token_of_the_tokenizer(folder, tmp_path, reward):
    write_gemma(tmp_path)
    _edit(tmp_path, "config.json", lambda c: c["text_config"].update(pad_token_id=None))
    mended = TransformersReward.load(tmp_path, label="good", frames=3)
    contents = [clip(1), clip(3, 1)]
    assert mended.score(contents, [ONE, TWO]) == reward.score(contents, [ONE, TWO])


def test_refuses_what_is_not_a_video(reward):
    with pytest.raises(VideoError, match="transformers-reward"):
        reward.score([torch.zeros(3, 8, 8)], [ONE])


def test_is_named_on_the_command_line(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_folder_reward.py").write_text(
        "from prunus.rewards import TransformersReward\n"
        f"good = TransformersReward.load({str(folder)!r}, label='good', units=2)\n"
    )
    reward = find_reward("my_folder_reward:good", WHOLE)
    assert (reward.view, reward.spec()["folder"]) == (View(2), str(folder))
