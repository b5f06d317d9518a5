import re

import pytest

from prunus.errors import SettingError
from prunus.generators.steps import StepEnd


@pytest.mark.parametrize(
    ("step", "text", "reached"),
    [
        ("\n", "7+5=12", False),
        ("\n", "7+5=12\n", True),
        ("\n", "7+5=12\n1", True),  # a token that goes on behind the separator is not cut
        ("\n", "\n\n", False),  # blank lines belong to the step that follows
        ("\n", "\n\n7+5", False),
        ("\n", "\n\n7+5\n", True),
        ("\n\n", "a\nb\n", False),
        ("\n\n", "a\nb\n\n", True),
        (";", ";", True),
        (re.compile(r"[.!?](\s|$)"), "Is it 3.5", False),
        (re.compile(r"[.!?](\s|$)"), "Is it 3.5?", True),
        (re.compile(r"(?:[^\n]*\n){4}"), "a\nb\nc\n", False),
        (re.compile(r"(?:[^\n]*\n){4}"), "a\nb\nc\nd\n", True),
        (re.compile(r"\n"), "\n \n", False),
    ],
)
def test_where_a_step_of_text_ends(step, text, reached):
    assert StepEnd(step).reached(text, tokens=100) is reached and StepEnd(step).tokens is None


def test_a_step_of_so_many_tokens():
    assert [StepEnd(3).reached("\n\n", n) for n in (1, 2, 3, 4)] == [False, False, True, True]
    assert StepEnd(3).tokens == 3


def test_what_is_needed_to_make_it_again():
    assert [StepEnd(s).spec() for s in ("\n", 7, re.compile("a+"))] == ["\n", 7, {"expression": "a+"}]


@pytest.mark.parametrize("step", ["", 0, -2, True, None, 1.5, re.compile(b"\n")])
def test_a_bad_step_is_refused(step):
    with pytest.raises(SettingError, match=r"^step = "):
        StepEnd(step)
