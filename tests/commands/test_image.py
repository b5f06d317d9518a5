"""``prunus image``: what it writes, and what it says of bad input."""

import json

import pytest
from command_line import run
from PIL import Image

from prunus import Tree

PROMPT = "a yellow circle standing still"


def test_it_writes_the_image_its_evidence_and_its_cost(tmp_path, capsys):
    out = tmp_path / "out"
    assert run("image", PROMPT, "--n", 6, "--out", out, "--json", "--quiet") == 0
    result = json.loads(capsys.readouterr().out)
    # 6 seeds for 8 steps, round(0.3 * 6) = 2 for the other 12
    assert result["chosen"]["nfe"] == 6 * 8 + 2 * 12 and result["plain"]["nfe"] == 20
    assert 0 <= result["chosen"]["judge"] <= 1
    assert Image.open(out / "image.png").size == Image.open(out / "plain.png").size == (64, 64)
    assert Image.open(out / "side-by-side.png").size[0] == 2 * 4 * 64 + 8
    assert (out / "contact-sheet.png").stat().st_size > 0
    assert len(Tree.load(out).nodes) == 1 + 6 + 2
    assert run("image", PROMPT, "--out", out, "--quiet") == 2  # never overwritten
    assert "is not empty" in capsys.readouterr().err
    for command in (("report", out), ("video", "--resume", out)):
        assert run(*command) == 2
        assert "holds an image; name a folder of prunus video" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a horse",), "is not one that this model understands"),
        ((PROMPT, "--method", "magic"), "take one of ttsnap, best-of-n, plain"),
        ((PROMPT, "--method", "plain", "--n", "3"), "--n is not an option of plain"),
        ((PROMPT, "--budget", "nfe=5"), "does not pay for one candidate"),
    ],
)
def test_bad_input_is_one_clear_message_and_leaves_nothing(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("image", *arguments, "--out", out, "--quiet") == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
