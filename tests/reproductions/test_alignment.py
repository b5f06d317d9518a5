"""The gap between best-of-N and the optimum as sequences grow, and the picture of both."""

import numpy as np
import pytest

from prunus.report.curves import COLOURS
from prunus.reproductions.alignment import LENGTHS, REFERENCES, draw, measure
from prunus.reproductions.claim import Trial


def test_the_gap_falls_at_every_length():
    evidence = measure(Trial())
    for name in REFERENCES:
        rows = [row for row in evidence.rows if row["reference"] == name]
        assert [row["m"] for row in rows] == list(LENGTHS)
        for column in ("gap", "KL(best-of-N, optimum)"):
            values = [row[column] for row in rows]
            assert values == sorted(values, reverse=True) and values[-1] > 0
        assert rows[-1]["KL(best-of-N, reference)"] == pytest.approx(0.1, abs=0.001)
    coin = evidence.rows[0]
    assert (coin["best-of-N"], coin["gap"]) == (pytest.approx(0.6219, abs=5e-5), pytest.approx(0.0979, abs=5e-5))


def test_short_sequences_alone_are_not_the_same_yet():
    smoke = measure(Trial("dev", smoke=True))
    assert [f.verdict for f in smoke.findings[:3]] == ["does not hold here", "holds", "holds"]


def test_best_of_n_is_drawn_below_the_frontier(tmp_path):
    from PIL import Image

    draw(tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    column = pixels[56:, 450]  # through the plot, below the legend
    best, ten, hundred = (np.flatnonzero(np.abs(column - colour).sum(1) < 60).mean() for colour in COLOURS[:3])
    assert best < hundred < ten
