"""The plan against a real search's books, torch's own counts, and worked numbers of the published way."""

import json
import re

import pytest
import torch

from prunus import search
from prunus.cli import main
from prunus.commands.plan import GIB, Scripted, plan, smallest_gpu
from prunus.errors import ModelError, SettingError
from prunus.generators.kv_cache import unique_bytes
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.wan_configurations import KNOWN, build
from prunus.generators.wan_flops import flop_counter
from prunus.pocket import path
from prunus.roles import CHUNK, FunctionReward, View
from prunus.strategies import StreamT1

PLAN = {"size": None, "frames": 21, "method": "stream-t1", "options": {"keep": 2, "branch": 2}, "dtype": "float32"}
PROMPT = "a red circle moving right"


class Witness(StreamingVideo):
    """The real generator; rewards are shown the nodes, after rendering. Keeps the bytes of a block."""

    block_bytes = 0

    def render(self, nodes, view):
        super().render(nodes, view)
        return list(nodes)

    def state_bytes(self, states):
        blocks = [b for s in states if s.committed for b in s.committed.blocks]
        self.block_bytes = unique_bytes(blocks[:1]) or self.block_bytes
        return super().state_bytes(states)


def rewards(most):
    slope = 1e3 if most else -1e3
    return [Scripted("frame-reward", CHUNK, slope, most), Scripted("clip-reward", View(10), -slope, most)]


@pytest.fixture(scope="module")
def planned(video_folder):
    return plan(str(video_folder), **PLAN)


@pytest.mark.parametrize("most", [False, True])
def test_ours_is_what_a_real_search_writes_in_its_books(planned, video_model, most):
    """The same scores on real tensors: forwards, FLOPs and state bytes are equal, and within 1 % of torch's count."""
    video = Witness(video_model, 21)
    video.model.decode_flops(3, True), video.model.decode_flops(3, False)  # counted apart, once

    with flop_counter() as counter:
        spent = search(PROMPT, video, rewards(most), StreamT1()).spent
    ours, place = planned["ours"], int(most)
    assert spent.generating.nfe == ours["nfe"][place] == 4 * 28 + 2 * 6  # 7 chunks of 4 candidates, 6 commits of 2
    assert spent.generating.flops == ours["generating_flops"][place]
    assert spent.rendering.flops == ours["decoding_flops"][place]
    assert counter.get_total_flops() == pytest.approx(spent.generating.flops + spent.rendering.flops, rel=0.01)
    assert video.block_bytes == planned["block_bytes"]
    if most:
        assert spent.peak_bytes == ours["state_bytes"]
    else:
        assert spent.peak_bytes < ours["state_bytes"]


def test_the_pocket_model_with_scores_of_its_frames():
    """What is seen decides what is appended and who is related: NFE is exact, the rest within least and most."""
    pocket = plan("pocket", **{**PLAN, "frames": 9})
    video = Witness.load(path("video"), frames=9)
    video.render = lambda nodes, view: StreamingVideo.render(video, nodes, view)
    short = FunctionReward(lambda frames, _: float(frames.mean()), "frame-reward", CHUNK)
    long = FunctionReward(lambda frames, _: float(frames.std()), "clip-reward", View(10))
    strategy = StreamT1(**{name: value for name, value in pocket["settings"].items() if name != "name"})
    video.model.decode_flops(3, True), video.model.decode_flops(3, False)  # counted apart, once
    with flop_counter() as counter:
        spent = search(PROMPT, video, [short, long], strategy).spent
    assert counter.get_total_flops() == pytest.approx(spent.generating.flops + spent.rendering.flops, rel=0.01)
    assert pocket["ours"]["nfe"] == [spent.generating.nfe] * 2
    assert pocket["block_bytes"] == video.block_bytes
    low, high = pocket["ours"]["generating_flops"]
    assert low <= spent.generating.flops <= high
    assert [spent.rendering.flops] * 2 == pocket["ours"]["decoding_flops"]
    assert spent.peak_bytes <= pocket["ours"]["state_bytes"]
    parts = {
        "transformer": video.model.transformer.transformer,
        "vae": video.model.decoder.vae,
        "text_encoder": video.model._text_encoder,
    }
    assert pocket["parameters"] == {n: sum(p.numel() for p in part.parameters()) for n, part in parts.items()}


def test_the_published_way_in_numbers(planned):
    """Card 01: 5 forwards for each of 4 candidates in 7 chunks; 2 parents' and 4 children's caches of 24 frames."""
    published, chunk = planned["published"], planned["block_bytes"]
    assert published["nfe"] == [5 * 4 * 7] * 2
    assert published["cache_bytes"] == 6 * 8 * chunk
    # Ours at its fullest: 2 parents of 18 and a chunk, whose ancestors are not shared: 14 blocks against 6 x 8.
    assert planned["ours"]["cache_bytes"] <= published["cache_bytes"] * 14 / 48
    # Attended before each chunk: 0 3 6 9, then 9 as chunks are dropped, or 12 15 18 as they are appended.
    for place, contexts in enumerate([(0, 3, 6, 9, 9, 9, 9), (0, 3, 6, 9, 12, 15, 18)]):
        ours, theirs = planned["ours"]["generating_flops"][place], published["generating_flops"][place]
        assert ours < theirs
        flops = [one_forward(context) for context in contexts]
        assert theirs == 5 * 4 * sum(flops)
        assert ours == 4 * 4 * sum(flops) + 2 * sum(flops[:-1])
    # Each candidate's chunk alone, and its window: 1 + 2 + .. + 7 chunks; at the end the 2 finished videos.
    per_chunk = planned["ours"]["decoding_flops"][0] / 28
    assert published["decoding_flops"][0] == pytest.approx((4 * 7 + 4 * 28 + 2 * 7) * per_chunk, rel=0.01)


