"""Videos decode to the pixels that went in; a file that is there is whole."""

import numpy as np
import pytest
import torch

from prunus.errors import FileError, VideoError
from prunus.report.media import CAPTION, GAP, enlarge, read_video, to_pixels, write_png, write_side_by_side, write_video
from prunus.worlds.sprites import render, sample


@pytest.fixture(scope="module")
def clip():
    return render(sample(np.random.default_rng(3)), 21)


def test_a_video_is_lossless(clip, tmp_path):
    write_video(tmp_path / "a.mp4", torch.from_numpy(clip), fps=8)
    assert np.array_equal(read_video(tmp_path / "a.mp4"), to_pixels(clip))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_noise_and_one_frame_are_lossless(tmp_path):
    noise = np.random.default_rng(0).random((1, 3, 10, 14), np.float32)
    write_video(tmp_path / "a.mp4", noise, fps=8)
    assert np.array_equal(read_video(tmp_path / "a.mp4"), to_pixels(noise))


def test_the_frame_rate_is_kept(clip, tmp_path):
    import av

    write_video(tmp_path / "a.mp4", clip, fps=8)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.streams.video[0].average_rate == 8


def test_side_by_side(clip, tmp_path):
    write_side_by_side(tmp_path / "a.mp4", clip, clip[:9, :, :, ::-1], fps=8)
    shown = read_video(tmp_path / "a.mp4").astype(int)
    assert shown.shape == (21, 256 + CAPTION, 512 + GAP, 3)
    wanted = enlarge(to_pixels(clip), 4)
    assert np.abs(shown[:, :256, :256] - wanted).mean() < 2
    assert np.abs(shown[:, :256, 264:] - wanted[np.minimum(np.arange(21), 8), :, ::-1]).mean() < 2
    assert shown[0, 256:, :256].max() > 200  # the caption is there


def test_side_by_side_of_odd_sizes_can_be_played(tmp_path):
    write_side_by_side(tmp_path / "a.mp4", np.zeros((2, 3, 11, 13)), np.ones((2, 3, 11, 13)), fps=8, times=1)
    assert read_video(tmp_path / "a.mp4").shape[0] == 2


@pytest.mark.parametrize("bad", [np.zeros((3, 8, 8)), np.zeros((0, 3, 8, 8)), np.full((1, 3, 8, 8), np.nan)])
def test_what_is_not_a_video_is_refused(bad, tmp_path):
    with pytest.raises(VideoError):
        write_video(tmp_path / "a.mp4", bad, fps=8)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(clip, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file"):
        write_video(tmp_path / "file" / "a.mp4", clip, fps=8)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    class Broken:
        def save(self, path, kind):
            path.write_text("half")
            raise OSError(28, "No space left on device")

    (tmp_path / "a.png").write_text("whole")
    with pytest.raises(FileError, match="No space left"):
        write_png(tmp_path / "a.png", Broken())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_text() == "whole"


def test_reading_what_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("no")
    with pytest.raises(FileError, match=r"a\.mp4"):
        read_video(tmp_path / "a.mp4")
