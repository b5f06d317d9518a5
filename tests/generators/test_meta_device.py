"""Counting live bytes without memory, and activations against what a real forward allocates."""

import pytest
import torch

from prunus import search
from prunus.generators import wan_attention
from prunus.generators.meta_device import LiveBytes, MetaDevice, MetaVideo
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.generators.wan_configurations import PROMPT, build, read_configuration
from prunus.pocket import path
from prunus.roles import FunctionReward
from prunus.strategies import Beam

FLOAT = 4


def test_a_storage_counts_once_while_it_is_alive():
    weight = torch.empty(8, 8, device="meta")
    with LiveBytes([weight]) as memory:
        a = torch.empty(8, 8, device="meta")
        view = a.t()[:4]
        assert memory.live == 64 * FLOAT
        b = a @ weight.t()  # the view of a weight is the weight
        a.add_(1)
        assert memory.live == memory.peak == 128 * FLOAT
        del a
        assert memory.live == 128 * FLOAT  # the view keeps it
        del view, b
        assert (memory.live, memory.peak) == (0, 128 * FLOAT)
        seen = []
        with memory.watch(lambda before, most: seen.append((before, most))):
            torch.empty(2, device="meta")
        assert seen == [(0, 2 * FLOAT)] and memory.peak == 128 * FLOAT
        torch.empty(1000)  # on the host
        assert memory.peak == 128 * FLOAT


def test_host_copies_and_attention_scores_do_not_count():
    with LiveBytes([]) as memory, MetaDevice(memory):
        x = torch.empty(1, 2, 100, 8, device="meta")
        copy = x.cpu()
        assert copy.shape == x.shape and memory.live == 1600 * FLOAT
        out = torch.nn.functional.scaled_dot_product_attention(x, x, x)
        assert out.shape == x.shape and memory.peak == 3200 * FLOAT


def allocated(call):
    """The most bytes that a call held at once, by the allocator's own events, and its result."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak, result


@pytest.fixture(scope="module", params=["random", "pocket"])
def folder(request, video_folder):
    return video_folder if request.param == "random" else path("video")


@pytest.fixture(scope="module")
def model(folder):
    return VideoModel.load(folder)


@pytest.fixture
def measured(model, monkeypatch):
    """The most that any real forward of the transformer and of the decoder allocates in a search of 3 chunks."""
    for start in (True, False):  # counted before anything is patched, because a model keeps the counts
        model.decode_flops(3, start)
    most = {"transformer": 0, "decoder": 0}
    networks = {"transformer": model.transformer.transformer, "decoder": model.decoder.decoder}

    def watched(name, forward):
        def run(*args, **kwargs):
            peak, result = allocated(lambda: forward(*args, **kwargs))
            most[name] = max(most[name], peak)
            return result

        return run

    for name, network in networks.items():
        monkeypatch.setattr(network, "forward", watched(name, network.forward), raising=False)

    def run():
        reward = FunctionReward(lambda content, prompt: float(content.mean()))
        search("a red circle moving left", StreamingVideo(model, 9), reward, Beam())
        return most

    return run


@pytest.fixture(scope="module")
def activations(folder):
    """What is planned for the same search."""
    video = MetaVideo(build(read_configuration(folder), dtype="float32").model, 9)
    with video.running():
        search(PROMPT, video, FunctionReward(lambda node, prompt: -node.path[-1]), Beam())
    return video.activations


def test_activations_are_those_of_a_real_search(activations, measured, monkeypatch):
    """Attention side by side, as everywhere but on a CPU: that way is planned."""
    monkeypatch.setattr(wan_attention, "FLASH_WITH_LSE", None)
    assert activations == pytest.approx(measured(), rel=0.25)


def test_on_a_cpu_the_plan_is_an_upper_bound(activations, measured):
    """There attention over the shared context is merged by its log-sum-exp, without copies of keys and values."""
    real = measured()
    assert activations["decoder"] == pytest.approx(real["decoder"], rel=0.25)
    assert 0.6 * activations["transformer"] < real["transformer"] <= activations["transformer"]
