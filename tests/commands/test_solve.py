"""``prunus solve``: what it answers, counts, compares and refuses, and that a run that was broken off goes on."""

import json
from pathlib import Path

import pytest
from command_line import run
from language_server import LanguageServer
from loopback import serve
from text_folders import write_folder

from prunus import Tree
from prunus.worlds import arithmetic

REWARDS = """
from prunus.worlds import arithmetic

stop_after = None

def truth(text, prompt):
    global stop_after
    if stop_after is not None:
        stop_after -= 1
        if stop_after < 0:
            raise KeyboardInterrupt
    return float(bool(text) and all(arithmetic.labels(str(text), prompt)))

def broken(text, prompt):
    raise ValueError("no such number")

def has_ten(text, row):
    return "10" in text
"""
PROMPT = "(7+5)*3-4=?"
TRUTH = ("--reward", "user_rewards:truth")
ELSEWHERE = ("--server", "http://127.0.0.1:9/v1", "--model", "tiny")
QUIET = ("--json", "--quiet")


@pytest.fixture
def there(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "user_rewards.py").write_text(REWARDS)
    return here


def told(capsys):
    return json.loads(capsys.readouterr().out)


def rows(folder):
    return [json.loads(line) for line in (Path(folder) / "rows.jsonl").read_text().splitlines()]


def test_one_prompt(there, capsys):
    assert run("solve", PROMPT, *TRUTH, "--keep", 2, "--branch", 4) == 0
    shown = capsys.readouterr().out
    assert "answer 32" in shown and "tokens" in shown and "runs/solve-001" in shown
    assert {p.name for p in Path("runs/solve-001").iterdir() if p.suffix == ".json"} == {
        "run.json", "result.json", "tree.json",
    }  # fmt: skip
    assert Tree.load("runs/solve-001").rewards == ("truth",)
    assert run("solve", "--resume", "runs/solve-001", *QUIET) == 0  # a finished run is only read
    result = told(capsys)
    (answer,) = result["answers"]
    assert answer["answer"] == "32" and answer["right"] == 1 and answer["tokens"] > 10
    (line,) = result["strategies"]
    assert line["accuracy"]["mean"] == 1 and line["tokens"] == answer["tokens"] and line["flops"] > 0
    assert result["settings"]["beam"]["keep"] == 2


def test_the_packaged_model_is_led_by_the_packaged_reward(there, capsys):
    assert run("solve", PROMPT, "--keep", 2, "--branch", 2, *QUIET) == 0
    result = told(capsys)
    assert result["reward"] == "prm" and result["settings"]["beam"]["reward"] == "prm"
    (answer,) = result["answers"]
    assert 0 < answer["reward"] < 1 and result["strategies"][0]["scoring_tokens"] > 0
    assert run("solve", PROMPT, "--choose", "majority", "--n", 2, *QUIET) == 0
    assert told(capsys)["reward"] == "none"


