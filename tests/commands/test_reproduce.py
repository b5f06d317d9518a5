"""``prunus reproduce``: what it prints, writes, counts and refuses."""

import json
import sys
import types
from pathlib import Path

import pytest
from command_line import run

from prunus.commands.reproduce import _rows
from prunus.reproductions import claim as frame
from prunus.reproductions.claim import Claim, Evidence, Finding
from prunus.reproductions.comparison import Interval


@pytest.fixture
def papers(here, monkeypatch):
    """Two papers that need no model: one holds; the other's miniature is what ``papers`` is told to raise."""
    raises = []

    def measure(trial):
        if raises:
            raise raises[0]
        ours, base, difference = (Interval(mean, mean - 0.1, mean + 0.1) for mean in (0.9, 0.5, 0.4))
        finding = Finding("ours", "best-of-n", ours, base, difference)
        worse = Finding("ours", "beam", *[Interval(-0.5, -0.6, -0.4)] * 3, reason="it looked away")
        return Evidence([finding] if trial.smoke else [finding, worse], {"split": trial.split, "model": "video"})

    module = types.ModuleType("some_paper")
    module.CLAIM = Claim(3, "Some paper", "Ours is better.", "best-of-n", "the judge", measure)
    monkeypatch.setitem(sys.modules, "some_paper", module)
    monkeypatch.setattr(frame, "PAPERS", {3: "some_paper"})
    monkeypatch.setattr("prunus.commands.reproduce.PAPERS", {3: "some_paper"})
    return raises


def test_it_prints_the_claim_the_numbers_and_the_verdict(papers, capsys):
    assert run("reproduce", "03") == 0
    shown = capsys.readouterr().out
    for said in ("Ours is better.", "best-of-n", "+0.400 [+0.300, +0.500]", "it looked away", "does not hold here"):
        assert said in shown
    assert "Run 1 on the report split" in shown
    run("reproduce", "3")
    assert "Run 2 on the report split" in capsys.readouterr().out
    assert not Path("reproductions").exists()


def test_all_is_written_whole(papers, capsys):
    assert run("reproduce", "--all", "--quiet", "--json") == 0
    shown = capsys.readouterr()
    (result,) = json.loads(shown.out)["papers"]
    assert shown.err == "" and json.loads(Path("reproductions/results.json").read_text()) == [result]
    assert result["verdict"] == "does not hold here" and result["findings"][0]["verdict"] == "holds"
    page = Path("reproductions/README.md").read_text()
    assert "| 03 | Some paper | does not hold here |" in page and "it looked away" in page
    assert {p.name for p in Path("reproductions").iterdir()} == {"README.md", "results.json"}


@pytest.mark.parametrize("error, code", [(KeyboardInterrupt(), 130), (frame.SettingError("no such thing"), 2)])
def test_what_was_broken_off_leaves_older_results_alone(papers, capsys, error, code):
    run("reproduce", "--all", "--quiet")
    before = {p.name: p.read_text() for p in Path("reproductions").iterdir()}
    papers.append(error)
    assert run("reproduce", "--all", "--quiet") == code
    assert "Traceback" not in capsys.readouterr().err
    assert {p.name: p.read_text() for p in Path("reproductions").iterdir()} == before


def test_smoke_and_dev_do_not_look_at_the_report_split(papers, capsys):
    assert run("reproduce", "3", "--smoke", "--out", "here") == 0
    shown = capsys.readouterr().out
    assert "mean nothing" in shown and "split dev" in shown and Path("here/results.json").exists()
    assert run("reproduce", "3", "--split", "dev") == 0
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["99"], "there are 03"),
        (["x"], "there are 03"),
        ([], "--all"),
        (["3", "--all"], "--all"),
        (["3", "--split", "train"], "dev or report"),
        (["3", "--out", "user_rewards.py"], "cannot be written"),
    ],
)
def test_bad_input(papers, capsys, arguments, says):
    assert run("reproduce", *arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err and "Traceback" not in shown.err and shown.out == ""


def test_rows_and_pictures_are_shown(papers, capsys, monkeypatch):
    exact = Finding("ours", "theirs", Interval(0.5, 0.5, 0.5), Interval(0.25, 0.25, 0.25), Interval(0.25, 0.25, 0.25))
    rows = [{"m": 10, "gap": -0.0123456, "more": [1]}]
    evidence = Evidence([exact], {}, rows, ["m", "gap"], {"map": lambda path: path.write_bytes(b"drawn")})
    some = Claim(3, "Some paper", "Ours is better.", "best-of-n", "the judge", lambda trial: evidence)
    monkeypatch.setattr(sys.modules["some_paper"], "CLAIM", some)
    assert run("reproduce", "3", "--quiet") == 0
    shown = capsys.readouterr().out
    assert "-0.01235" in shown and "+0.250" in shown and "[0.250" not in shown and "seed" not in shown
    assert [p.name for p in Path("reproductions").iterdir()] == ["03-map.png"]
    assert run("reproduce", "3", "--quiet", "--out", "here") == 0
    page = Path("here/README.md").read_text()
    assert "| m | gap |" in page and "| 10 | \u22120.01235 |" in page and "![03-map](03-map.png)" in page
    assert Path("here/03-map.png").read_bytes() == b"drawn"


def test_paper_58_is_exact_and_drawn(here, capsys):
    assert run("reproduce", "58", "--json", "--quiet") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verdict"] == "holds" and len(result["findings"]) == 9 and "report_run" not in result
    assert Path("reproductions/58-frontier.png").stat().st_size > 1000


def test_paper_01_runs(here, capsys):
    assert run("reproduce", "01", "--smoke", "--json", "--quiet") == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert shown.err == "" and result["smoke"] and len(result["findings"]) == 6
    cost = {row["method"]: row["flops"] for row in result["rows"]}
    assert cost["best-of-n"] >= max(cost.values())  # rounded in the baseline's favour
    assert {f["baseline"] for f in result["findings"]} >= {"plain", "best-of-n", "chunk beam 2x2"}


def test_a_row_may_lack_a_column():
    row = {
        "columns": ("arm", "neurons", "right"),
        "rows": [{"arm": "dense", "right": 0.97}, {"arm": "a", "neurons": 3}],
    }
    assert _rows(row) == [["dense", "", "0.97"], ["a", "3", ""]]
