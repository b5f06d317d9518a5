"""The miniature of paper 39: its questions on a plane that is known, and that it runs."""

import pytest

from prunus.reproductions import three_regimes
from prunus.reproductions.claim import HOLDS, NOT_HERE, Trial
from prunus.sparse.regimes import Row, temperatures

HOT, COLD = temperatures("steps", (10, 90))


def plane(low_errors, lmc=(-0.1, 0.0), seeds=3):
    """Two densities and two cuts: ``low_errors`` of the hot and the cold network at 5 %; cold is better at 50 %."""
    rows = []
    for seed in range(seeds):
        wobble = seed / 1000
        for density, errors, value in ((0.05, low_errors, lmc[0]), (0.5, (0.05, 0.03), lmc[1])):
            for temperature, error in zip((HOT, COLD), errors):
                below = value - (0.05 + wobble if temperature == COLD and density == 0.05 else wobble)
                rows.append(Row(density, temperature, error + wobble, below, 0.9, 1, seed))
    return rows


def test_a_transition_is_found_where_there_is_one():
    found = three_regimes.findings_of(plane(low_errors=(0.1, 0.2)))
    assert [f.verdict for f in found] == [HOLDS] * 4
    lmc, move, best, saved = (f.difference.mean for f in found)
    assert lmc == pytest.approx(0.125) and move == pytest.approx(0.05)
    assert best == 1 and saved == pytest.approx(0.1 + 0.02)  # one place hotter; .10 at 5 %, -.02 at 50 %


def test_and_not_where_there_is_none():
    backwards = three_regimes.findings_of(plane(low_errors=(0.2, 0.1), lmc=(0.1, 0.0)))
    assert [f.verdict for f in backwards] == [NOT_HERE, HOLDS, HOLDS, NOT_HERE]  # the best cuts tie


def test_the_table_has_means_over_seeds_the_regime_and_the_advice():
    lines = three_regimes.table(plane(low_errors=(0.1, 0.2)))
    assert [(line["density"], line["dense steps"]) for line in lines] == [(0.05, 10), (0.05, 90), (0.5, 10), (0.5, 90)]
    assert lines[1]["error"] == pytest.approx(0.201) and lines[1]["seeds in regime I"] == 3
    assert [line["regime"] for line in lines] == ["I", "I", "II-A", "II-A"]
    assert [line["advice"] for line in lines] == ["raise", "raise", "lower", "lower"]


def test_the_miniature_runs_and_is_drawn(tmp_path):
    evidence = three_regimes.CLAIM.measure(Trial("dev", smoke=True))
    assert len(evidence.findings) == 4 and len(evidence.rows) == 4
    evidence.pictures["errors"](tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
