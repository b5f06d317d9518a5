"""Problems from files and worlds, and who says what is right."""

import json
import sys

import pytest

from prunus.commands.problems import Judge, Problem, digest, read_problems, world_problems
from prunus.errors import FileError, PromptError, SettingError
from prunus.generators.written import Written


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_read_by_their_fields(tmp_path):
    file = write(tmp_path / "a.jsonl", {"question": "1+1?", "answer": 2, "level": 1}, {"question": "2+2?"})
    first, second = read_problems(file, {"prompt": "question"})
    assert (first.prompt, first.answer, first.row["level"]) == ("1+1?", "2", 1)
    assert second.answer is None
    assert [p.prompt for p in read_problems(file, {"prompt": "question"}, limit=1)] == ["1+1?"]
    assert digest([first]) != digest([second]) and digest([first]) == digest([Problem("1+1?", "2")])


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ('{"question": "1+1?"}\n', {}, "line 1 has no text 'prompt' .it has question.; name it with --field prompt="),
        ('{"prompt": "a"}\n[1]\n', {}, "line 2 has no text 'prompt' .it is no object."),
        ('{"prompt": "a"}\n', {"answer": "gold"}, "line 1 has no 'gold'"),
        ('{"prompt": \n', {}, "line 1 is not JSON"),
        ("\n\n", {}, "holds no problems"),
    ],
)
def test_bad_files_are_explained(tmp_path, text, fields, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(FileError, match=message):
        read_problems(tmp_path / "a.jsonl", fields)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="cannot be read: No such file"):
        read_problems(tmp_path / "none.jsonl", {})


def test_problems_of_a_world():
    few = world_problems("arithmetic", "dev", 6, 5)
    assert len({p.prompt for p in few}) == 5 and all(p.answer is None for p in few)
    assert len(world_problems("arithmetic", "dev", 6, None)) == 100
    with pytest.raises(SettingError, match="take arithmetic"):
        world_problems("chess", "dev", None, 1)
    with pytest.raises(PromptError, match="take train, dev or report"):
        world_problems("arithmetic", "test", None, 1)
    with pytest.raises(SettingError, match="--operations 9"):
        world_problems("arithmetic", "dev", 9, 1)


def test_the_world_judges_its_own_problems():
    judge, problem = Judge("arithmetic", None), Problem("(7+5)*3-4=?")
    right, wrong = Written(["7+5=12\n", "12*3=36\n", "36-4=32\n", "answer 32\n"]), Written(["answer 33"])
    assert (judge.right(right, problem), judge.right(wrong, problem)) == (1, 0)
    assert judge.right(Written(["answer 32"], whole=False), problem) == 0  # it was cut, perhaps of 320
    assert judge.vote(right) == "32" and judge.vote(Written(["answer 32"], whole=False)) is None


def test_known_answers_are_compared():
    judge = Judge(None, None)
    gold = "She has 3 * 4 = 12 eggs.\n#### 1,012"
    assert judge.right("That makes 1012.", Problem("?", gold)) == 1
    assert judge.right("That makes 12.", Problem("?", gold)) == 0
    assert judge.right("So it is 0.5", Problem("?", "1/2")) == 1
    assert judge.right("nothing", Problem("?", "1/2")) == 0
    assert judge.right("1", Problem("?")) is None
    assert judge.vote("it is 1,012.") == judge.vote("answer 1012") == "1012"


def test_the_users_own_check(tmp_path, monkeypatch):
    (tmp_path / "my_checks.py").write_text(
        "def polite(text, row):\n    return text.startswith(row['greeting'])\n\n"
        "def broken(text, row):\n    return row['nothing']\n\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    problem = Problem("?", None, {"greeting": "Hello"})
    judge = Judge(None, "my_checks:polite")
    assert (judge.right("Hello you", problem), judge.right("you", problem)) == (1, 0)
    with pytest.raises(SettingError, match="--check failed with KeyError: 'nothing'"):
        Judge(None, "my_checks:broken").right("a", problem)
    with pytest.raises(SettingError, match="is not a function"):
        Judge(None, "my_checks:number")
    with pytest.raises(SettingError, match="has no 'absent'"):
        Judge(None, "my_checks:absent")
