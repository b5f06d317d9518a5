"""The command line: what it writes, what it refuses, and that an interrupted run ends as if it had not been."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import BOTH, run

from prunus import Tree
from prunus.commands import methods
from prunus.report.media import read_video

PROMPT = "a red circle moving right"
OUTPUTS = {"video.mp4", "plain.mp4", "side-by-side.mp4", "contact-sheet.png", "tree.json", "run.json", "result.json"}


def made(folder):
    return {p.name for p in Path(folder).iterdir() if p.suffix != ".safetensors"}


def video(folder, *arguments, prompt=PROMPT):
    return run("video", prompt, "--model", folder, "--frames", 6, *arguments)


@pytest.mark.parametrize("what", [["--help"], ["video", "--help"], ["--version"]])
def test_help_is_light(what):
    """Under half a second from the start of the interpreter, and no model library is loaded."""
    code = (
        "import sys, prunus.cli\ntry: prunus.cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "import time; print(time.process_time(), *sys.modules)"
    )
    command = [sys.executable, "-c", code, *what]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
    seconds, *modules = min((r.stdout.splitlines()[-1].split() for r in runs), key=lambda words: float(words[0]))
    assert not {"torch", "diffusers", "transformers", "numpy", "rich"} & set(modules)
    assert float(seconds) < 0.5


def test_python_m_prunus():
    done = subprocess.run([sys.executable, "-m", "prunus", "video", "--keep", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and "--keep" in done.stderr and "Traceback" not in done.stderr


def test_a_video_with_all_its_outputs(here, video_folder, capsys):
    assert video(video_folder, *BOTH) == 0
    shown = capsys.readouterr()
    assert made("runs/video-001") == OUTPUTS
    for name in ("video.mp4", "plain.mp4", "side-by-side.mp4"):
        assert len(read_video(f"runs/video-001/{name}")) == 6
    assert "chunk" in shown.err and "settled" in shown.err and "keep 2" in shown.err
    assert "judge" in shown.out and "plain" in shown.out and "runs/video-001" in shown.out
    tree = Tree.load("runs/video-001")
    assert tree.result is not None and set(tree.rewards) == {"calm", "red"}


def test_json_is_one_object_and_quiet_is_quiet(here, video_folder, capsys):
    assert video(video_folder, *BOTH, "--json", "--quiet", "--out", "a", "--seed", 3) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert shown.err == ""
    assert result["seed"] == 3 and result["settings"]["long"] == "red" and result["folder"] == "a"
    (one,) = result["videos"]
    assert one["chosen"]["nfe"] > one["plain"]["nfe"] > 0 and one["plain"]["judge"] is not None
    assert json.loads(Path("a/result.json").read_text()) == result
    assert run("video", "--resume", "a", "--json") == 0  # a finished run is read, not run again
    assert json.loads(capsys.readouterr().out) == result


@pytest.mark.parametrize("options", [("beam", "--keep", 1), ("best-of-n", "--n", 3), ("plain",)])
def test_other_methods(here, video_folder, capsys, options):
    assert video(video_folder, "--reward", "user_rewards:red", "--json", "--method", *options) == 0
    (one,) = json.loads(capsys.readouterr().out)["videos"]
    assert one["chosen"]["reward"] >= one["plain"]["reward"] or options[0] == "beam"
    assert made("runs/video-001") == OUTPUTS


def test_plain_is_the_first_candidate_of_best_of_n(here, video_folder):
    video(video_folder, "--reward", "user_rewards:red", "--method", "plain", "--out", "p")
    video(video_folder, *BOTH, "--out", "t")
    assert (read_video("p/video.mp4") == read_video("t/plain.mp4")).all()
    assert (read_video("p/video.mp4") == read_video("p/plain.mp4")).all()


def test_a_file_of_prompts(here, video_folder, capsys):
    Path("prompts.txt").write_text(f"{PROMPT}\n\na blue cross standing still\n")
    prompts = ("--prompts", "prompts.txt", "--model", video_folder, "--frames", 3)
    assert run("video", *prompts, *BOTH, "--out", "many", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert [v["prompt"] for v in result["videos"]] == [PROMPT, "a blue cross standing still"]
    assert made("many") == {
        "run.json",
        "result.json",
        "001-a-red-circle-moving-right",
        "002-a-blue-cross-standing-still",
    }
    assert made("many/001-a-red-circle-moving-right") == OUTPUTS - {"run.json"}


def test_recommended_settings_are_used_and_printed_unless_given(here, video_folder, capsys):
    shutil.copytree(video_folder, "model")
    settings = json.loads(Path("model/streaming.json").read_text())
    settings["search"] = {"stream-t1": {"keep": 1, "beta": 0.25}}
    Path("model/streaming.json").write_text(json.dumps(settings))
    assert video("model", *BOTH, "--branch", 3, "--json") == 0
    shown = capsys.readouterr()
    used = json.loads(shown.out)["settings"]
    assert (used["keep"], used["beta"], used["branch"]) == (1, 0.25, 3) and "beta 0.25" in shown.err
    settings["search"] = {"stream-t1": {"kepe": 1}}
    Path("model/streaming.json").write_text(json.dumps(settings))
    assert video("model", *BOTH) == 2 and "kepe" in capsys.readouterr().err


def test_an_interrupted_run_is_finished_to_the_same_video(here, video_folder, capsys, monkeypatch):
    assert video(video_folder, *BOTH, "--frames", 9, "--out", "whole", "--quiet") == 0
    rewards = sys.modules["user_rewards"]
    monkeypatch.setattr(rewards, "stop_after", 6)  # in the second round
    assert video(video_folder, *BOTH, "--frames", 9, "--out", "cut", "--quiet") == 130
    assert "prunus video --resume cut" in capsys.readouterr().err
    assert {"tree.json", "run.json"} <= made("cut") and "video.mp4" not in made("cut")
    assert video(video_folder, *BOTH, "--out", "cut") == 2  # not overwritten, and the way out is named
    assert "--resume cut" in capsys.readouterr().err
    monkeypatch.setattr(rewards, "stop_after", None)
    assert run("video", "--resume", "cut", "--quiet") == 0
    assert made("cut") == OUTPUTS
    assert (read_video("cut/video.mp4") == read_video("whole/video.mp4")).all()
    whole, cut = Tree.load("whole"), Tree.load("cut")
    assert [n.path for n in whole.nodes] == [n.path for n in cut.nodes]
    assert whole.result.path == cut.result.path and whole.spent.total.nfe == cut.spent.total.nfe


def test_an_interrupted_file_of_prompts_goes_on(here, video_folder, capsys, monkeypatch):
    monkeypatch.setattr("prunus.commands.video.GROUP", 1)
    Path("prompts.txt").write_text(f"{PROMPT}\na blue cross standing still\na green square moving up\n")
    methods.find_reward("user_rewards:red", methods.WHOLE)
    monkeypatch.setattr(sys.modules["user_rewards"], "stop_after", 8)  # in the second prompt's search
    command = ("--prompts", "prompts.txt", "--model", video_folder, "--frames", 6, "--out", "many", "--json")
    assert run("video", *command, *BOTH, "--keep", 1, "--branch", 2) == 130
    before = Path("many/001-a-red-circle-moving-right/video.mp4").stat().st_mtime_ns
    monkeypatch.setattr(sys.modules["user_rewards"], "stop_after", None)
    capsys.readouterr()
    assert run("video", "--resume", "many", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["videos"]) == 3
    assert Path("many/001-a-red-circle-moving-right/video.mp4").stat().st_mtime_ns == before


def test_interrupted_before_the_first_round_leaves_nothing(here, video_folder, capsys, monkeypatch):
    methods.find_reward("user_rewards:red", methods.WHOLE)
    monkeypatch.setattr(sys.modules["user_rewards"], "stop_after", 1)
    assert video(video_folder, *BOTH) == 130
    assert "nothing was saved" in capsys.readouterr().err and not Path("runs").exists()


def test_resume_takes_its_settings_from_the_folder(here, capsys):
    assert run("video", "--resume", "nowhere") == 2 and "nowhere" in capsys.readouterr().err
    assert run("video", PROMPT, "--resume", "a", "--keep", 3) == 2
    assert "PROMPT, --keep" in capsys.readouterr().err


def test_nothing_is_overwritten_unless_forced(here, video_folder, capsys):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    Path("out/result.json").write_text("old")
    few = ("--method", "plain", "--reward", "user_rewards:red", "--out", "out", "--frames", 3)
    assert video(video_folder, *few) == 2 and "--force" in capsys.readouterr().err
    assert video(video_folder, *few, "--force", "--budget", "nfe=1") == 2
    assert Path("out/result.json").read_text() == "old"  # a refused run leaves the older one alone
    assert video(video_folder, *few, "--force") == 0
    assert made("out") == OUTPUTS | {"notes.txt"}


def test_forced_over_a_file_of_prompts_none_of_its_folders_stay(here, video_folder):
    command = ("--model", video_folder, "--method", "plain", *BOTH[2:], "--frames", 3, "--out", "out", "--quiet")
    for prompts in (f"{PROMPT}\na blue cross standing still\n", "a blue cross standing still\n"):
        Path("prompts.txt").write_text(prompts)
        assert run("video", "--prompts", "prompts.txt", *command, "--force") == 0
    assert made("out") == {"001-a-blue-cross-standing-still", "run.json", "result.json"}


BAD = {
    "prompt outside the grammar": (["a dog"], "understands"),
    "no prompt": ([], "PROMPT"),
    "frames": ([PROMPT, "--frames", "7"], "multiple of the chunk of 3"),
    "no frames": ([PROMPT, "--frames", "0"], "frames = 0"),
    "keep": ([PROMPT, "--keep", "0"], "--keep"),
    "branch": ([PROMPT, "--branch", "-1"], "--branch"),
    "n of a beam": ([PROMPT, "--method", "beam", "--n", "3"], "--n is not an option of beam"),
    "method": (
        [PROMPT, "--method", "magic"],
        "stream-t1, stream-t1-published, stream-t1-ttsnap, beam, best-of-n, plain",
    ),
    "device": ([PROMPT, "--device", "abacus"], "device 'abacus'"),
    "dtype": ([PROMPT, "--dtype", "float8"], "float32, bfloat16, float16"),
    "budget too small": ([PROMPT, "--budget", "nfe=4"], "raise the budget"),
    "budget of words": ([PROMPT, "--budget", "nfe=much"], "not a number"),
    "budget unknown": ([PROMPT, "--budget", "euros=4"], "limits are"),
    "prompts file missing": (["--prompts", "none.txt"], "none.txt"),
    "prompts file empty": (["--prompts", "empty.txt"], "no prompts"),
    "prompts file binary": (["--prompts", "binary.txt"], "UTF-8"),
    "prompt of a file": (["--prompts", "dogs.txt"], "dogs.txt"),
    "prompt and file": ([PROMPT, "--prompts", "dogs.txt"], "PROMPT or --prompts"),
    "reward path": ([PROMPT, "--reward", "user_rewards"], "package.module:Name"),
    "reward module": ([PROMPT, "--reward", "no_such_module:red"], "no_such_module"),
    "reward name": ([PROMPT, "--reward", "user_rewards:blue"], "no 'blue'"),
    "reward kind": ([PROMPT, "--reward", "user_rewards:number"], "is a int"),
    "reward raises": ([PROMPT, *BOTH[:2], "--reward", "user_rewards:broken"], "no such colour"),
    "reward says a word": ([PROMPT, *BOTH[:2], "--reward", "user_rewards:word"], "'good'"),
    "three rewards": ([PROMPT, *BOTH, *BOTH[:2]], "at most two"),
    "out below a file": ([PROMPT, "--out", "empty.txt/run"], "cannot be written"),
    "out is a file": ([PROMPT, "--out", "empty.txt"], "cannot be written"),
    "model": ([PROMPT, "--model", "no-model"], "no-model"),
}


@pytest.mark.parametrize("arguments, words", BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_message(here, video_folder, capsys, arguments, words):
    Path("empty.txt").write_text("")
    Path("dogs.txt").write_text(f"{PROMPT}\na dog\n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    before = made(".")
    defaults = ["--model", video_folder] if "--model" not in arguments else []
    rewards = list(BOTH) if "--reward" not in arguments else []
    assert run("video", *arguments, *defaults, *rewards, "--quiet") == 2
    shown = capsys.readouterr()
    assert words in shown.err and "Traceback" not in shown.err and shown.out == ""
    assert made(".") - {"__pycache__"} == before - {"__pycache__"}


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder that not even root can write")
def test_an_output_folder_that_cannot_be_written(here, video_folder, capsys):
    assert video(video_folder, *BOTH, "--out", "/proc/prunus") == 2
    assert "/proc/prunus cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer", "streaming.json"])
def test_a_model_folder_with_a_missing_or_corrupt_part(here, video_folder, capsys, part):
    shutil.copytree(video_folder, "model")
    path = Path("model") / part
    if path.is_file():
        path.write_text("{")
    else:
        for file in path.glob("*.safetensors" if list(path.glob("*.safetensors")) else "*.json"):
            file.write_bytes(b"damaged")
    assert video("model", *BOTH) == 2 and part in capsys.readouterr().err
    path.unlink() if path.is_file() else shutil.rmtree(path)
    assert video("model", *BOTH) == 2 and part in capsys.readouterr().err
    assert not Path("runs").exists()


def test_compare_at_equal_cost(here, video_folder, capsys):
    Path("prompts.txt").write_text(f"{PROMPT}\na blue cross standing still\n")
    command = ("compare", "--model", video_folder, "--frames", 6, "--prompts", "prompts.txt", *BOTH)
    assert run(*command, "--out", "results.json", "--seeds", 2) == 0
    shown = capsys.readouterr()
    result = json.loads(Path("results.json").read_text())
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["plain", "best-of-n", "beam", "stream-t1"]
    assert rows["best-of-n"]["flops"] >= max(rows["beam"]["flops"], rows["stream-t1"]["flops"])
    assert all(row["videos"] == 4 for row in rows.values()) and rows["best-of-n"]["against"] is None
    assert "best-of-n (n = " in shown.out and "n = " in shown.err
    assert run(*command, "--out", "results.json") == 2 and "--force" in capsys.readouterr().err


def test_compare_on_a_split(here, video_folder, capsys):
    """Only prompts that the tiny model understands are asked for here."""
    few = ("--frames", 3, "--methods", "plain", "--limit", 1, "--sprites", 1, "--json", "--quiet")
    assert run("compare", "--model", video_folder, *BOTH[2:], *few) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["prompts"] == 1 and [r["method"] for r in result["rows"]] == ["plain", "best-of-n"]
    report = ("compare", "--model", video_folder, *BOTH[2:], *few[:-2], "--split", "report")
    assert run(*report) == 0 and "This is run 1 on the report split" in capsys.readouterr().out
    assert run(*report) == 0 and "This is run 2 on the report split" in capsys.readouterr().out
    assert run("compare", "--methods", "plain,magic") == 2
    assert run("compare", "--model", video_folder, *BOTH, *few, "--split", "train") == 2
