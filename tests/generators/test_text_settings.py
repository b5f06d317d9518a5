"""Prompts and settings of a text generator."""

import pytest
from tiny_text import (
    LETTERS,
    letter_tokenizer,
    model,
)

from prunus import search, search_many
from prunus.errors import ModelError, PromptError, SettingError
from prunus.generators.text import TextGenerator
from prunus.generators.text_how import TextHow
from prunus.generators.text_model import TextModel
from prunus.strategies import BestOfN


@pytest.fixture(scope="module")
def letters():
    return model(tokenizer=LETTERS)


def test_characters_that_the_tokenizer_cannot_write_are_named(letters):
    with pytest.raises(PromptError, match="cannot write 'x', 'é'"):
        TextGenerator(letters).begin("7+x*é=x?")
    silent = model(tokenizer=letter_tokenizer(unknown=False))
    TextGenerator(silent).begin("7+5=?")


def test_a_prompt_beyond_the_context_is_refused(letters):
    assert letters.positions == 512
    assert TextGenerator(letters).begin("1" * 511).most == 1
    with pytest.raises(PromptError, match="has 512 tokens and llama reads 512"):
        TextGenerator(letters).begin("1" * 512)
    with pytest.raises(PromptError, match="empty"):
        TextGenerator(letters).begin("")


def test_a_chat_template_is_used_if_there_is_one():
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}({{ m.content }}){% endfor %}{% if add_generation_prompt %}={% endif %}"
    )
    made = model(tokenizer=tokenizer)
    assert made.decode(made.encode("7+5")) == made.decode(made.encode("7+5", chat=True)) == "(7+5)="
    assert made.decode(made.encode("7+5", chat=False)) == "7+5"
    with pytest.raises(ModelError, match="no chat template"):
        TextGenerator(model(tokenizer=LETTERS), chat=True).begin("7+5")


@pytest.mark.parametrize("chat", [False, True])
def test_a_template_is_what_the_model_reads_and_rewards_do_not(chat):
    """Its tokens before the prompt are read once; what searches find and cost is as if each had read them."""
    made = model(tokenizer=letter_tokenizer())
    made.tokenizer.chat_template = "{% for m in messages %}({{ m.content }}){% endfor %}="
    settings = {"step": 4, "max_tokens": 8, "chat": chat}
    shown = []
    generator = TextGenerator(made, template="1+1=2\n{prompt}=", **settings)
    whole = "(1+1=2\n7+5=)=" if chat else "1+1=2\n7+5="
    read = made.engine.read
    lengths = []
    made.engine.read = lambda contexts, tokens: lengths.extend(map(len, tokens)) or read(contexts, tokens)
    prompts = ["7+5", "3+4"]
    trees = search_many(prompts, generator, lambda text, prompt: shown.append(prompt) or 0.0, BestOfN(2))
    assert lengths[0] == whole.index("7") and lengths[1:3] == [len(whole) - whole.index("7")] * 2
    assert set(shown) == set(prompts) == {tree.prompt for tree in trees}
    assert generator.spec()["template"] == "1+1=2\n{prompt}="
    for tree in trees:
        plain = TextGenerator(made, **settings)
        alone = search(f"1+1=2\n{tree.prompt}=", plain, lambda text, prompt: 0.0, BestOfN(2), seed=tree.seed)
        assert [n.unit["text"] for n in alone.nodes[1:]] == [n.unit["text"] for n in tree.nodes[1:]]
        assert alone.spent.total.tokens == tree.spent.total.tokens
        assert alone.spent.total.flops == tree.spent.total.flops
        again = generator.restore([tree.nodes[1]], tree.prompt), plain.restore([alone.nodes[1]], alone.prompt)
        assert again[0][0][1] == again[1][0][1]


def test_the_folder_says_how_to_sample_and_when_to_stop(letters):
    from transformers import GenerationConfig

    old = letters.network.generation_config
    letters.network.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.9, top_k=12, max_new_tokens=9, stop_strings="==", eos_token_id=[1, 4]
    )
    try:
        generator = TextGenerator(TextModel(letters.network, LETTERS))
        spec = generator.spec()
        assert (spec["temperature"], spec["top_p"], spec["top_k"]) == (0.7, 0.9, 12)
        assert generator.stop == ("==",) and generator.begin("7").most == 9
        assert generator.model.ends == {1, 4}
        letters.network.generation_config = GenerationConfig(max_length=20)
        assert TextGenerator(letters).begin("7+5=?").most == 15
    finally:
        letters.network.generation_config = old


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_step", 0),
        ("max_steps", -1),
        ("max_batch_tokens", 0),
        ("temperature", -1),
        ("stop", [""]),
        ("top_p", 2),
        ("template", "no place for it"),
    ],
)
def test_settings_outside_their_range_are_refused(letters, field, value):
    with pytest.raises(SettingError, match=f"^{field} = "):
        TextGenerator(letters, **{field: value})


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("temperature", -1.0)])
def test_hows_outside_their_range_are_refused(field, value):
    with pytest.raises(SettingError, match=f"^{field} = "):
        TextHow(**{field: value})
