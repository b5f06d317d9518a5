"""Kept trees: private files, of one owner, for a time."""

import stat

import pytest
from server_engine import LIKING, held

from prunus import Tree, search
from prunus.errors import FileError
from prunus.server.trees import ID, Trees, shown
from prunus.strategies import Beam


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def tree():
    return search("p", held(), LIKING, Beam(keep=2, branch=2))


@pytest.fixture
def kept(tmp_path):
    return Trees(tmp_path / "trees", 60.0, Clock())


def test_a_tree_is_its_owners_alone(kept, tree):
    id = kept.new_id()
    kept.save(tree, "key-a", id)
    assert ID.fullmatch(id) and len(id) == len("tree-") + 32 and kept.new_id() != id  # 128 bits in hexadecimal
    assert [n.id for n in kept.load(id, "key-a").nodes] == [n.id for n in tree.nodes]
    assert kept.load(id, "key-b") is None and kept.load(id, "") is None
    assert not kept.delete(id, "key-b") and kept.load(id, "key-a") is not None
    assert kept.delete(id, "key-a") and kept.load(id, "key-a") is None and not kept.delete(id, "key-a")


@pytest.mark.parametrize("id", ["", "..", "tree-", "tree-../x", "tree-" + "A" * 32, "tree-" + "0" * 33, "/etc/passwd"])
def test_ids_are_no_paths(kept, id):
    assert kept.load(id, "") is None and not kept.delete(id, "")


def test_files_are_private(kept, tree):
    id = kept.new_id()
    kept.save(tree, "key-a", id)
    assert stat.S_IMODE(kept.folder.stat().st_mode) == stat.S_IMODE((kept.folder / id).stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (kept.folder / id).iterdir()} == {0o600}
    assert Tree.load(kept.folder / id).result.id == tree.result.id


def test_what_is_over_is_not_given_out_and_is_deleted(kept, tree):
    first, second = kept.new_id(), kept.new_id()
    kept.save(tree, "key-a", first)
    kept.clock.now += 40
    kept.save(tree, "key-a", second)
    assert kept.sweep() == 2
    kept.clock.now += 30
    assert kept.load(first, "key-a") is None and kept.load(second, "key-a") is not None
    assert kept.sweep() == 1 and not (kept.folder / first).exists()


def test_there_are_only_so_many(kept, tree, monkeypatch):
    monkeypatch.setattr("prunus.server.trees.MOST", 2)
    ids = [kept.new_id() for _ in range(4)]
    for id in ids:
        kept.clock.now += 1
        kept.save(tree, "key-a", id)
    assert kept.sweep() == 2 and kept.load(ids[3], "key-a") is not None and kept.load(ids[0], "key-a") is None


def test_a_temporary_folder_goes_with_the_server(tree, tmp_path):
    passing = Trees(None, 60.0)
    passing.save(tree, "", passing.new_id())
    passing.close()
    assert not passing.folder.exists()
    lasting = Trees(tmp_path, 60.0)
    lasting.close()
    assert lasting.folder.exists()


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be kept"):
        Trees(tmp_path / "file" / "trees", 60.0)


def test_what_a_client_is_shown(tree):
    told = shown(tree)
    assert [n["id"] for n in told["nodes"]] == list(range(len(tree.nodes)))
    path, node = [], told["nodes"][told["result"]]
    while node["parent"] is not None:
        path, node = [node["text"], *path], told["nodes"][node["parent"]]
    assert "".join(path) == str(tree.best().output)
    assert all("liking" in n["scores"] for n in told["nodes"][1:]) and told["spent"]["generating"]["tokens"] > 0
