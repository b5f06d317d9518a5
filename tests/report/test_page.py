"""The report page: what it says of a tree, and that all text is shown as text."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from grown_tree import EVIL, grown

from prunus import Score, Tree
from prunus.errors import SettingError
from prunus.report.chart import chart
from prunus.report.media import web_video
from prunus.report.numbers import amount, number
from prunus.report.page import Clip, leading_path, page
from prunus.report.thumbnails import MOST_PIXELS, thumbnails
from prunus.report.tree_picture import picture
from prunus.tree import Node, Status


class Text(HTMLParser):
    """The texts of a page by element, and its elements with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found, self.elements, self.open = {}, [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.open:
            del self.open[len(self.open) - 1 - self.open[::-1].index(tag) :]

    def handle_data(self, data):
        if self.open:
            self.found.setdefault(self.open[-1], []).append(data)


def details(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def test_text_is_shown_as_text():
    """A prompt, a reward's name, a part, a setting and a reason that try to be HTML stay text."""
    tree = grown(EVIL, EVIL)
    tree.nodes[4].status, tree.nodes[4].reason = Status.FAILED, EVIL
    html = page(tree, facts={EVIL: EVIL}, notice=EVIL, clips=[Clip("chosen", np.zeros((3, 32, 32, 3), np.uint8))])
    read = Text(html)
    assert "".join(read.found["h1"]) == EVIL
    assert len([tag for tag, _ in read.elements if tag == "script"]) == 2
    assert not [tag for tag, _ in read.elements if tag == "img"]
    data = details(html)
    assert data["nodes"]["4"]["reason"] == EVIL
    assert data["nodes"]["1"]["scores"][1]["parts"][0] == [EVIL, "1.000"]


def test_it_asks_the_network_for_nothing():
    html = page(grown(), clips=[Clip("chosen", np.zeros((3, 32, 32, 3), np.uint8))])
    asked = [a[k] for _, a in Text(html).elements for k in ("src", "href", "poster", "srcset") if k in a]
    assert asked and all(url.startswith("data:") for url in asked)
    assert all(url.startswith("data:") for url in re.findall(r"url\([\"']?([^)\"']+)", html))
    assert not re.search(r"@import|https?://", html)


def test_what_it_says_of_a_tree():
    tree = grown()
    html = page(tree, judge=lambda node: Score(node.id / 100))
    nodes = details(html)["nodes"]
    assert len(nodes) == len(tree.nodes) - 1 == 12
    assert [nodes[str(i)]["kind"] for i in (1, 2, 3, 4)] == ["chosen", "kept", "pruned", "pruned"]
    assert nodes["5"]["parent"] == 1 and nodes["1"]["children"] == [5, 6] and nodes["1"]["parent"] is None
    assert [(s["name"], s["value"]) for s in nodes["1"]["scores"]] == [
        ("frame (short)", "0.100"), ("clip (long)", "\u22120.100"), ("judge (not seen by the search)", "0.010"),
    ]  # fmt: skip
    buttons = [a for tag, a in Text(html).elements if tag == "button" and "data-node" in a]
    assert len(buttons) == 12
    assert buttons[0]["aria-label"] == "Chunk 1, candidate 1, chosen, short 0.100, long \u22120.100, mixed \u22121.000"
    assert "judge by chunk, 1: 0.010, 2: 0.050, 3: 0.090" in html  # along the chosen path: nodes 1, 5 and 9
    assert "The judge beside the reward" in html and "Which chunk went where" not in html


def test_a_difference_that_is_shown_as_zero_has_no_sign():
    clips = [Clip("plain", np.zeros((3, 32, 32, 3), np.uint8), {"judge": 0.5, "reward": 0.4})]
    clips.append(Clip("chosen", clips[0].pixels, {"judge": 0.4996, "reward": 0.5}))
    differences = re.findall(r'<td class="(\w*)">([^<]*)</td></tr>', page(grown(), clips=clips))
    assert differences[:2] == [("up", "+0.100"), ("", "0.000")]


def test_an_unfinished_tree_and_one_without_judge_or_pictures():
    tree = grown(finish=False)
    assert [n.id for n in leading_path(tree)] == [1, 5, 9]
    html = page(tree, notice="unfinished")
    assert "leading path" in html and "The judge beside" not in html and "<video" not in html
    for node in tree.nodes:
        node.rendering, node.unit = None, None
    assert "data:image/png" not in page(tree)
    with pytest.raises(SettingError, match="no candidates yet"):
        page(Tree("a red circle moving right"))


def test_scores_that_are_no_numbers():
    """A failed reward's NaN and infinity are words; the data stay JSON, the charts stay drawable."""
    tree = grown()
    tree.nodes[1].scores["clip"] = Score(float("nan"), {"motion": float("inf")})
    html = page(tree)
    assert details(html)["nodes"]["1"]["scores"][1] == {
        "name": "clip (long)", "value": "\u2013", "parts": [["motion", "\u221e"]],
    }  # fmt: skip
    assert "nan" not in "".join(re.findall(r'(?: d|points|cx|cy)="([^"]*)"', html))


def test_children_stand_beside_their_parents_and_the_chosen_on_top():
    tree = grown()
    drawn = picture(tree, (32, 32))
    tops = {p.node: p.y for p in drawn.places}
    assert tops[1] == tops[5] == tops[9] == min(tops.values())
    for column in ([5, 6, 7, 8], [9, 10, 11, 12]):
        assert sorted(column, key=tops.get) == column  # 5 and 6 are children of 1, 7 and 8 of 2
    assert len({(p.x, p.y) for p in drawn.places}) == len(drawn.lines) == 12
    assert drawn.lines[-1][0] == "chosen" and [text for *_, text in drawn.columns] == ["2 of 4 kept"] * 3


def test_what_was_pruned_stands_small_in_pairs():
    """Of 16 first candidates 2 live: 7 rows of 2 small ones below them, a fraction of the height of 14 cards."""
    drawn = picture(grown(chunks=2, keep=2, branch=8), (32, 32))
    first = [p for p in drawn.places if p.title.startswith("Chunk 1")]
    assert [p.small for p in first] == [False] * 2 + [True] * 14
    assert len({p.x for p in first}) == 2 and len({p.y for p in first}) == 2 + 7
    boxes = [(p.x, p.y, p.x + (44 if p.small else 92), p.y + (44 if p.small else 92)) for p in drawn.places]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for x, y, x2, y2 in boxes[i + 1 :]:
            assert right <= x or x2 <= left or bottom <= y or y2 <= top, "two cards overlap"
        assert bottom <= drawn.height and right <= drawn.width
    tree = grown()
    tree.nodes[3].children = [tree.nodes[7]]  # pruned after it had grown
    assert not next(p for p in picture(tree, (32, 32)).places if p.node == 3).small


def test_a_page_of_noise_stays_small():
    """28 candidates and two videos as of a default run, of noise, which compresses worst."""
    tree, noise = grown(chunks=7), np.random.default_rng(0)
    for node in tree.nodes[1:]:
        node.rendering = torch.from_numpy(noise.integers(0, 256, (3, 3, 64, 64), dtype=np.uint8))
    clips = [Clip(name, noise.integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)) for name in ("plain", "chosen")]
    assert 1e6 < len(page(tree, clips=clips)) < 5e6


def test_thumbnails_keep_each_different_frame_once():
    from PIL import Image

    tree = grown(chunks=1)
    small = thumbnails(tree.nodes[1:])
    assert small.cells == {1: (0, 0, 0), 2: (1, 1, 1), 3: (2, 2, 2), 4: (3, 3, 3)}
    sheet = Image.open(io.BytesIO(base64.b64decode(small.url.split(",")[1])))
    assert sheet.size == (64, 64) and [sheet.getpixel(xy)[0] for xy in ((0, 0), (40, 0), (0, 40), (40, 40))] == [
        10,
        20,
        30,
        40,
    ]
    many = grown(chunks=40, keep=4, branch=4)
    for node in many.nodes[1:]:
        node.rendering = torch.randint(0, 255, (3, 3, 96, 96), dtype=torch.uint8, generator=torch.manual_seed(node.id))
    small = thumbnails(many.nodes[1:])
    assert small.columns * small.rows * small.size[0] * small.size[1] <= 1.1 * MOST_PIXELS
    assert len(small.cells) == len(many.nodes) - 1
    assert thumbnails([Node(1, None, (), 1)]) is None


def test_a_chart_of_known_numbers():
    drawn = chart("reward", [0.0, None, 1.0, 0.5], {"part": [0.5] * 4}, [[0.0, 1.0]] * 4)
    whole, part = drawn.lines
    assert [(p[2], p[3]) for p in whole.points] == [(1, 0.0), (3, 1.0), (4, 0.5)] and whole.last == 0.5
    assert whole.path.count("M") == 2 and part.path.count("M") == 1  # no line across the gap
    assert [text for _, text in drawn.y_ticks] == ["0.0", "0.5", "1.0"]
    assert whole.points[0][:2] == (drawn.left, drawn.bottom) and whole.points[-1][0] == drawn.right
    assert chart("reward", [None, float("nan")]) is None
    for flat in ([3.0], [3.0, 3.0]):  # no spread to scale by
        ticks = [float(text) for _, text in chart("flat", flat).y_ticks]
        assert ticks[0] < 3 < ticks[-1]


def test_numbers_for_people():
    assert [number(v) for v in (None, float("nan"), -0.25, 2)] == ["\u2013", "\u2013", "\u22120.250", "2.000"]
    assert [amount(v) for v in (0, 950, 22.7e9, 9.01e13)] == ["0", "950", "22.7 G", "90.1 T"]


def test_the_page_s_video_keeps_colours():
    """The middle of a square of 3 pixels has its own colour, and so has the background; odd sides are no trouble."""
    import av

    pixels = np.full((4, 9, 11, 3), (15, 15, 23), np.uint8)
    pixels[:, 3:6, 4:7] = (230, 51, 51)
    with av.open(io.BytesIO(web_video(pixels, 8))) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p" and stream.average_rate == 8
        frames = np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)]).astype(int)
    assert frames.shape == (4, 18, 22, 3)
    assert np.abs(frames[:, 8:10, 10:12] - (230, 51, 51)).max() <= 12
    assert np.abs(frames[:, :4] - (15, 15, 23)).max() <= 6
