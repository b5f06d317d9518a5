"""Finding and comparing answers; hostile ones are ended by the system and count as not the same."""

from fractions import Fraction

import pytest

from prunus import answers
from prunus.answers import AnswerChecker, final_answer, marked_answer, plain_number
from prunus.errors import PrunusError, SettingError
from prunus.generators.written import Written


@pytest.fixture(scope="module")
def checker():
    with AnswerChecker() as made:
        yield made


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7+5=12\n12*3=36\n36-4=32\nanswer 32\n", "32"),
        ("answer -5", "-5"),
        ("She pays 2 * 617 = $1,234.\n#### 1,234", "1,234"),
        (r"so \boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"first \boxed{3}, no: \boxed{4}", "4"),
        (r"\boxed 7", "7"),
        (r"The final answer is $\boxed{7}$. I hope it is correct.", "7"),
        ("The answer is 42 apples.", "42"),
        ("The answer is 2x+1.", "2x+1"),
        ("Answer: $x+1$", "x+1"),
        ("**Answer:** 12", "12"),
        ("it costs $5.50.", "$5.50"),
        ("thus 3-4 = -1", "-1"),
        ("7-4", "4"),
        ("nothing", None),
        (r"\boxed{1", "1"),  # the brace is never closed: no mark, and the last number is left
        ("", None),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert final_answer(text) == answer


def test_a_text_that_was_cut_has_no_answer():
    assert final_answer(Written(["1+2=3\n", "answer 3"])) == "3"
    assert final_answer(Written(["1+2=3\n", "answer 3"], whole=False)) is None
    assert marked_answer("only 3") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", 32),
        ("-1,000", -1000),
        ("\u22125", -5),
        ("$5.50", Fraction(11, 2)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("+7.", 7),
        ("1,00", None),
        ("1/0", None),
        ("10**3", None),
        ("1e9", None),
        (".", None),
        ("", None),
        ("9" * 200, None),
    ],
)
def test_plain_numbers(text, value):
    assert plain_number(text) == value


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        ("1/2", "0.5", True),
        ("1/2", r"\frac12", True),
        ("0.5", r"\dfrac{1}{2}", True),
        ("1000", "1,000", True),
        ("1/3", "0.333", False),
        ("x+1", "1+x", True),
        ("(x+1)^2", "x^2+2x+1", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\{1,2\}", r"\{2,1\}", True),
        ("(1,2)", "(2,1)", False),
        ("x+1", "x-1", False),
        ("32", "33", False),
        ("32", None, False),
        (None, "32", False),
        (None, None, False),
    ],
)
def test_what_is_the_same(checker, gold, answer, same):
    assert checker.equal([(gold, answer)]) == [same]


def test_equal_answers_vote_together(checker):
    halves = checker.canonical(["1/2", "0.5", r"\frac12", r"\frac{2}{4}", None, "x+1", "1+x"])
    assert halves[:4] == ["1/2"] * 4
    assert halves[4] is None and halves[5] == halves[6] != "1/2"
    assert checker.vote("so it is\nanswer 1,000") == "1000"
    assert checker.vote("I do not know") is None


def test_hostile_answers_are_ended_and_the_rest_goes_on():
    with AnswerChecker(seconds=0.4) as checker:
        pairs = [("5", r"10^{10^{10}}"), ("5", "99999999!"), ("1/2", r"\frac12"), ("5", "(" * 2000)]
        assert checker.equal(pairs) == [False, False, True, False]
        assert checker.killed >= 1
        asked = checker.killed
        assert checker.equal(pairs[:1]) == [False] and checker.killed == asked  # what is known is not asked again


def test_without_the_library_plain_numbers_still_compare(monkeypatch):
    monkeypatch.setattr(answers, "find_spec", lambda name: None)
    with AnswerChecker() as checker:
        assert checker.equal([("1/2", "0.5"), ("3", "4")]) == [True, False]
        with pytest.raises(PrunusError, match=r"pip install 'prunus\[answers\]'"):
            checker.equal([("1/2", r"\frac12")])


def test_settings_are_checked():
    with pytest.raises(SettingError, match="seconds"):
        AnswerChecker(seconds=0)
    with pytest.raises(SettingError, match="megabytes"):
        AnswerChecker(megabytes=1)
