"""``prunus video`` with a reward behind a server: it may die in mid-run, and the run goes on when it is back."""

import base64
import io
from pathlib import Path

import numpy as np
from command_line import run
from loopback import Answer, serve
from PIL import Image

from prunus.report.media import read_video


def bright(body):
    pictures = [[Image.open(io.BytesIO(base64.b64decode(f))) for f in frames] for frames in body["frames"]]
    return {"scores": [float(np.mean([np.asarray(p)[..., 0] for p in frames])) for frames in pictures]}


def test_a_server_that_dies_leaves_a_run_that_is_resumed(here, video_folder, capsys):
    with serve(bright) as site:
        Path("remote.py").write_text(
            "from prunus.rewards import HTTPReward\n"
            f"bright = HTTPReward({site.url!r}, name='bright', retries=0, batch=64)\n"
        )
        command = ("a red circle moving right", "--model", video_folder, "--frames", 9, "--reward", "remote:bright")
        beam = (*command, "--method", "beam", "--keep", 2, "--branch", 2, "--quiet")
        assert run("video", *beam, "--out", "whole") == 0
        asked = len(site.seen)
        site.answer = lambda body: bright(body) if len(site.seen) < asked + 2 else Answer(b"out of memory", 500)
        assert run("video", *beam, "--out", "cut") == 2
        said = capsys.readouterr().err
        assert "answered 500: out of memory" in said and said.strip().endswith("prunus video --resume cut")
        assert "Traceback" not in said and not Path("cut/video.mp4").exists()
        site.answer = bright
        assert run("video", "--resume", "cut", "--quiet") == 0
        assert (read_video("cut/video.mp4") == read_video("whole/video.mp4")).all()
        site.answer = lambda body: Answer(b"out of memory", 500)
        assert run("video", *beam, "--out", "none") == 2 and not Path("none").exists()
