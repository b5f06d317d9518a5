"""The streaming generator: draws, costs, shared states, rendering, going on."""

import math

import pytest
import torch

from prunus import Reward, Tree, View, search, search_many
from prunus.errors import PromptError, SettingError
from prunus.generators.kv_cache import unique_bytes
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.wan_flops import flop_counter
from prunus.roles import WHOLE, Ask
from prunus.strategies import Beam, BestOfN
from prunus.testing import check_generator

PROMPT, OTHER = "a red circle moving left", "a blue square moving up"


class Brightness(Reward):
    name = "brightness"

    def score(self, contents, prompts):
        return [float(c.mean()) for c in contents]


@pytest.fixture(scope="module")
def video(video_model):
    return StreamingVideo(video_model, 21)


def start(video, prompt=PROMPT, seed=0):
    tree = Tree(prompt, seed, video)
    tree.root.state = video.begin(prompt)
    return tree


def grow(tree, parents, **how):
    """Grow one child of each parent; returns the new nodes."""
    asks = tree.number([tree.ask(p, **how) for p in parents])
    nodes = tree.add(asks, tree.generator.grow(asks))
    tree.round += 1
    return nodes


def test_noise_of_an_autoregressive_chain_keeps_unit_variance_and_its_correlation(video):
    """Card 01, noise test: std in [0.99, 1.01] and lag-1 correlation beta with fresh seeds."""
    previous, now = [], []
    for seed in range(60):
        tree = start(video, seed=seed)
        (first,) = grow(tree, [tree.root])
        asks = tree.number([tree.ask(first, noise_mix=-0.1)])
        previous.append(first.unit["noise"].flatten())
        now.append(video._noise(asks[0])[1].flatten())
    previous, now = torch.cat(previous), torch.cat(now)
    assert now.std() == pytest.approx(1, abs=0.01)
    assert torch.corrcoef(torch.stack([previous, now]))[0, 1] == pytest.approx(-0.1, abs=0.02)


@pytest.mark.parametrize(("unit_variance", "deviations"), [(False, [0.895, 0.9054, 0.9044]), (True, [1, 1, 1])])
def test_seed_reuse_shrinks_the_noise_unless_it_is_mended(video, unit_variance, deviations):
    """Card 01: std 0.896 after one reuse (sqrt(.99) - .1 = .89499), fixed point 0.9045."""
    tree = start(video)
    (node,) = grow(tree, [tree.root])
    base = node.unit["noise"]
    for expected in deviations:
        (node,) = grow(tree, [node], reuse_seed=True, noise_mix=-0.1, unit_variance=unit_variance)
        assert math.sqrt(sum(w * w for w in node.unit["weights"].values())) == pytest.approx(expected, abs=1e-3)
        # A lineage of reuse is the same draw, only scaled.
        torch.testing.assert_close(node.unit["noise"], expected * base, atol=4e-3, rtol=1e-3)
        assert len(node.unit["weights"]) == 1


def test_a_named_seed_is_the_draw(video):
    tree = start(video)
    (node,) = grow(tree, [tree.root], seed=42)
    expected = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(42))
    assert torch.equal(node.unit["noise"], expected)
    with pytest.raises(SettingError, match="reuse_seed"):
        grow(start(video), [tree.root], reuse_seed=True)
    with pytest.raises(SettingError, match=r"colour.*it knows: ema, gates, noise_mix"):
        tree.ask(tree.root, colour="red")


def test_siblings_differ_and_a_batch_equals_single_runs(video):
    tree = start(video)
    a, b, c, d = grow(tree, [tree.root] * 4)
    assert (a.unit["latents"] - b.unit["latents"]).abs().max() > 0.1
    for node in (a, b, c, d):
        alone = video.grow([Ask(tree.root, video.how(), PROMPT, 0, node.path)])[0]
        torch.testing.assert_close(alone.unit["latents"], node.unit["latents"], atol=1e-5, rtol=0)


def test_the_clean_pass_runs_once_and_never_for_a_pruned_candidate(video):
    tree = start(video)
    a, b = grow(tree, [tree.root] * 2)
    assert [n.cost.nfe for n in (a, b)] == [4, 4]
    assert a.state.committed is None
    c, d = grow(tree, [a, a])
    assert [n.cost.nfe for n in (c, d)] == [5, 4]  # the first child pays for its parent's commit
    assert b.state.committed is None
    (e,) = grow(tree, [a])
    assert e.cost.nfe == 4


def test_the_price_is_exact_in_forwards_and_covers_the_flops(video):
    tree = start(video)
    nodes = [tree.root]
    for _ in range(7):
        asks = tree.number([tree.ask(n) for n in nodes for _ in range(2)])
        price = video.cost(asks)
        grown = tree.add(asks, video.grow(asks))
        tree.round += 1
        assert price.nfe == sum(n.cost.nfe for n in grown)
        assert price.flops >= sum(n.cost.flops for n in grown)
        nodes = grown[:2]
    assert [n.status.value for n in nodes] == ["done", "done"]


