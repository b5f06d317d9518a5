"""Pruned searches on a table against the real ones, and the numbers that are read off it."""

import numpy as np
import pytest

from prunus import pocket, search
from prunus.errors import SettingError
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.previews import Pool, area_gain, choose, grow, kendall, simulate, taus
from prunus.rewards import FrameReward, NoiseAwareReward
from prunus.strategies import BestOfN, PruneSchedule, TTSnap

PROMPT = "a yellow circle standing still"


def test_pruning_worked_by_hand():
    """Four candidates: 2 of 4 go on after step 1, then 1 of 2 after step 2; ties go to the earlier one."""
    readings = np.array([[0.9, 0.1], [0.5, 0.8], [0.5, 0.9], [0.1, 1.0]])
    final = np.array([0.2, 0.7, 0.9, 1.0])
    assert choose(readings, final, PruneSchedule((1, 2), (0.5, 0.5))) == 1  # 0 and 1 go on, then 1
    assert choose(readings, final, PruneSchedule((2,), (0.5,))) == 3  # 2 and 3 go on, and 3 is the better
    assert choose(readings, final, None) == 3


def test_a_search_on_the_table_is_the_search():
    """The same candidates, whichever are pruned: what the table says is what a search chooses."""
    model = StreamingVideo.load(pocket.path("video")).model
    video = StreamingVideo(model, 1, model.streaming.euler(4))
    final = FrameReward.load(pocket.path("frame-reward"), chunk_frames=1)
    aware = NoiseAwareReward.load(pocket.path("image-preview-reward"), chunk_frames=1)
    pool = grow(video, [PROMPT], 5, final, {"noise-aware": aware}, seed=3)
    schedule = PruneSchedule((2, 3), (0.6, 0.4))
    tree = search(PROMPT, video, [final, aware], TTSnap(BestOfN(5, final.name), schedule, aware.name), seed=3)
    chosen = choose(pool.readings["noise-aware"][0], pool.final[0], schedule)
    assert tree.result.path == (chosen,)
    assert tree.best().scores[final.name].value == pytest.approx(pool.final[0, chosen], abs=1e-4)


def pool(p=3, n=6, steps=4):
    rng = np.random.default_rng(0)
    final = rng.random((p, n))
    return Pool(["x"] * p, final, 1 - final, {"oracle": np.repeat(final[:, :, None], steps, 2)})


def test_an_oracle_loses_nothing_and_all_candidates_are_the_whole_pool():
    table = pool()
    best, judged = simulate(table, None, None, 6, draws=2)
    pruned, _ = simulate(table, "oracle", PruneSchedule((1, 3), (0.5, 0.4)), 6, draws=2)
    assert best == pytest.approx(table.final.max(1))
    assert pruned == pytest.approx(best)
    assert judged == pytest.approx(1 - best)
    one, _ = simulate(table, None, None, 1, draws=4000)
    assert one == pytest.approx(table.final.mean(1), abs=0.02)


def test_more_candidates_than_the_pool_has_are_refused():
    with pytest.raises(SettingError, match="at most the pool's 6"):
        simulate(pool(), None, None, 7)


def test_the_area_metric_worked_by_hand():
    """Simpson on three budgets, weights 1, 4, 1: best-of-n 4 * 1 + 2 = 6 above its start, ours 1 + 4 * 2 + 3 = 12."""
    assert area_gain([11, 12, 13], [10, 11, 12]) == pytest.approx(1.0)
    assert area_gain([10, 11, 12, 13, 14], [10, 11, 12, 13, 14]) == 0
    with pytest.raises(SettingError, match="an odd number of at least 3"):
        area_gain([1, 2], [1, 2])


def test_kendalls_tau():
    assert kendall(np.array([1, 2, 3]), np.array([1, 2, 3])) == 1
    assert kendall(np.array([1, 3, 2]), np.array([1, 2, 3])) == pytest.approx(1 / 3)
    assert kendall(np.array([1, 1, 1]), np.array([1, 2, 3])) == 0  # a tie where they differ counts as nothing
    assert kendall(np.array([3, 1, 2]), np.array([1, 1, 2])) == 0  # (3, 2) is turned round, (1, 2) is not
    assert np.isnan(kendall(np.array([1, 2]), np.array([1, 1])))


def test_a_step_that_a_reward_cannot_read_has_no_tau():
    readings = np.array([[[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]]])
    first, second = taus(readings, np.array([[1.0, 2.0, 3.0]]))
    assert first.mean == 1 and second is None
