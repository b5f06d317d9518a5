"""The table of methods and how variants of them are written."""

import pytest

from prunus import pocket
from prunus.commands.methods import METHODS, check_sampler, parse_variant, set_up
from prunus.commands.models import load_generator
from prunus.errors import SettingError
from prunus.strategies import StreamT1


def test_every_method_is_built_without_arguments():
    assert {"stream-t1", "stream-t1-published", "stream-t1-ttsnap", "beam", "best-of-n", "plain"} == set(METHODS)
    assert METHODS["stream-t1-published"].build() == StreamT1.published()
    assert METHODS["plain"].build().n == 1


def test_a_variant_names_its_settings():
    assert parse_variant("beam") == ("beam", {})
    assert parse_variant("stream-t1:noise=fresh:memory=false:cap=0") == (
        "stream-t1",
        {"noise": "fresh", "memory": False, "cap": 0},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snake", "method 'snake' is unknown"),
        ("beam:keep", "'keep' is not a setting"),
        ("beam:width=3", "width"),
        ("beam:keep=0", "keep = 0 is not allowed"),
        ("stream-t1-ttsnap:after=[3,1]", "rising numbers of steps"),
        ("stream-t1:noise=pink", "noise = 'pink' is not allowed"),
    ],
)
def test_a_bad_variant_is_explained(text, message):
    with pytest.raises(SettingError, match=message):
        parse_variant(text)


def test_a_reward_of_estimates_is_not_read_with_another_sampler():
    setup = set_up("stream-t1-ttsnap", {})
    check_sampler(setup, load_generator(pocket.path("video"), 3, "cpu", "float32", euler_steps=8))
    with pytest.raises(SettingError, match="of 8 steps; give --euler-steps 8"):
        check_sampler(setup, load_generator(pocket.path("video"), 3, "cpu", "float32"))
