"""The checker of steps and the judge against evaluators written in another way: Python's own, and string rewriting."""

import ast
import re

import numpy as np
import pytest

from prunus.errors import PromptError, SettingError
from prunus.worlds import arithmetic

NUMBER = r"-?\d+"


def evaluate(prompt):
    return eval(prompt.removesuffix("=?"))


def slow_right_steps(text, prompt):
    """Python's parser gives the tree; every node is looked at, left to right, at every line."""
    tree, right = ast.parse(prompt.removesuffix("=?"), mode="eval").body, []
    for line in text.split("\n"):
        step = re.fullmatch(rf"({NUMBER})([-+*])({NUMBER})=({NUMBER})", line)
        if step is None:
            stated = re.fullmatch(rf"answer ({NUMBER})", line)
            right.append(tree is not None and bool(stated) and number(tree) == int(stated[1]))
            tree = None
            continue
        a, b, c = int(step[1]), int(step[3]), int(step[4])
        place = tree and find(tree, a, step[2], b)
        right.append(bool(place) and eval(f"({a}){step[2]}({b})") == c)
        if not place:
            tree = None
        elif place == "root":
            tree = ast.Constant(c)
        else:
            setattr(*place, ast.Constant(c))
    return right


def number(node):
    return node.value if isinstance(node, ast.Constant) else None


def find(tree, a, operator, b):
    """Where the leftmost node ``a operator b`` hangs: (its parent, the field), or "root"; None if there is none."""
    kind = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult}[operator]
    agenda = [("root", tree)]
    while agenda:
        place, node = agenda.pop()
        if not isinstance(node, ast.BinOp):
            continue
        if isinstance(node.op, kind) and number(node.left) == a and number(node.right) == b:
            return place
        agenda += [((node, "right"), node.right), ((node, "left"), node.left)]  # the left one is taken next
    return None


def test_another_evaluator_agrees_on_ten_thousand_problems():
    rng, wrong = np.random.default_rng(0), 0
    for i in range(10_000):
        prompt = arithmetic.sample(rng, 2 + i % 7)
        right, weak = arithmetic.solution(prompt), arithmetic.weak_solution(prompt, rng, rate=0.15)
        assert right.split("\n")[-1] == f"answer {evaluate(prompt)}"
        assert slow_right_steps(right, prompt) == arithmetic.labels(right, prompt) == [True] * (3 + i % 7)
        expected = slow_right_steps(weak, prompt)
        assert arithmetic.right_steps(weak, prompt) == expected
        assert arithmetic.labels(weak, prompt) == [all(expected[: k + 1]) for k in range(len(expected))]
        score = arithmetic.judge(weak, prompt)
        assert score.value == (weak.split("\n")[-1] == f"answer {evaluate(prompt)}")
        assert score.parts["steps"] == pytest.approx(np.mean(expected))
        assert score.parts["first_error"] == (expected.index(False) if False in expected else -1)
        wrong += False in expected
    assert 4_000 < wrong < 8_000  # both kinds are there


@pytest.mark.parametrize(
    ("prompt", "text", "right"),
    [
        ("(7+5)*3-4=?", "7+5=12\n12*3=36\n36-4=32\nanswer 32", [1, 1, 1, 1]),
        ("2+3*4=?", "2+3=5\n5*4=20\nanswer 20", [0, 0, 0]),  # no node has 2 and 3: precedence
        ("9-3-1=?", "3-1=2\n9-2=7\nanswer 7", [0, 0, 0]),  # left-associative
        ("2*3+4*5=?", "4*5=20\n2*3=6\n6+20=26\nanswer 26", [1, 1, 1, 1]),  # any node that can be done, in any order
        ("7+5-2=?", "7+5=13\n13-2=11\nanswer 11", [0, 1, 1]),  # a slip; what follows builds on the claim
        ("7+5-2=?", "7+6=13\n13-2=11\nanswer 11", [0, 0, 0]),  # names no node
        ("7+5-2=?", "5+7=12\n12-2=10\nanswer 10", [0, 0, 0]),  # exactly the operands
        ("1+2-(1+2)=?", "1+2=4\n1+2=3\n4-3=1\nanswer 1", [0, 1, 1, 1]),  # the leftmost of equal nodes takes the claim
        ("3-8-1=?", "3-8=-5\n-5-1=-6\nanswer -6", [1, 1, 1]),
        ("2-(3-8)=?", "3-8=-5\n2--5=7\nanswer 7", [1, 1, 1]),
        ("7+5=?", "answer 12\n7+5=12", [0, 0]),  # nothing was worked out, and the answer ends it
        ("7+5=?", "7+5=12\nanswer 12\nanswer 12", [1, 1, 0]),
        ("7+5=?", "7+5=12\n\nanswer 12", [1, 0, 0]),  # an empty line is a step
        ("7+5=?", "7+5=012\nanswer 12", [0, 0]),
        ("7+5=?", "7+5=12 \nAnswer 12", [0, 0]),
        ("7+5=?", "7+5=" + "9" * 9999, [0]),
        ("7+5=?", "7+5=12\n", [1]),
        ("7+5=?", "", []),
    ],
)
def test_right_steps_line_by_line(prompt, text, right):
    assert arithmetic.right_steps(text, prompt) == [bool(x) for x in right]


