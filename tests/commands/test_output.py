"""The folder of a run: one process at a time writes into it, and a new run has a folder of its own."""

import multiprocessing
from pathlib import Path

import pytest

from prunus.commands.output import Output
from prunus.errors import FileError


def hold(folder, entered, leave):
    with Output(folder, force=True) as output:
        output.claim({"kind": "video"})
        entered.set()
        leave.wait(30)


def test_a_folder_in_use_is_refused_until_its_process_ends(tmp_path):
    process_of = multiprocessing.get_context("fork")
    entered, leave = process_of.Event(), process_of.Event()
    process = process_of.Process(target=hold, args=(tmp_path / "run", entered, leave))
    process.start()
    assert entered.wait(30)
    for options in ({"force": True}, {"resumed": True}, {}):
        with pytest.raises(FileError, match="another process is writing into"), Output(tmp_path / "run", **options):
            pass
    process.kill()  # however it ends
    process.join(30)
    with Output(tmp_path / "run", resumed=True):
        pass
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"run.json"}


def test_new_runs_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Output(None) as first, Output(None) as second, Output(None, kind="solve") as other:
        folders = [str(output.folder) for output in (first, second, other)]
        assert folders == ["runs/video-001", "runs/video-002", "runs/solve-001"]
    assert not Path("runs").exists()  # nothing was claimed
    Path("runs").write_text("")
    with pytest.raises(FileError, match="the folder runs/video-001 cannot be written"), Output(None):
        pass
