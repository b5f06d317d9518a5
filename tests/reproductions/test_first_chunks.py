"""Searches that are read off a pool of candidates, against the same searches run for themselves."""

import itertools

import numpy as np
import pytest

from prunus.errors import SettingError
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.first_chunks import Candidates, FirstChunks, grow_pools, mean_by_prompt, prices
from prunus.roles import FunctionReward
from prunus.search import search_many
from prunus.strategies import Beam, BestOfN

PROMPTS = ["a red circle moving right", "a blue square moving left"]
REWARD = FunctionReward(lambda frames, prompt: float(frames[:, 0].mean() - frames[:, 2].mean()), "redness")


def verdict(video, prompt):
    return float(video.double().std())


@pytest.fixture(scope="module")
def video(video_model):
    return StreamingVideo(video_model, frames=9)


@pytest.fixture(scope="module")
def pools(video):
    keys = list(zip(PROMPTS, (3, 4), strict=True))
    return grow_pools(keys, video, REWARD, FirstChunks(8, 3, (2, 4, 8), "redness"), verdict)


@pytest.mark.parametrize("first", [2, 4, 8])
def test_the_beam_is_read_off_as_it_would_have_been_run(video, pools, first):
    trees = search_many(PROMPTS, video, [REWARD], Beam(keep=2, branch=1, first=first), seeds=[3, 4])
    price = prices(PROMPTS[0], video, REWARD)["beam"]
    for tree, pool in zip(trees, pools, strict=True):
        assert pool.beam(first) == pytest.approx(verdict(tree.best().output, ""), abs=1e-5)
        spent = tree.spent
        assert (price.flops(first), price.flops(first, True)) == (spent.total.flops, spent.generating.flops)
        assert price.nfe(first) == spent.generating.nfe


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_the_mean_over_all_choices_of_n(video, pools, n):
    trees = search_many(PROMPTS, video, [REWARD], BestOfN(n=n), seeds=[3, 4])
    price = prices(PROMPTS[0], video, REWARD)["best_of"]
    assert price.flops(n) == trees[0].spent.total.flops and price.nfe(n) == trees[0].spent.total.nfe
    for tree, pool in zip(trees, pools, strict=True):
        several = [max(some) for some in itertools.combinations([pool.finished[i] for i in range(3)], n)]
        assert pool.best_of(n, 3) == pytest.approx(np.mean([judged for _, judged in several]))
        if n == 3:
            assert pool.best_of(n, 3) == pytest.approx(verdict(tree.best().output, ""), abs=1e-5)


def test_pools_finish_no_more_than_these_searches_would(pools):
    for pool in pools:
        wanted = {0, 1, 2}.union(*(sorted(range(b), key=lambda i: -pool.first[i])[:2] for b in (2, 4, 8)))
        assert set(pool.finished) == wanted and len(pool.first) == 8


def test_pools_come_back_from_json_and_are_averaged_by_prompt():
    def pool(prompt, *values):
        return Candidates(prompt, 0, list(values), {i: (v, v / 10) for i, v in enumerate(values)})

    one = pool("a", 1.0, 3.0, 2.0)
    data = {**one.as_dict(), "finished": {str(k): list(v) for k, v in one.finished.items()}}
    assert Candidates.from_dict(data) == one
    several = [one, pool("b", 5.0, 4.0, 6.0), pool("a", 7.0, 8.0, 0.0)]
    assert mean_by_prompt(several, "beam", 2) == pytest.approx([(0.3 + 0.8) / 2, 0.5])
    assert mean_by_prompt(several, "best_of", 1) == pytest.approx([(0.2 + 0.5) / 2, 0.5])


@pytest.mark.parametrize("settings", [{"whole": 9}, {"whole": 0}, {"beams": (1,)}, {"beams": (9,)}])
def test_settings_that_no_pool_has(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        FirstChunks(**{"first": 8, "whole": 4, "beams": (4,), **settings})