def test_the_judge_reads_the_answer_alone():
    lucky = arithmetic.judge("7+5=13\n13-3=12\nanswer 10", "7+5-2=?")
    assert lucky.value == 1 and lucky.parts == {"steps": 0.0, "first_error": 0.0}
    assert arithmetic.judge("7+5=12\n12-2=10\nanswer 10\n", "7+5-2=?").value == 1
    for text in ("", "7+5=12\n12-2=10", "answer", "10", "answer 10\n7+5=12", "answer 10.", "answer 010"):
        assert arithmetic.judge(text, "7+5-2=?").value == 0


def test_answer_is_that_of_the_last_line():
    assert arithmetic.answer("7+5=12\nanswer 12") == arithmetic.answer("answer 3\nanswer 12\n") == "12"
    assert arithmetic.answer("answer -4") == "-4"
    assert arithmetic.answer("answer 12\n7+5=12") is arithmetic.answer("") is arithmetic.answer("answer -0") is None


def test_steps_of_several_lines_are_right_if_all_their_lines_are():
    text = "7+5=12\n12*3=36\n36-4=31\nanswer 31\n"
    assert arithmetic.steps(text) == ["7+5=12", "12*3=36", "36-4=31", "answer 31"]
    assert arithmetic.steps(text, lines=3) == ["7+5=12\n12*3=36\n36-4=31", "answer 31"]
    assert arithmetic.labels(text, "(7+5)*3-4=?") == [True, True, False, False]
    assert arithmetic.labels(text, "(7+5)*3-4=?", lines=2) == [True, False]
    with pytest.raises(SettingError, match="lines = 0 is not allowed"):
        arithmetic.steps(text, lines=0)


@pytest.mark.parametrize(
    "prompt",
    ["", "=?", "7=?", "7+5", "7+=?", "+7=?", "7 + 5=?", "7+5=?=?", "(7+5=?", "7+5)=?", "7/5=?", "7**5=?", "-7+5=?",
     "100+1=?", "07+1=?", "1(2+3)=?", "+".join("1" * 10) + "=?", "(" * 500 + "1+1" + ")" * 500 + "=?", "٣+٤=?"],
)  # fmt: skip
def test_other_prompts_are_refused(prompt):
    with pytest.raises(PromptError, match="it understands 1 to 8 operations"):
        arithmetic.judge("answer 1", prompt)


def test_a_text_can_be_right_until_no_right_line_begins_so():
    # 2+3*4-5: only 3*4 can be done; then 2+12; then 14-5; 10-5 needs a wrong line before.
    for text, length in (("3*4=12\n2+12=14\n14-5=9\nanswer 9", 36), ("3*4=13", 5), ("2+3=5", 0), ("3*4=12\n2+1=3", 10)):
        can = arithmetic.can_be_right(text, "2+3*4-5=?")
        assert can == [True] * min(length, len(text)) + [False] * max(0, len(text) - length), text
    # Two nodes can be done here, and a step that is not whole is right as long as one of them begins so.
    assert arithmetic.can_be_right("3*", "2*3+3*4=?") == [True, True]
    assert arithmetic.can_be_right("2*4", "2*3+3*4=?") == [True, True, False]


def test_a_step_is_right_if_it_can_be_right_with_its_newline():
    rng = np.random.default_rng(1)
    for i in range(500):
        prompt = arithmetic.sample(rng, 2 + i % 7)
        weak = arithmetic.weak_solution(prompt, rng, rate=0.3) + "\n"
        can = arithmetic.can_be_right(weak, prompt)
        assert [can[i] for i, c in enumerate(weak) if c == "\n"] == arithmetic.labels(weak, prompt)
        assert can == sorted(can, reverse=True)