def test_branching_adds_no_bytes_and_growing_adds_one_block_each(video):
    """A 7-chunk candidate that is branched 8 times, grown and committed: exactly 8 new blocks."""
    long = StreamingVideo(video.model, 30)
    tree = start(long)
    node = tree.root
    for _ in range(7):
        (node,) = grow(tree, [node])
    children = grow(tree, [node] * 8)
    caches = [c.state.cache for c in children]
    assert all(c is caches[0] for c in caches)
    before = unique_bytes(caches)
    grandchildren = grow(tree, children)
    committed = [c.state.committed for c in children]
    block = committed[0].blocks[-1]
    assert unique_bytes([*caches, *committed]) - before == 8 * unique_bytes([block])
    assert len(grandchildren) == 8


def test_what_leaves_is_let_go_when_the_children_are_grown(video):
    """12 frames are attended; the fifth chunk mixes chunk 1 into the sink, and neither is held beside the new one."""
    tree = start(video)
    node = tree.root
    for _ in range(4):
        (node,) = grow(tree, [node])
    block = unique_bytes([node.state.cache.blocks[0]])
    children = grow(tree, [node] * 2, gates=("discard", "ema"), ema=0.5)
    assert [b.name for b in children[0].state.cache.blocks] == ["0+1", "2", "3"]
    assert unique_bytes([s for n in (node, *children) for s in (n.state.cache, n.state.committed) if s]) == 3 * block
    grow(tree, [node], gates=("discard", "ema"), ema=0.5)
    with pytest.raises(SettingError, match="not those that this parent was grown with"):
        grow(tree, [node], gates=("discard", "append"))


def test_chunks_that_attend_to_equally_many_frames_take_equal_flops(video):
    """Counted by torch, with the commit of the parent: 3 9 .. frames more per chunk until the sinks are full."""
    tree = start(StreamingVideo(video.model, 39))
    node, counted, attended = tree.root, [], []
    for chunk in range(13):
        with flop_counter() as counter:
            (node,) = grow(tree, [node], gates=("discard", *["append"] * chunk))
        counted.append(counter.get_total_flops())
        attended.append(node.state.cache.frames_attended)
    assert attended == [0, 3, 6, 9, 12, 15, 18, 21, 21, 21, 21, 21, 21]
    # From the tenth on the committed chunk, too, has attended to a full context.
    assert counted[:9] == sorted(set(counted[:9])) and set(counted[8:]) == {counted[8]}


def test_children_of_one_batch_may_see_their_parent_in_different_ways(video):
    tree = start(video)
    node = tree.root
    for _ in range(4):
        (node,) = grow(tree, [node])
    asks = tree.number([tree.ask(node, gates=("discard", gate)) for gate in ("discard", "append")])
    one, other = (grown.state.cache for grown in video.grow(asks))
    assert [b.name for b in one.blocks] == ["0", "2", "3"] and [b.name for b in other.blocks] == ["0", "1", "2", "3"]


def test_rendering_decodes_each_chunk_once_and_rounds_to_8_bit(video, monkeypatch):
    calls = []
    decode = type(video.model.decoder).decode
    monkeypatch.setattr(
        type(video.model.decoder), "decode", lambda self, z, f: calls.append(len(z)) or decode(self, z, f)
    )
    per_chunk = video.model.decode_flops(3, True)
    assert video.model.decode_flops(3, False) == per_chunk  # both counted once, by decoding
    calls.clear()
    tree = start(video)
    parents = grow(tree, [tree.root] * 2)
    shown = video.render(parents, View(1))
    children = grow(tree, parents)
    assert video.render_cost(children, View(10)).flops == 2 * per_chunk
    window = video.render(children, View(10))
    assert video.render_cost(children, View(10)).flops == 0
    assert calls == [2, 2]  # one decode a round, of new frames only
    assert [w.shape[0] for w in window] == [6, 6]
    assert torch.equal(window[0][:3], shown[0])
    assert torch.equal((window[0] * 255).round() / 255, window[0])
    whole, _ = decode(video.model.decoder, torch.cat([n.unit["latents"] for n in children[0].lineage], 1)[None], [None])
    assert (whole[0] - window[0]).abs().max() <= 0.5 / 255 + 1e-5  # as decoding the whole clip at once


def test_rendering_only_the_end_decodes_the_whole_lineage(video):
    tree = search(PROMPT, video, Brightness(), BestOfN(2))
    loaded_frames = tree.best().output
    for node in tree.nodes:
        node.rendering = None
    torch.testing.assert_close(video.render([tree.result], WHOLE)[0], loaded_frames, atol=1.1 / 255, rtol=0)


def test_many_prompts_share_batches_and_change_nothing(video):
    alone = [search(p, video, Brightness(), Beam(), seed=s) for p, s in ((PROMPT, 0), (OTHER, 1))]
    together = search_many([PROMPT, OTHER, PROMPT], video, Brightness(), Beam(), seeds=[0, 1, 0])
    for a, b in zip([*alone, alone[0]], together, strict=True):
        assert b.error == ""
        assert a.result.path == b.result.path
        torch.testing.assert_close(a.best().output, b.best().output, atol=1.1 / 255, rtol=0)


