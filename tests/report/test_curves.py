import numpy as np
import pytest

from prunus.errors import SettingError
from prunus.report.curves import COLOURS, Curve, write_curves
from prunus.reproductions.comparison import Interval


def test_the_picture_shows_both_curves_and_their_bands(tmp_path):
    from PIL import Image

    low = Curve("low", [Interval(0.2, 0.1, 0.3)] * 4)
    high = Curve("high", [Interval(0.8, 0.7, 0.9)] * 4, places=[1, 2, 3, 4])
    write_curves(tmp_path / "a.png", [low, high], "score", "chunk")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert pixels.shape == (480, 900, 3)
    middle = pixels[56:, 450]  # a column through the plot, below the legend
    rows = [np.flatnonzero(np.abs(middle - colour).sum(1) < 30) for colour in COLOURS[:2]]
    assert len(rows[0]) and len(rows[1]) and rows[0].mean() > rows[1].mean()  # high is above low
    assert (np.abs(middle - 255).sum(1) > 20).sum() > 0.3 * 360  # two bands of a fifth of the height each


def test_one_flat_point_can_be_drawn(tmp_path):
    write_curves(tmp_path / "a.png", [Curve("one", [Interval(0.5, 0.5, 0.5)])], "score", "chunk")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_every_curve_is_drawn_or_none(tmp_path):
    from PIL import Image

    curves = [Curve(str(i), [Interval(i, i, i)] * 2) for i in range(len(COLOURS))]
    write_curves(tmp_path / "a.png", curves, "score", "chunk", bands=False)
    column = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)[56:, 450]
    assert all((np.abs(column - colour).sum(1) < 30).any() for colour in COLOURS)
    with pytest.raises(SettingError, match="curves = 11"):
        write_curves(tmp_path / "b.png", [*curves, curves[0]], "score", "chunk")
    assert not (tmp_path / "b.png").exists()
