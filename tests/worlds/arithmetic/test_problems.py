"""Problems, splits and mistakes of the arithmetic world, against the rules as written."""

import ast

import numpy as np
import pytest

from prunus.errors import PromptError, SettingError
from prunus.worlds import arithmetic
from prunus.worlds.arithmetic import mistakes
from prunus.worlds.arithmetic.expression import parse, write

SIZES = {"dev": 100, "report": 200, "train": 200}


def nodes(prompt):
    return [n for n in ast.walk(ast.parse(prompt.removesuffix("=?"), mode="eval")) if isinstance(n, ast.BinOp)]


def value(node):
    return eval(ast.unparse(node))


def test_samples_keep_every_rule():
    rng = np.random.default_rng(0)
    for i in range(700):
        prompt = arithmetic.sample(rng, 2 + i % 7)
        assert len(nodes(prompt)) == 2 + i % 7
        for node in nodes(prompt):
            assert abs(value(node)) <= 9999
            if isinstance(node.op, ast.Mult):
                assert min(abs(value(node.left)), abs(value(node.right))) <= 9
            for operand in (node.left, node.right):
                assert not isinstance(operand, ast.Constant) or 0 <= operand.value <= 99


def test_samples_are_seeded_and_need_their_parentheses():
    drawn = [[arithmetic.sample(np.random.default_rng(s), 5) for s in range(40)] for _ in range(2)]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 40
    for prompt in drawn[0]:
        assert write(parse(prompt)) + "=?" == prompt
    with pytest.raises(SettingError, match="operations = 9 is not allowed; operations must be 1 to 8"):
        arithmetic.sample(np.random.default_rng(0), 9)


def test_splits_are_committed_disjoint_and_of_their_sizes():
    splits = {name: arithmetic.split(name) for name in SIZES}
    assert len(set().union(*splits.values())) == sum(map(len, splits.values()))
    for name, size in SIZES.items():
        for operations in range(2, 9):
            prompts = arithmetic.split(name, operations)
            assert len(prompts) == size and all(len(nodes(p)) == operations for p in prompts)
    with pytest.raises(PromptError, match="'test' is unknown; take train, dev or report"):
        arithmetic.split("test")


def test_sample_avoids_dev_and_report(monkeypatch):
    from prunus.worlds.arithmetic import problems

    dev, other = arithmetic.split("dev", 2)[0], "1+1+2=?"
    drawn = iter([dev, arithmetic.split("report", 2)[0], other])
    monkeypatch.setattr(problems, "draw", lambda rng, operations: next(drawn))
    assert problems.sample(None, 2) == other


def test_a_weak_solver_that_never_errs_is_right():
    rng = np.random.default_rng(0)
    for prompt in arithmetic.split("dev", 6)[:20]:
        assert arithmetic.weak_solution(prompt, rng, rate=0) == arithmetic.solution(prompt)


def test_the_rate_is_the_share_of_lines_that_err():
    """Only first errors are counted, as what follows one builds on it; the answer errs a fifth as often."""
    rng, first, lines = np.random.default_rng(0), 0, 0.0
    for prompt in arithmetic.split("report", 6) + arithmetic.split("report", 7):
        labels = arithmetic.labels(arithmetic.weak_solution(prompt, rng, rate=0.1), prompt)
        right = labels.index(False) if False in labels else len(labels)
        first += right < len(labels)
        lines += min(right + 1, len(labels) - 1) + 0.2 * (right >= len(labels) - 1)
    assert first / lines == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("operator", "a", "b", "results"),
    [
        ("+", 7, 5, {2}),
        ("+", 58, 67, {115, 25}),  # 125 without the carry of the units, or of the tens
        ("+", -58, -67, {-115, -25}),
        ("+", 12, 34, set()),
        ("-", 52, 7, {55}),
        ("-", 52, 70, {-28}),  # 70 - 52 is 18, and 28 if nothing is borrowed for the units
        ("-", -8, 7, {-5}),  # -15 without its carry
        ("*", 36, 7, {212}),  # 252 without the 4 that 6 * 7 carries
        ("*", 11, 4, set()),
    ],
)
def test_dropped_carries(operator, a, b, results):
    assert set(mistakes._dropped_carries(operator, a, b)) == results


@pytest.mark.parametrize(
    ("prompt", "early"),
    [
        ("2+3*4=?", {"2+3": "(2+3)*4"}),
        ("9-3+1=?", {"3+1": "9-(3+1)"}),
        ("2*3+4=?", {"3+4": "2*(3+4)"}),
        ("1+2+3=?", {}),  # 2+3 first would be no mistake
        ("(2+3)*4=?", {}),
        ("5*(1-2*7)=?", {"1-2": "5*((1-2)*7)"}),
    ],
)
def test_operations_out_of_turn(prompt, early):
    found = {write(node): write(new) for node, new in mistakes._out_of_turn(parse(prompt))}
    assert found == {k: write(parse(v + "=?")) for k, v in early.items()}


def test_mistakes_stay_numbers_and_differ():
    rng = np.random.default_rng(0)
    for number in (0, 3, -7, 11, 40, -905, 9999):
        for _ in range(50):
            assert mistakes._slip(number, rng) != number
            copied = mistakes._miscopy(number, rng)
            assert copied != number and len(str(abs(copied))) <= len(str(abs(number)))
            assert number < 0 or copied >= 0
    with pytest.raises(SettingError, match="rate = 2"):
        arithmetic.weak_solution("1+1=?", rng, rate=2)