def test_the_full_size_is_smaller_than_the_published_way():
    """The README's table. Card 01: 24 frames of cache are 8 blocks, and its 2 x 2 search deep-copies six of them."""
    made = plan("wan-1.3b", **{**PLAN, "size": "480x832", "dtype": "bfloat16"})
    ours, published = made["ours"], made["published"]
    assert made["pixel_frames"] == 81 and made["block_bytes"] == 862_617_600
    assert (ours["nfe"], published["nfe"]) == ([124] * 2, [140] * 2)
    assert published["cache_bytes"] == 6 * 8 * 862_617_600
    # 2 parents of 7 chunks that share nothing; an appended chunk is the block that it was.
    assert ours["cache_bytes"] <= 2 * 7 * 862_617_600
    # A chunk of large frames is decoded candidate by candidate: no more than 3 times what one latent frame takes.
    assert ours["activation_bytes"]["decoder"] < 3 * published["activation_bytes"]["decoder"]
    assert ours["peak_bytes"]["prompts_encoded_before"] < published["peak_bytes"]["prompts_encoded_before"]


def one_forward(context, width=48, hidden=48, layers=2, tokens=16, text=12, own=3 * 16):
    """FLOPs of the fixture's transformer, worked out: projections, feed-forward, attention, ends, conditions."""
    attended = tokens * context + own + text
    layer = own * (6 * width * width + 2 * width * hidden + 2 * width * attended)
    ends = own * width * 2 * 16
    conditions = 16 * width + width * width + 6 * width * width + 16 * width + width * width
    return 2 * (layers * layer + ends + conditions)


@pytest.mark.parametrize(
    ("method", "options", "ours", "published", "caches"),
    [
        ("plain", {}, 4 * 3 + 2, 5 * 3, 1),
        ("best-of-n", {"n": 3}, 3 * (4 * 3 + 2), 3 * 5 * 3, 1),
        ("beam", {"keep": 3, "branch": 2}, 6 * 4 * 3 + 3 * 2, 5 * 6 * 3, 9),
        ("stream-t1-published", {"keep": 1, "branch": 2}, 2 * 4 * 3 + 1 * 2, 5 * 2 * 3, 3),
    ],
)
def test_every_method_has_a_plan(video_folder, method, options, ours, published, caches):
    """Of 3 chunks; K parents' and M children's caches, one cache for whole candidates one after another."""
    made = plan(str(video_folder), **{**PLAN, "frames": 9, "method": method, "options": options})
    assert made["ours"]["nfe"] == [ours] * 2
    assert made["published"]["nfe"] == [published] * 2
    assert made["published"]["cache_bytes"] == caches * 8 * made["block_bytes"]


def test_later_chunks_show_more_frames_if_time_is_compressed():
    """Chunk by chunk costs what diffusers' decoding of the whole clip costs: 9 frames, then 12."""
    small = KNOWN["wan-1.3b"]
    small = type(small)("small", small.streaming, {"num_layers": 1}, {"base_dim": 8, "num_res_blocks": 1}, None)
    model = build(small, (32, 32), "float32").model
    with flop_counter() as counter, torch.no_grad():
        model.decoder.vae.decode(torch.empty(1, 16, 6, 4, 4, device="meta"))
    assert model.decode_flops(3, True) + model.decode_flops(3, False) == counter.get_total_flops()
    assert model.decode_flops(3, True) < model.decode_flops(3, False)


def test_gpu_classes():
    """24 GiB hold (24 - 1) / 1.1 = 20.9 GiB."""
    assert [smallest_gpu(int(gib * GIB)) for gib in (0.1, 20.9, 21, 200)] == [8, 24, 32, None]


def test_the_command(video_folder, capsys):
    common = ["plan", "--model", str(video_folder), "--size", "64x96", "--frames", "3", "--dtype", "float32"]
    main_exits(0, *common, "--json")
    data = json.loads(capsys.readouterr().out)
    assert data["size"] == [64, 96] and data["pixel_frames"] == 3 and data["settings"]["keep"] == 2
    main_exits(0, *common, "--method", "plain", "--quiet")
    shown = capsys.readouterr().out
    assert re.search(r"forwards \(NFE\) +5 +4\n", shown)
    assert "8 GiB and more" in shown and "1 GiB for driver" in shown


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"size": "480"}, SettingError, "'480' is not a size; write height x width"),
        ({"size": "60x64"}, SettingError, "height a multiple of 16"),
        ({"frames": 20}, SettingError, "frames = 20 is not allowed"),
        ({"dtype": "int8"}, SettingError, "dtype = 'int8'"),
        ({"method": "snake"}, SettingError, "method 'snake' is unknown"),
        ({"method": "stream-t1-ttsnap"}, SettingError, "stream-t1-ttsnap cannot be planned"),
        ({"method": "plain"}, SettingError, "--keep is not an option of plain"),
        ({"model": "no-such"}, ModelError, "neither a folder nor one of"),
    ],
)
def test_what_cannot_be_planned_is_explained(video_folder, changes, error, message):
    with pytest.raises(error, match=message):
        plan(**{"model": str(video_folder), **PLAN, **changes})


def main_exits(code, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert (stopped.value.code or 0) == code
