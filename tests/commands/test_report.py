"""``prunus report``: a page for each video of a run, finished or not; clear messages where there is none."""

import json
import sys
from pathlib import Path

from command_line import BOTH, run


def video(folder, *arguments):
    return run("video", "--model", folder, "--quiet", *arguments)


def test_a_page_of_a_finished_run(here, video_folder, capsys):
    assert video(video_folder, "a red circle moving right", "--frames", 15, *BOTH, "--out", "a") == 0
    capsys.readouterr()
    assert run("report", "a", "--json", "--quiet") == 0
    (made,) = json.loads(capsys.readouterr().out)["reports"]
    html = Path("a/report.html").read_text()
    assert made == {"run": "a", "report": "a/report.html", "bytes": len(html.encode())} and len(html) < 5e6
    assert html.count("<video") == 2 and "Which chunk went where" in html and "Plain and chosen" in html
    assert "The judge beside the reward" in html and "the plain video" in html
    assert run("report", "a") == 2 and "--force" in capsys.readouterr().err
    assert run("report", "a", "--force") == 0 and run("report", "a", "--out", "b.html") == 0
    assert Path("b.html").exists() and not list(Path("a").glob(".report*"))


def test_another_method_has_no_table_of_sinks(here, video_folder, capsys):
    prompt = ("a red circle moving right", "--frames", 3, "--method", "best-of-n", "--n", 2)
    assert video(video_folder, *prompt, "--reward", "user_rewards:red", "--out", "a") == 0
    assert run("report", "a") == 0 and "a/report.html" in capsys.readouterr().out
    html = Path("a/report.html").read_text()
    assert "Which chunk went where" not in html and "BestOfN" in html


def test_a_page_for_each_prompt(here, video_folder, capsys):
    Path("prompts.txt").write_text("a red circle moving right\na blue cross standing still\n")
    assert video(video_folder, "--prompts", "prompts.txt", "--frames", 3, *BOTH, "--out", "many") == 0
    assert run("report", "many", "--out", "x.html") == 2 and "holds 2 videos" in capsys.readouterr().err
    one = Path("many/002-a-blue-cross-standing-still")
    assert run("report", one) == 0 and "blue cross" in (one / "report.html").read_text()
    assert run("report", "many", "--force") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3  # one page, then both
    assert len(list(Path("many").glob("*/report.html"))) == 2 and not Path("many/report.html").exists()


def test_an_interrupted_run_says_what_is_there(here, video_folder, capsys, monkeypatch):
    monkeypatch.setattr("prunus.commands.video.GROUP", 1)
    from prunus.commands import methods

    methods.find_reward("user_rewards:red", methods.WHOLE)
    monkeypatch.setattr(sys.modules["user_rewards"], "stop_after", 6)  # in the second round
    assert video(video_folder, "a red circle moving right", "--frames", 9, *BOTH, "--out", "cut") == 130
    assert run("report", "cut") == 0
    html = Path("cut/report.html").read_text()
    assert "1 of 3 chunks have grown" in html and "prunus video --resume cut" in html and "<video" not in html


def test_no_run_no_page(here, capsys):
    assert run("report", "nowhere") == 2 and "nowhere holds no run" in capsys.readouterr().err
    Path("empty").mkdir()
    job = {
        "prompts": ["a red circle moving right"], "method": "plain", "settings": {}, "frames": 3, "seed": 0,
        "model": "m", "budget": None, "rewards": [], "device": "cpu", "dtype": "float32", "folders": False,
        "version": "",
    }  # fmt: skip
    Path("empty/run.json").write_text(json.dumps(job))
    assert run("report", "empty") == 2 and "prunus video --resume empty" in capsys.readouterr().err