def test_a_loaded_search_goes_on_and_pays_for_rebuilding_apart(video, tmp_path):
    from prunus import stream_search

    whole = search(PROMPT, video, Brightness(), Beam())
    rounds = 0
    for event in stream_search(PROMPT, video, Brightness(), Beam(), save_to=tmp_path):
        rounds += event.kind == "round"
        if rounds == 4:
            break
    tree = search(Tree.load(tmp_path), video, Brightness(), Beam())
    assert tree.result.path == whole.result.path
    assert tree.spent.total.nfe == whole.spent.total.nfe
    shared = len(
        {n for leaf in tree.nodes if leaf.depth == 4 and leaf.status.value == "closed" for n in leaf.lineage[:-1]}
    )
    assert tree.spent.rebuilding.nfe == shared  # ancestors' clean passes, each once
    torch.testing.assert_close(tree.best().output, whole.best().output, atol=1.1 / 255, rtol=0)


def test_an_image_is_a_one_frame_video(video):
    image = search(PROMPT, StreamingVideo(video.model, 1), Brightness(), BestOfN(3)).best().output
    assert image.shape == (1, 3, 64, 64)


def test_bad_settings_and_prompts(video):
    with pytest.raises(SettingError, match=r"frames = 20 .* multiple of the chunk of 3"):
        StreamingVideo(video.model, 20)
    with pytest.raises(SettingError, match="at most 1024"):
        StreamingVideo(video.model, 1026)
    with pytest.raises(PromptError, match=r"understands a {colour}"):
        search("paint me a dog", video, Brightness(), BestOfN())


@pytest.mark.parametrize("how", [{}, {"noise_mix": -0.1, "gates": ("discard", "append", "ema", "append"), "ema": 0.5}])
def test_it_keeps_the_contract_of_a_generator(video, how):
    # Rendering rounds to 8 bit, so a difference of 1e-6 before it may be one step of 1/255 after it.
    check_generator(StreamingVideo(video.model, 15), [PROMPT, OTHER], tolerance=1.01 / 255, how=how)


@pytest.mark.parametrize("euler", [None, 6])
def test_a_chunk_in_pieces_is_the_chunk_in_one(video_model, euler):
    """Whatever the pieces; rows that are at different steps share a batch; only the parent's first child commits it."""
    sampler = video_model.streaming.euler(euler) if euler else None
    video = StreamingVideo(video_model, 6, sampler)
    whole, pieces = start(video), start(video)
    (a,) = grow(whole, [whole.root])
    b, c = grow(whole, [a, a])
    (half,) = grow(pieces, [pieces.root], steps=1)
    assert not half.boundary and half.status.value == "open" and half.depth == 1 and half.unit["step"] == 1
    (rest,) = grow(pieces, [half])
    assert rest.boundary and rest.path == a.path and half.cost.nfe + rest.cost.nfe == a.cost.nfe == video.steps
    assert torch.allclose(rest.unit["latents"], a.unit["latents"], atol=1e-5)
    asks = pieces.number([pieces.ask(rest, steps=1), pieces.ask(rest, steps=3)])
    first, second = pieces.add(asks, video.grow(asks))
    assert (first.cost.nfe, second.cost.nfe) == (1 + 1, 3) and video.cost(asks).nfe == 1 + 3  # committed by now
    ends = [pieces.ask(first), pieces.ask(second)]
    promised = video.cost(pieces.number(ends))
    for node, end in zip((b, c), pieces.add(ends, video.grow(pieces.number(ends))), strict=True):
        assert end.depth == 2 and end.status.value == "done"
        assert torch.allclose(end.unit["latents"], node.unit["latents"], atol=1e-5)
    assert promised.nfe == 2 * video.steps - 4


def test_a_preview_is_the_clean_estimate_and_says_how_far_it_is(video_model):
    video = StreamingVideo(video_model, 6)
    tree = start(video)
    (half,) = grow(tree, [tree.root], steps=2)
    (whole,) = grow(tree, [half])
    (shown, steps), (last, all_steps) = video.render([half, whole], View(1, progress=True))
    assert (steps, all_steps) == (2, 4) and shown.shape == last.shape == (3, 3, 64, 64)
    expected, _ = video_model.decoder.decode(half.unit["latents"][None], [None])
    assert torch.allclose(shown, expected[0], atol=1 / 255)
    assert len(video.render([whole], WHOLE)[0]) == 3  # the estimate is not a part of the video


def test_a_search_stopped_inside_a_chunk_goes_on(video_model, tmp_path):
    video = StreamingVideo(video_model, 6)
    tree = start(video)
    (a,) = grow(tree, [tree.root])
    (half,) = grow(tree, [a], steps=2)
    tree.settle(())
    tree.save(tmp_path)
    loaded = Tree.load(tmp_path, video)
    (state, cost) = video.restore([loaded.nodes[half.id]], PROMPT)[0]
    loaded.nodes[half.id].state = state
    assert cost.nfe == 1  # chunk 1's commit
    (b,), (again,) = grow(tree, [half]), grow(loaded, [loaded.nodes[half.id]])
    assert torch.allclose(b.unit["latents"], again.unit["latents"], atol=1e-5)
