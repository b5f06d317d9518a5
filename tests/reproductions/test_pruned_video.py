"""Pruned video generators: how they are made, and the tables, on a tiny random model."""

import json

import pytest

from prunus.errors import SettingError
from prunus.reproductions import pruned_generators
from prunus.reproductions.first_chunks import Candidates, Price
from prunus.reproductions.pruned_generators import IMPORTANCES, Removal, Workshop, remembered
from prunus.reproductions.pruned_tables import (
    Searched,
    draw,
    importance_table,
    read_study,
    search_tables,
    speed_table,
)  # fmt: skip
from prunus.reproductions.pruned_video import best_importance
from prunus.sparse.models.wan import Wan
from prunus.sparse.models.wan_reward import PlainVideos
from prunus.sparse.rewind import snapshot

PROMPTS = ["a red circle moving right", "a blue square moving left"]


@pytest.fixture(scope="module")
def wan(video_folder):
    return Wan(video_folder, short=3, long=1, batch_size=1)


def test_every_importance_removes_as_much_and_what_took_long_is_kept(wan, tmp_path):
    asked = []

    def reward(model):
        asked.append(1)
        return float(sum(p.detach().abs().sum() for p in model.blocks[0].parameters()))

    workshop = Workshop(wan, tmp_path, reward)
    for importance in IMPORTANCES:
        assert workshop.removed(importance, Removal("channels", 36, 48)).config.ffn_dim == 36
        # The reward is the size of the first layer: the other is what it can spare.
        short = workshop.removed(importance, Removal("layers", 1, 2))
        assert short.config.num_layers == 1
        if importance == "reward":
            kept = short.blocks[0].attn1.to_q.weight
            assert kept.equal(workshop.dense.blocks[0].attn1.to_q.weight)
    assert len(asked) == (1 + 2 * pruned_generators.BANDS) + (1 + 2)  # the whole, and each unit without
    Workshop(wan, tmp_path, reward).removed("reward", Removal("channels", 24, 48))
    assert len(asked) == 20
    with pytest.raises(SettingError, match="importance"):
        workshop.removed("size", Removal("layers", 1, 2))


def test_healing_trains_and_plain_videos_are_the_same_for_every_model(wan, tmp_path):
    model = wan.build()
    before = snapshot(model)
    Workshop(wan, tmp_path, lambda model: 0.0).heal(model, 2, 1e-3)
    assert not all(value.equal(before[name]) for name, value in model.state_dict().items())
    videos = PlainVideos(wan, PROMPTS, frames=3, seeds=2)
    values = videos.values(wan.build())
    assert len(values) == 4 and values == videos.values(wan.build())
    assert videos(wan.build()) == pytest.approx(sum(values) / 4)
    longest = PlainVideos(wan, PROMPTS, frames=6, score=lambda frames, prompt: len(frames) + len(prompt) / 100)
    assert longest(wan.build()) == pytest.approx(6 + 25 / 100)


def test_what_was_made_is_read_again_and_other_settings_are_refused(tmp_path):
    made = []
    for _ in range(2):
        found = remembered(tmp_path / "one.json", {"prompts": 2}, lambda: made.append(1) or {"judge": [0.5]})
    assert found == {"judge": [0.5]} and len(made) == 1
    with pytest.raises(SettingError, match="other settings"):
        remembered(tmp_path / "one.json", {"prompts": 3}, dict)


def test_chance_is_no_choice():
    scores = {"reward": [0.1, 0.3], "magnitude": [0.2, 0.3], "random-0": [0.9, 0.9]}
    assert best_importance(scores) == "magnitude"
    table = importance_table({"dense": {"": [0.5, 0.7]}, "half": {**scores, "random-1": [0.1, 0.1]}})
    assert "dense: 0.600 (2 videos)" in table and "| half | 0.200 | 0.250 | 0.500 |" in table


def searched(name, price, lift=0.0):
    """Three prompts whose candidates are the better the later they come, for the reward and for the judge."""
    values = [0.01 * i + lift for i in range(32)]
    pools = [Candidates(p, 0, values, {i: (v, v) for i, v in enumerate(values)}) for p in "abc"]
    costs = [{"flops": price * 10, "nfe": 4}, {"flops": price, "nfe": 1}]
    data = {"fewest": 1, "total": costs, "generating": costs}
    prices = {"best_of": data, "beam": {**data, "fewest": 2}}
    return {"name": name, "prices": prices, "pools": [pool.as_dict() for pool in pools]}


def test_tables_compare_at_equal_cost(tmp_path):
    files = []
    for name, price, lift in (("dense", 10**11, 0.0), ("half", 5 * 10**10, 0.0), ("worse", 10**11, -0.05)):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({"about": {}, "found": searched(name, price, lift)}))
    study = read_study(files)
    assert isinstance(study[0], Searched) and isinstance(study[0].prices["beam"], Price)
    tables = search_tables(study, "dense")
    assert "3 prompts; seeds of each: dense 1, half 1, worse 1" in tables
    half = next(line for line in tables.splitlines() if line.startswith("| half |") and "+" in line).split("|")
    # With 16 first chunks it costs what dense does with 4: the best is worth .15 instead of .03. So cheap as with 8
    # first chunks dense cannot be had; with 32 dense has 8 or 16, half and half.
    assert [cell.strip()[:6] for cell in half[5:9]] == ["-", "-", "+0.120", "+0.200"]
    worse = next(line for line in tables.splitlines() if line.startswith("| worse |") and "\u22120.050 [" in line)
    assert worse.count("\u22120.050 [") >= 4
    draw(tmp_path / "curves.png", study)
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_speeds_are_held_against_counted_operations(wan, tmp_path):
    workshop = Workshop(wan, tmp_path, lambda model: 0.0)
    wan.export(workshop.removed("magnitude", Removal("layers", 1, 2)), None, tmp_path / "short")
    lines = speed_table({"dense": wan.folder, "short": tmp_path / "short"}, "dense").splitlines()
    assert lines[2].startswith("| dense |") and lines[2].count("1.00") == 2
    less = float(lines[3].split("|")[4])
    assert 1.5 < less < 2  # one of two layers, and the ends
