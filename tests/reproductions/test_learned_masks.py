"""The miniatures of papers 22 and 42: equal steps in all arms, and as little as shows that they run."""

import pytest
import torch
from small_networks import blobs

from prunus.reproductions import bip, jackpots
from prunus.reproductions.claim import SAME, Trial
from prunus.sparse import Masks
from prunus.sparse.methods.result import Sparsified
from prunus.sparse.networks import drawn, mlp


def test_paper_22_runs_and_all_arms_have_the_same_steps():
    evidence = bip.measure(Trial("dev", smoke=True))
    assert [f.baseline for f in evidence.findings] == [bip.SHOT, bip.IMP, bip.OFF, bip.GMP] * 2
    lines = {(row["kept"], row["arm"].removesuffix(" (cut short)")): row for row in evidence.rows}
    assert len(lines) == 15 and set(evidence.columns) <= set(evidence.rows[0])
    for (kept, arm), row in lines.items():
        if arm != "scratch-B":
            assert row["steps"] == 40, arm
        if arm != "dense":
            assert row["density"] == pytest.approx(float(kept[:-1]) / 100, abs=1e-4)
    assert evidence.settings["split"] == "dev"


def test_the_share_of_the_implicit_term_is_that_of_a_slow_sum():
    model, task = drawn(lambda: mlp(8, 4), 0), blobs()
    masks = Masks({"0.weight": torch.arange(32).view(4, 8) % 3 == 0})
    masks.apply(model)
    task.loss(model, task.batch(0, 0)).backward()
    implicit = direct = 0.0
    for w, g, kept in zip(*(t.flatten().tolist() for t in (model[0].weight, model[0].weight.grad, masks["0.weight"]))):
        if kept:
            implicit, direct = implicit + g * g, direct + abs(w * g)
    assert bip.implicit_share(Sparsified(model, masks, 0), task) == pytest.approx(implicit / direct)


def test_paper_42_runs_and_the_searches_have_the_steps_that_they_say():
    evidence = jackpots.measure(Trial("dev", smoke=True))
    assert [f.more_than for f in evidence.findings] == [0, SAME, SAME, 0, 0, SAME, 0, SAME, 0, 0, SAME]
    steps = {row["arm"]: row["steps"] for row in evidence.rows}
    assert {arm: steps[arm] for arm in ("dense", jackpots.TUNED, jackpots.OURS, jackpots.FREE, "random start")} == {
        "dense": 28, jackpots.TUNED: 28, jackpots.OURS: 28, jackpots.FREE: 28, "random start": 28,
    }  # fmt: skip
    assert (steps[jackpots.QUICK], steps[jackpots.RANDOM_TIMES], steps[jackpots.NONE]) == (24, 32, 20)
    assert {row["density"] for row in evidence.rows if row["arm"] == jackpots.OURS} == {0.05, 0.02}
