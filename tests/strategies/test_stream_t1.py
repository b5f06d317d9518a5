"""Stream-T1 against the numbers of paper card 01."""

import math
from dataclasses import dataclass, field

import pytest

from prunus import Cost, Reward, Score, Tree, View, search
from prunus.errors import SettingError
from prunus.generators.streaming_video import StreamingVideo
from prunus.roles import CHUNK, Generator, Grown, How
from prunus.strategies import Beam, StreamT1
from prunus.testing import check_strategy

PROMPT = "a red circle moving left"


@dataclass(frozen=True)
class AnyHow(How):
    noise_mix: float = 0.0
    unit_variance: bool = True
    reuse_seed: bool = False
    seed: int | None = None
    gates: tuple[str, ...] = ()
    ema: float = 0.999


class Chunks(Generator):
    """Seven chunks whose unit is how they were asked for."""

    how = AnyHow

    def __init__(self, chunks=7):
        self.chunks = chunks

    def begin(self, prompt):
        return "state"

    def grow(self, asks):
        return [Grown({"path": list(a.path)}, "state", done=a.parent.depth + 1 == self.chunks) for a in asks]

    def render(self, nodes, view):
        return [n.lineage[-view.units :] if view.units else n.lineage for n in nodes]

    def restore(self, nodes, prompt):
        return [("state", Cost()) for _ in nodes]

    def units_left(self, node):
        return self.chunks - node.depth


@dataclass
class Scripted(Reward):
    """A reward of the path: what ``values`` says, or the sum of its branch indices."""

    name: str = "reward"
    view: View = CHUNK
    values: dict = field(default_factory=dict)

    def score(self, contents, prompts):
        return [self.values.get(nodes[-1].path, float(sum(nodes[-1].path))) for nodes in contents]


def rewards(short=None, long=None):
    return [Scripted("frame-reward", CHUNK, short or {}), Scripted("clip-reward", View(10), long or {})]


def line(shorts, longs):
    """A tree with a single lineage that has these scores."""
    tree = Tree.from_units("", list(range(len(shorts))))
    for node, s, g in zip(tree.nodes[1:], shorts, longs, strict=True):
        node.scores = {"frame-reward": Score(s), "clip-reward": Score(g)}
    return tree


def test_alpha_follows_progress_up_to_its_cap():
    tree = search(PROMPT, Chunks(), rewards(), StreamT1())
    alphas = [tree.note(n)["alpha"] for n in tree.result.lineage]
    assert alphas == pytest.approx([0, 1 / 6, 2 / 6, 0.4, 0.4, 0.4, 0.4])  # card 01: 0, .167, .333, .4 ...


def test_a_single_chunk_is_judged_by_the_long_reward_alone():
    tree = search(PROMPT, Chunks(1), rewards(short={(1,): 9.0}, long={(2,): 9.0}), StreamT1())
    assert tree.result.path == (2,)  # the published code divides by zero here


def test_published_mixes_raw_scales_and_the_mended_form_standardises():
    short = {(0, 0): 100.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 0.0}
    long = {(0, 0): 0.0, (0, 1): 0.0, (1, 0): 0.0, (1, 1): 1.0}
    first = {(i,): v for i, v in enumerate([2.0, 1.0, 0.0, 0.0])}
    models = rewards(short, {**long, **first})
    published = search(PROMPT, Chunks(), models, StreamT1.published())
    mended = search(PROMPT, Chunks(), models, StreamT1())
    kept = {
        kind: {n.path for n in t.nodes if n.depth == 2 and n.status.value == "closed"}
        for kind, t in {"published": published, "mended": mended}.items()
    }
    value = {n.path: published.note(n)["value"] for n in published.nodes if n.depth == 2}
    assert value[(0, 0)] == pytest.approx(100 / 6)  # a S + (1 - a) G with a = 1/6
    assert value[(1, 1)] == pytest.approx(5 / 6)
    value = {n.path: mended.note(n)["value"] for n in mended.nodes if n.depth == 2}
    # One of four differs by itself: its standard score is sqrt(3), the others' -1/sqrt(3); for both rewards.
    assert value[(0, 0)] == pytest.approx(math.sqrt(3) / 6 - 5 / 6 / math.sqrt(3))
    assert value[(1, 1)] == pytest.approx(-1 / math.sqrt(3) / 6 + 5 / 6 * math.sqrt(3))
    assert kept["published"] == kept["mended"] == {(0, 0), (1, 1)}


def test_gates():
    strategy = StreamT1()
    # chunk:        0    1: better, long rises   2: better, long falls by .3   3: worse, long falls
    tree = line([0.5, 0.6, 0.9, 0.1], [1.0, 1.1, 0.8, 0.0])
    assert [strategy.gate(tree, n) for n in tree.nodes[1:]] == ["discard", "ema", "append", "discard"]


def test_history_is_a_window_when_mended_and_everything_when_published():
    # The window of 3 chunks compares the last chunk with 0.0 and 0.0; all of the history has a mean of 0.5.
    tree = line([1.0, 1.0, 0.0, 0.0, 0.4], [0.0] * 5)
    assert StreamT1(window=3).gate(tree, tree.nodes[-1]) == "ema"
    assert StreamT1.published(window=3).gate(tree, tree.nodes[-1]) == "discard"


