"""Windows, rows that are kept, and the whole study on a tiny random model that does not mix frames."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from prunus.reproductions import long_videos
from prunus.reproductions.long_tables import apart, drift_curve, drifted, interval
from prunus.worlds.sprites import judge, render, stage

PROMPT = "a red circle moving right"


def test_windows_are_judged_wherever_the_sprite_is_going():
    scene = stage(PROMPT, np.random.default_rng(0), 120)
    video = render(scene, 120)
    scores = long_videos.window_scores(video, PROMPT)
    assert len(scores) == 34 and min(scores) > 0.98
    assert min(judge(video[at : at + 21], PROMPT).value for at in range(0, 100, 3)) < 0.2  # read as if they began
    blue = replace(scene, sprites=(replace(scene.sprites[0], colour="blue"),))
    video[60:] = render(blue, 120)[60:]
    turned = long_videos.window_scores(video, PROMPT)
    assert turned[:14] == scores[:14] and max(turned[20:]) < 0.5
    assert len(long_videos.window_scores(video[:9], PROMPT)) == 1


def clip(prompt, windows, place=(0.0, 0.0)):
    return {"prompt": prompt, "seed": 0, "windows": windows, "positions": [place, place]}


def test_figures_of_the_tables():
    clips = [clip("a", [0.8, 0.6], (3.0, 4.0)), clip("b", [0.6, 0.2])]
    assert [round(p.mean, 6) for p in drift_curve(clips)] == [0.7, 0.4]
    assert drifted(clips, last=1).mean == pytest.approx(-0.3)
    base = [clip("a", [0.5, 0.5]), clip("b", [0.5, 0.5])]
    assert interval(clips, "windows", base).mean == pytest.approx(0.05)
    assert apart(clips, base) == pytest.approx(2.5)  # 5 px and 0 px


@pytest.fixture
def folder(video_folder, tmp_path):
    """A random model whose autoencoder codes frames one by one."""
    from diffusers import AutoencoderKLWan
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    made = shutil.copytree(video_folder, tmp_path / "model")
    vae = AutoencoderKLWan.from_pretrained(made / "vae")
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d):
            module.weight.data[:, :, :-1] = 0
    vae.save_pretrained(made / "vae")
    settings = json.loads((made / "streaming.json").read_text())
    settings["search"] = {"stream-t1": {"keep": 1, "branch": 1}}
    (made / "streaming.json").write_text(json.dumps(settings))
    return made


def test_the_study_runs_and_goes_on(here, folder, capsys):
    arguments = ["--limit", "1", "--seeds", "1", "--frames", "63", "--out", "rows", "--chart", "drift.png"]
    arguments += ["--model", str(folder)]
    long_videos.main(arguments)
    first = capsys.readouterr()
    names = {p.stem for p in (here / "rows").iterdir()}
    assert {"plain-discard", "curtain-discard", "curtain-append-last-seen", "stream-t1"} <= names and len(names) == 12
    assert first.out.count("\n\n") == 3 and (here / "drift.png").stat().st_size > 5000
    (row,) = json.loads((here / "rows/curtain-discard.json").read_text())["clips"]
    assert 0 <= row["place"] <= 1 and len(row["positions"]) == 63
    long_videos.main(arguments)
    again = capsys.readouterr()
    assert again.out == first.out and again.err == ""  # nothing was grown
    with pytest.raises(SystemExit) as stopped:
        long_videos.main([*arguments, "--frames", "66"])
    assert stopped.value.code == 2 and "give another --out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        long_videos.main([*arguments, "--frames", "60"])
    assert stopped.value.code == 2 and "at least 63" in capsys.readouterr().err
