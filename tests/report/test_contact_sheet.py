"""The contact sheet: every candidate is on it, and it stays a picture of a size that fits a screen."""

import numpy as np
import pytest
import torch

from prunus import Score, Tree
from prunus.errors import SettingError
from prunus.report.contact_sheet import GOLD, GREEN, GREY, RED, contact_sheet, draw
from prunus.tree import Node, Status


def grown(keep=2, branch=2, chunks=3, size=64, frames=3, fail=False):
    """A tree as a beam leaves it, with random frames and scores."""
    rng = np.random.default_rng(0)
    tree = Tree("a red circle moving right and a blue square moving up")
    tree.rewards = ("frame", "clip")
    tree.spec = {"strategy": {"name": "StreamT1", "short": "frame", "long": "clip"}}
    parents = [tree.root] * keep
    for _ in range(chunks):
        row = []
        for i, parent in enumerate(parents * branch):
            node = Node(len(tree.nodes), parent, (*parent.path, i), parent.depth + 1, unit={})
            node.rendering = torch.from_numpy(rng.integers(0, 90, (frames, 3, size, size), np.uint8))
            node.scores = {name: Score(float(rng.normal())) for name in tree.rewards}
            tree.note(node)["value"] = float(rng.normal())
            tree.nodes.append(node)
            row.append(node)
        for node in row[keep:]:
            node.fail("reward 'clip' gave nan") if fail else node.move(Status.PRUNED)
        parents = row[:keep]
    for node in parents:
        node.move(Status.DONE)
    tree.result = parents[0]
    return tree


def colours(image):
    return {colour for _, colour in image.getcolors(2**24)}


def test_every_kind_has_its_frame(tmp_path):
    assert {GOLD, GREEN, GREY} <= colours(draw(grown())) and RED in colours(draw(grown(fail=True)))
    contact_sheet(grown(), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_chosen_path_is_marked_once_in_each_row():
    """The gold frame's left edge, seen in the first cell of every row and in no other cell."""
    pixels = np.asarray(draw(grown(keep=2, branch=2, chunks=3)))
    gold = (pixels == GOLD).all(2)
    edges = gold[:, 124:126].any(1)  # margin 20 and gutter 104
    assert np.count_nonzero(np.diff(edges.astype(int)) == 1) == 3
    assert not gold[120:, 700:].any()


@pytest.mark.parametrize(
    "tree, widest, tallest",
    [
        (grown(), 1800, 900),
        (grown(keep=4, branch=4, chunks=7), 2000, 2400),
        (grown(chunks=40), 3200, 2400),
        (grown(keep=1, branch=1, chunks=1), 1000, 400),
        (grown(size=480, chunks=2), 1800, 700),
        (grown(frames=12), 2400, 900),
        (grown(frames=1, chunks=1), 1200, 400),
    ],
)
def test_it_stays_of_a_size_to_look_at(tree, widest, tallest):
    image = draw(tree)
    assert image.width <= widest and image.height <= tallest


def test_frames_are_enlarged_sharply():
    """An enlarged frame holds no colours but its own and the sheet's."""
    tree = grown(chunks=1)
    chosen = tree.result
    chosen.rendering = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    chosen.rendering[:, :, ::2] = 255
    assert colours(draw(tree).crop((127, 97, 127 + 128, 97 + 128))) == {(0, 0, 0), (255, 255, 255)}


def test_what_cannot_be_drawn():
    with pytest.raises(SettingError, match="nothing to draw"):
        draw(Tree("a red circle moving right"))
    tree = grown(chunks=1)
    tree.nodes[1].rendering = None
    with pytest.raises(SettingError, match="generator"):
        draw(tree)