def test_thresholds_are_strict():
    tree = line([0.5, 0.5], [1.0, 0.8])
    assert StreamT1().gate(tree, tree.nodes[-1]) == "discard"  # S equals its history: not above tau_short = 0
    tree = line([0.5, 0.6], [1.0, 0.8])
    assert StreamT1(tau_long=0.5).gate(tree, tree.nodes[-1]) == "ema"


def test_published_seeds_follow_rank_and_reuse():
    tree = search(PROMPT, Chunks(), rewards(), StreamT1.published())
    first = [n.how for n in tree.nodes if n.depth == 1]
    assert [h["seed"] for h in first] == [42, 43, 44, 45]
    assert not any(h["reuse_seed"] or h["noise_mix"] for h in first)
    second = {n.path: n.how for n in tree.nodes if n.depth == 2}
    # The best first chunks are (3,) and (2,): ranks 0 and 1. Child 0 reuses, child 1 has 42 + 1000 b + 100 rank + i.
    assert {p: (h["reuse_seed"], h["seed"]) for p, h in second.items()} == {
        (3, 0): (True, None),
        (3, 1): (False, 42 + 1000 + 0 + 1),
        (2, 0): (True, None),
        (2, 1): (False, 42 + 1000 + 100 + 1),
    }
    assert {h["noise_mix"] for h in second.values()} == {-0.1}


def test_every_unit_has_its_switch():
    plain = search(PROMPT, Chunks(), rewards(), StreamT1(noise="fresh", memory=False))
    for node in plain.nodes[1:]:
        assert node.how == {**vars(AnyHow()), "gates": ()}
    ar1 = search(PROMPT, Chunks(), rewards(), StreamT1(noise="ar1", beta=0.3))
    assert {n.how["noise_mix"] for n in ar1.nodes if n.depth > 1} == {0.3}
    assert not any(n.how["reuse_seed"] for n in ar1.nodes[1:])


def test_per_parent_quota():
    best_first = {(3, 0): 9.0, (3, 1): 8.0, (2, 0): 1.0, (2, 1): 0.0}
    kept = {}
    for quota in (None, 1):
        tree = search(PROMPT, Chunks(2), rewards(best_first, best_first), StreamT1(per_parent=quota))
        kept[quota] = {n.path for n in tree.nodes if n.depth == 2 and n.status.value == "done"}
    assert kept == {None: {(3, 0), (3, 1)}, 1: {(3, 0), (2, 0)}}


def test_chunk_beam_and_stream_t1_without_its_units_are_the_same_search():
    switched_off = StreamT1(noise="fresh", memory=False, cap=0.0)
    a = search(PROMPT, Chunks(), rewards(), switched_off)
    b = search(PROMPT, Chunks(), rewards(), Beam(reward="clip-reward"))
    assert [(n.path, n.status) for n in a.nodes] == [(n.path, n.status) for n in b.nodes]


def test_final_reward_chooses_among_the_finished():
    last = Scripted("final", View(None), {})
    last.values = {(3, 1, 0): 5.0}
    models = [*rewards(), last]
    tree = search(PROMPT, Chunks(3), models, StreamT1(final="final"))
    assert set(tree.nodes[1].scores) == {"frame-reward", "clip-reward"}
    assert all("final" in n.scores for n in tree.nodes if n.depth == 3)
    tree = search(PROMPT, Chunks(3), rewards(), StreamT1())
    assert tree.result.path == (3, 1, 1)


@pytest.mark.parametrize(
    "setting",
    [
        {"keep": 0},
        {"branch": 0},
        {"beta": 1.0},
        {"cap": 1.5},
        {"noise": "pink"},
        {"window": 0},
        {"ema": 2.0},
        {"history": "none"},
        {"per_parent": 0},
        {"reward": "x"},
    ],
)
def test_settings_are_checked(setting):
    ((name, value),) = setting.items()
    with pytest.raises(SettingError, match=f"{name} = {value!r}"):
        StreamT1(**setting)


def test_on_the_real_architecture(video_model):
    """Cost of a 2 x 2 search of 7 chunks: 4 candidates x 4 steps x 7 chunks, and a commit for each chunk grown from."""

    class Brightness(Reward):
        def __init__(self, name, view):
            self.name, self.view = name, view

        def score(self, contents, prompts):
            return [float(c.mean()) for c in contents]

    models = [Brightness("frame-reward", View(1)), Brightness("clip-reward", View(10))]
    tree = search(PROMPT, StreamingVideo(video_model, 21), models, StreamT1())
    grown_from = sum(n.status.value == "closed" for n in tree.nodes[1:])
    assert tree.spent.generating.nfe == 4 * 4 * 7 + grown_from
    assert 6 <= grown_from <= 12
    assert tree.best().output.shape == (21, 3, 64, 64)


@pytest.mark.parametrize("strategy", [StreamT1(), StreamT1(keep=3, branch=1, per_parent=1), StreamT1.published()])
def test_it_keeps_the_contract_of_a_strategy(strategy):
    check_strategy(strategy, Chunks(4), rewards())
