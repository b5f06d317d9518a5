import pytest

from prunus.errors import FileError
from prunus.reproductions.report_split import REPORT_RUNS, count_run


def test_looks_are_counted_by_version_and_model(here):
    assert count_run({"prunus": "1", "model": "a"}, ["beam"]) == 1
    assert count_run({"prunus": "1", "model": "b"}, ["beam"]) == 1
    assert count_run({"prunus": "2", "model": "a"}, ["beam"]) == 1
    assert count_run({"prunus": "1", "model": "a", "seeds": 3}, ["plain"]) == 2
    assert len(REPORT_RUNS.read_text().splitlines()) == 4


def test_a_damaged_count_is_refused(here):
    count_run({"prunus": "1", "model": "a"}, [])
    REPORT_RUNS.write_text("not json\n")
    with pytest.raises(FileError, match="report-split"):
        count_run({"prunus": "1", "model": "a"}, [])
