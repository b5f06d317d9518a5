"""What is offered: names, and models that are read beside the thread on which they write."""

import pytest
from server_searches import LIKING, PROBLEM, writer
from tiny_text import model as byte_model

from prunus.errors import SettingError
from prunus.generators.text import TextGenerator
from prunus.server.catalogue import Catalogue, Model


def test_strategies_need_their_reward():
    with pytest.raises(SettingError, match=r"beam-2x2.*--reward"):
        Catalogue({"m": writer()}, {}, ("beam-2x2",))
    assert [n for n, _ in Catalogue({"m": writer()}, {}, ("majority-4",)).names()] == ["m", "m@majority-4"]
    with pytest.raises(SettingError, match="models"):
        Catalogue({}, {"liking": LIKING})
    for name in ("", "a b", "a@b", "é"):
        with pytest.raises(SettingError, match="name"):
            Catalogue({name: writer()})
        with pytest.raises(SettingError, match="name"):
            Catalogue({"m": writer()}, {name: LIKING})


def test_a_prompt_that_was_read_is_what_the_model_would_read():
    """As a chat and raw; the state to begin from is the same as from the text."""
    generator = writer()
    model = Model("m", generator)
    for raw in (False, True):
        made = model.adjusted(raw, max_tokens=5)
        prompt = model.read(PROBLEM, raw)
        assert prompt == PROBLEM and made.begin(prompt).pending == made.begin(PROBLEM).pending
        assert made.begin(prompt).most == 5
    assert model.text_of(list(prompt.tokens)) == PROBLEM
    assert model.takes_turns and model.takes_text and model.longest == 128
    assert model._reader.tokenizer is not generator.model.tokenizer


def test_a_model_without_a_template_takes_one_message_only():
    plain = Model("plain", TextGenerator(byte_model(), step=4, max_tokens=8))
    assert not plain.takes_turns and plain.read("hé", False).tokens


def test_settings_of_a_request_change_nothing_of_the_model():
    generator = writer()
    before = generator.spec()
    Model("m", generator).adjusted(True, temperature=0.1, top_p=0.5, top_k=3, stop=["x"], max_tokens=3)
    assert generator.spec() == before
