"""Strict JSON against any object and any bytes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.server.errors import Refusal
from prunus.server.strict_json import parse

DEPTH = 12
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=5)


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@settings(max_examples=150, deadline=None)
@given(OBJECTS, st.booleans())
def test_every_sound_object_is_read_as_it_was_written(value, ascii):
    content = json.dumps(value, ensure_ascii=ascii).encode()
    if depth(value) <= DEPTH:
        assert parse(content, DEPTH) == value
    with pytest.raises(Refusal, match="nested more than"):
        parse(content, depth(value) - 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0dD89eE+-. tfn"a', max_size=60).map(str.encode))
def test_other_bytes_are_refused_and_nothing_else_happens(content):
    try:
        assert isinstance(parse(content, DEPTH), dict)
    except Refusal as refused:
        assert refused.status == 400 and refused.code == "invalid_json"
