"""Pruning inside chunks against outcomes that are written by hand, and the whole study at the smallest size."""

import pytest

from prunus import Cost
from prunus.reproductions import in_chunk
from prunus.reproductions.comparison import Outcome
from prunus.strategies import TTSnap

ONE, TWO = "a red circle moving left", "a red circle moving left and a blue cross standing still"


def outcomes(one, two, nfe):
    return [Outcome(p, 0, 1.0, judge, Cost(nfe=nfe, flops=2 * 10**12)) for p, judge in ((ONE, one), (TWO, two))]


def test_differences_are_paired_by_prompt_and_kept_apart_by_sprites():
    ours, base = outcomes(0.9, 0.3, 60), outcomes(0.8, 0.4, 100)
    assert in_chunk.compared(ours, base, 1).mean == pytest.approx(0.1)
    assert in_chunk.compared(ours, base, 2).mean == pytest.approx(-0.1)
    assert in_chunk.compared(ours, base).mean == pytest.approx(0.0)
    assert in_chunk.nfe(ours) == 60
    [_, _, line] = in_chunk.table({"ours": ours})
    assert line.startswith("| ours | 0.600 [0.300, 0.900] | 0.900 [0.900, 0.900] | 0.300") and line.endswith(
        "| 60 | 2.000 |"
    )


def test_every_row_prunes_as_its_name_says():
    rows = in_chunk.methods("preview")
    assert {name for name, strategy in rows.items() if isinstance(strategy, TTSnap)} == {
        f"Stream-T1 + in-chunk, {n}" for n in in_chunk.FIRST_PRUNED
    }
    pruned = rows["Stream-T1 + in-chunk, 24"]
    assert pruned.inner.first == 24 and rows["Stream-T1, 16"].first == 16
    alive = [24]
    for stage in range(len(pruned.schedule.after)):
        alive.append(pruned.schedule.survivors(stage, alive[-1]))
    assert alive == [24, 12, 3]


def test_the_study_runs_and_goes_on_from_its_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(in_chunk, "FIRST", (4,))
    monkeypatch.setattr(in_chunk, "FIRST_PRUNED", (4,))
    arguments = ["in_chunk", "--one", "1", "--two", "1", "--frames", "3", "--only", "4", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    in_chunk.main()
    said = capsys.readouterr().out
    assert "Stream-T1 + in-chunk, 4" in said and "| beam, 4 |" in said
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    in_chunk.main()
    assert capsys.readouterr().out == said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == files