def test_problems_of_the_world_by_vote(there, capsys):
    arguments = ("--world", "arithmetic", "--operations", 2, "--limit", 6, "--strategy", "best-of-n", "--n", 3)
    assert run("solve", *arguments, "--choose", "majority", *QUIET) == 0  # which needs no reward
    result = told(capsys)
    assert result["problems"] == 6 and result["reward"] == "none" and len(result["answers"]) == 6
    assert [a["prompt"] for a in result["answers"]] == [arithmetic.split("dev", 2)[i * 100 // 6] for i in range(6)]
    for answer in result["answers"]:
        expected = arithmetic.judge(answer["text"], answer["prompt"]).value
        assert answer["right"] == expected
    (line,) = result["strategies"]
    assert line["accuracy"]["low"] <= line["accuracy"]["mean"] <= line["accuracy"]["high"]
    assert line["scoring_tokens"] == 0


def test_a_file_with_its_own_fields_answers_and_check(there, capsys):
    lines = [{"question": "3+4=?", "gold": "7"}, {"question": "3+4+3=?", "gold": "#### 10"}]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = ("--data", "a.jsonl", "--field", "prompt=question", *TRUTH, "--keep", 1, "--branch", 6)
    assert run("solve", *data, "--field", "answer=gold", *QUIET) == 0
    assert [a["right"] for a in told(capsys)["answers"]] == [1, 1]
    assert run("solve", *data, "--check", "user_rewards:has_ten", *QUIET) == 0
    assert [a["right"] for a in told(capsys)["answers"]] == [0, 1]
    assert run("solve", *data, *QUIET) == 0  # nobody knows
    result = told(capsys)
    assert result["strategies"][0]["accuracy"] is None and result["answers"][0]["right"] is None


def test_rows_hold_all_finished_candidates(there, capsys):
    arguments = ("--world", "arithmetic", "--operations", 4, "--limit", 3, *TRUTH, "--strategy", "best-of-n", "--n", 5)
    assert run("solve", *arguments, "--out", "a", *QUIET) == 0
    result = told(capsys)
    assert run("solve", *arguments, "--together", 2, "--out", "b", *QUIET) == 0
    assert told(capsys)["answers"] == result["answers"]
    for row, answer in zip(rows("a"), result["answers"], strict=True):
        candidates = row["candidates"]
        assert len(candidates) == 5 and row["text"] in [c["text"] for c in candidates]
        assert all(c["right"] == arithmetic.judge(c["text"], answer["prompt"]).value for c in candidates if c["whole"])
        assert row["reward"] == max(c["reward"] for c in candidates)
        assert 0 < sum(c["tokens"] for c in candidates) <= row["tokens"] + 5  # the last token of each is not read
        assert "candidates" not in answer


def test_a_template_stands_around_the_problem(there, capsys):
    Path("shown.txt").write_text("1+2=?\n1+2=3\nanswer 3\n{prompt}\n")
    one = (PROMPT, *TRUTH, "--keep", 1, "--branch", 2, *QUIET)
    answers = []
    for template in ("1+2=?\\n1+2=3\\nanswer 3\\n{prompt}", "shown.txt"):
        assert run("solve", *one, "--raw", "--template", template) == 0
        answers += told(capsys)["answers"]
    assert answers[0] == answers[1] and answers[0]["prompt"] == PROMPT
    assert run("solve", PROMPT, *TRUTH, "--template", "absent.txt", "--quiet") == 2
    assert "neither a text with {prompt} in it nor a file of one" in capsys.readouterr().err


def test_a_model_whose_candidates_are_copies_is_one_line(there, capsys):
    (there / "windows").mkdir()
    write_folder(there / "windows", "MistralForCausalLM", sliding_window=8, num_key_value_heads=2, eos_token_id=0)
    arguments = ("--model", "windows", "--raw", "--strategy", "best-of-n", "--n", 2, "--choose", "majority")
    assert run("solve", PROMPT, *arguments, "--max-tokens", 4, "--temperature", 1) == 0
    err = capsys.readouterr().err
    assert err.count("windows: candidates do not share the memory") == 1 and "UserWarning" not in err


def test_a_budget_is_kept(there, capsys):
    arguments = ("--world", "arithmetic", "--operations", 2, "--limit", 2, *TRUTH, "--max-tokens", 30)
    assert run("solve", *arguments, "--strategy", "best-of-n", "--n", 50, "--budget", "tokens=200", *QUIET) == 0
    assert all(0 < a["tokens"] <= 200 for a in told(capsys)["answers"])
    assert run("solve", *arguments, "--budget", "tokens=5", "--quiet", "--out", "none") == 2
    assert "does not pay for one candidate" in capsys.readouterr().err
    assert not Path("none").exists()


def test_strategies_are_compared_at_equal_tokens(there, capsys):
    arguments = ("--world", "arithmetic", "--operations", 3, "--limit", 4, *TRUTH, "--widths", "2,4")
    assert run("solve", *arguments, "--strategy", "beam,dvts:branch=2", "--out", "c", *QUIET) == 0
    result = told(capsys)
    lines = {(s["strategy"], s["width"]): s for s in result["strategies"]}
    assert set(lines) == {(s, w) for s in ("best-of-n", "beam", "dvts:branch=2") for w in (2, 4)}
    assert lines["best-of-n", 4]["tokens"] > lines["best-of-n", 2]["tokens"]
    budgets = {s["budget"] for s in result["equal_tokens"]}
    assert budgets == {lines["best-of-n", w]["tokens"] for w in (2, 4)}
    assert all(s["spent"] <= s["budget"] for s in result["equal_tokens"])
    assert (Path("c") / "curves.png").stat().st_size > 1000
    assert len(rows("c")) == 3 * 2 * 4


def test_a_run_that_was_interrupted_goes_on_to_the_same_answers(there, capsys):
    import user_rewards

    arguments = ("--world", "arithmetic", "--operations", 2, "--limit", 26, *TRUTH, "--keep", 1, "--branch", 2)
    assert run("solve", *arguments, "--out", "whole", *QUIET) == 0
    whole = told(capsys)
    user_rewards.stop_after = 120  # of some 6 for each problem; 16 problems are solved together
    assert run("solve", *arguments, "--out", "broken", "--quiet") == 130
    assert "prunus solve --resume broken" in capsys.readouterr().err
    user_rewards.stop_after = None
    assert len(rows("broken")) == 16
    with (Path("broken") / "rows.jsonl").open("a") as file:
        file.write('{"strategy": "beam", "wid')  # killed while it wrote
    assert run("solve", *arguments, "--out", "broken", "--quiet") == 2
    assert "finish it with prunus solve --resume broken" in capsys.readouterr().err
    assert run("solve", "--resume", "broken", *QUIET) == 0
    assert told(capsys)["answers"] == whole["answers"]


def test_a_prompt_that_was_interrupted_goes_on_from_its_tree(there, capsys):
    import user_rewards

    assert run("solve", PROMPT, *TRUTH, "--out", "whole", *QUIET) == 0
    whole = told(capsys)
    user_rewards.stop_after = 8  # two rounds of four
    assert run("solve", PROMPT, *TRUTH, "--out", "broken", "--quiet") == 130
    user_rewards.stop_after = None
    grown = len(Tree.load("broken").nodes)
    assert run("solve", "--resume", "broken", *QUIET) == 0
    assert told(capsys)["answers"] == whole["answers"]
    assert 1 < grown < len(Tree.load("broken").nodes)


def test_a_server_and_what_it_billed(there, capsys):
    with serve(LanguageServer(hints=True)) as site:
        server = ("--server", site.url, "--model", "tiny", "--max-tokens", 12, "--strategy", "best-of-n", "--n", 3)
        Path("a.jsonl").write_text('{"prompt": "what is 3+4?", "answer": "7"}\n{"prompt": "and 1+1?", "answer": 2}\n')
        assert run("solve", "--data", "a.jsonl", *server, "--choose", "majority", *QUIET) == 0
        result = told(capsys)
        assert result["server"] == site.url
        billed = sum(a["tokens"] for a in result["answers"])
        assert 0 < billed <= result["usage"]["completion"]  # with what was asked to learn what the server can do
        assert all(a["right"] in (0, 1) for a in result["answers"])
        assert run("solve", PROMPT, *server, "--reward", "none", "--max-batch-tokens", 8, "--quiet") == 2
        assert "--max-batch-tokens is for local models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of PROMPT, --data FILE and --world NAME"),
        ((PROMPT, "--world", "arithmetic"), "give one of PROMPT"),
        (("(7+5)*3-4=? \u00e9", *TRUTH), "the tokenizer cannot write"),
        ((PROMPT, "--strategy", "magic"), "'magic' is unknown; take one of plain, best-of-n"),
        ((PROMPT, "--strategy", "mcts", "--keep", "2"), "--keep is not an option of mcts"),
        ((PROMPT, "--choose", "loudest"), "take one of best, majority, weighted"),
        ((PROMPT, "--budget", "apples=3"), "'apples' is unknown"),
        ((PROMPT, "--widths", "2,x"), "are not numbers"),
        ((PROMPT, "--step", "re:(", *TRUTH), "is not a regular expression"),
        ((PROMPT, "--field", "text=a"), "--field 'text' is unknown"),
        ((PROMPT, "--model", ".", *TRUTH), "cannot be loaded as a causal language model"),
        ((PROMPT, "--strategy", "beam", *ELSEWHERE), "needs a reward; give --reward"),
        ((PROMPT, "--server", "http://127.0.0.1:9/v1", *TRUTH), "a server needs the name of its model"),
        ((PROMPT, "--reward", "user_rewards:broken"), "no such number"),
        (("--data", "absent.jsonl"), "cannot be read"),
        (("--world", "arithmetic", "--operations", "12"), "--operations 12"),
        (("--resume", "absent"), "holds no run"),
        ((PROMPT, "--resume", "absent"), "--resume takes all settings from its folder"),
    ],
)
def test_bad_input_is_one_clear_message_and_leaves_nothing(there, capsys, arguments, message):
    assert run("solve", *arguments, "--quiet") == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert not Path("runs").exists()


def test_folders_of_other_commands_are_told_apart(there, capsys):
    assert run("solve", PROMPT, *TRUTH, "--out", "a", "--quiet") == 0
    assert run("video", "--resume", "a") == 2
    assert "a holds solutions; name a folder of prunus video" in capsys.readouterr().err
