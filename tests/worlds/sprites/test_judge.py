"""The judge against what the world promises: perfect clips, a dozen corruptions, floors, partial clips, errors."""

from dataclasses import replace

import numpy as np
import pytest

from prunus.errors import PromptError, PrunusError, VideoError
from prunus.worlds.sprites import Scene, parse, render, stage
from prunus.worlds.sprites.corruptions import CORRUPTIONS
from prunus.worlds.sprites.judge import judge
from prunus.worlds.sprites.scene import all_prompts

PROMPTS = all_prompts()
TWO = "a red circle moving left and a blue square moving up"
BASE = np.array([0x0F, 0x0F, 0x17])[:, None, None] / 255


def scenes(count, seed, frames=21, curtain=False, wanted=lambda scene: True):
    """Random scenes, a third of them with one sprite."""
    rng = np.random.default_rng(seed)
    while count:
        prompt = PROMPTS[rng.integers(120) if rng.random() < 1 / 3 else rng.integers(len(PROMPTS))]
        scene = stage(prompt, rng, frames, curtain)
        if wanted(scene):
            count -= 1
            yield scene


def blur(video, sigma):
    place = np.arange(64)
    kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum(1, keepdims=True)
    return kernel @ video @ kernel.T


def test_perfect_clips_of_500_prompts():
    worst = min((judge(render(s), s.prompt).value, s) for s in scenes(500, seed=0))[0]
    assert worst >= 0.99


@pytest.mark.parametrize("curtain", [True, False])
def test_perfect_long_clips(curtain):
    for scene in scenes(30, seed=1, frames=120, curtain=curtain):
        score = judge(render(scene, 120), scene.prompt)
        assert score.value >= 0.99, (scene, score)


@pytest.mark.parametrize("frames", [1, 2, 3, 6, 9, 12, 15, 18])
def test_perfect_partial_clips(frames):
    for scene in scenes(20, seed=2):
        score = judge(render(scene)[:frames], scene.prompt)
        assert score.value >= 0.99, (scene, score)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_lowers_its_part(name):
    corruption, rng = CORRUPTIONS[name], np.random.default_rng(3)
    drops, totals = [], []
    for scene in scenes(60, seed=4, wanted=lambda s: corruption.changes(s, 21)):
        bad = judge(corruption(scene, rng), scene.prompt)
        good = judge(render(scene), scene.prompt)
        drops.append(good.parts[corruption.part] - bad.parts[corruption.part])
        totals.append(bad.value)
    assert np.mean(np.array(drops) >= 0.1) >= 0.95, sorted(drops)[:8]
    if name in ("frozen", "wrong colour"):
        assert max(totals) <= 0.7


def test_corruptions_that_change_nothing_say_so():
    still, rng = stage("a red circle standing still", np.random.default_rng(0)), np.random.default_rng(0)
    assert not CORRUPTIONS["frozen"].changes(still, 21)
    assert not CORRUPTIONS["wrong way"].changes(still, 21)
    assert not CORRUPTIONS["swapped shapes"].changes(still, 21)
    assert not CORRUPTIONS["vanished"].changes(still, 5)
    assert judge(CORRUPTIONS["frozen"](still, rng), still.prompt).value >= 0.99


def test_corruptions_are_videos_that_differ_and_depend_on_the_generator_only():
    scene = stage(TWO, np.random.default_rng(0))
    for name, corruption in CORRUPTIONS.items():
        video = corruption(scene, np.random.default_rng(1))
        assert (video.shape, video.dtype) == ((21, 3, 64, 64), np.float32), name
        assert 0 <= video.min() and video.max() <= 1
        assert np.abs(video - render(scene)).max() > 0.1, name
        assert np.array_equal(video, corruption(scene, np.random.default_rng(1)))


@pytest.mark.parametrize("frames", [1, 3, 21])
def test_floor_of_empty_and_noise_clips(frames):
    rng = np.random.default_rng(5)
    shape = (frames, 3, 64, 64)
    clips = {
        "black": np.zeros(shape),
        "background": np.broadcast_to(BASE, shape),
        "grey": np.full(shape, 0.5),
        "white": np.ones(shape),
        "all curtain": np.broadcast_to(np.array([0x3C, 0x3C, 0x46])[:, None, None] / 255, shape),
        "uniform noise": rng.random(shape),
        "Gaussian noise": np.clip(0.5 + 0.25 * rng.standard_normal(shape), 0, 1),
        "still noise": np.broadcast_to(rng.random((1, *shape[1:])), shape),
    }
    for name, clip in clips.items():
        for prompt in rng.choice(PROMPTS, 10):
            assert judge(clip, prompt).value <= 0.05, (name, prompt)


def test_direction_is_judged_before_the_first_bounce():
    """A sprite that leaves to the right at 8 px from the left wall looks as if it had just bounced; it did not."""
    right = stage("a red circle moving right", np.random.default_rng(0))
    right = replace(right, starts=((8, 30),))
    assert judge(render(right), right.prompt).value >= 0.99
    assert judge(render(right), "a red circle moving left").parts["motion"] <= 0.1


def test_parts_belong_to_their_sprite():
    scene = stage(TWO, np.random.default_rng(6))
    first, second = scene.sprites

    def parts(*sprites):
        return judge(render(replace(scene, sprites=sprites)), TWO).parts

    wrong = parts(first, replace(second, colour="green"))
    assert wrong["colour_0"] > 0.95 and wrong["colour_1"] < 0.05
    assert min(wrong[k] for k in ("shape_1", "motion_1", "shape_0", "motion_0", "clip")) > 0.9
    assert parts(first, replace(second, shape="cross"))["shape_1"] < 0.1
    both_red = parts(first, replace(second, colour="red"))
    assert both_red["colour_1"] < 0.05 and both_red["shape_1"] > 0.9  # found although it has the other's colour
    assert wrong["sprites"] == pytest.approx(
        np.mean([(wrong[f"colour_{i}"] * wrong[f"shape_{i}"] * wrong[f"motion_{i}"]) ** (1 / 3) for i in (0, 1)])
    )


def test_a_missing_sprite_and_a_blank_end_cost_but_not_all():
    scene = stage(TWO, np.random.default_rng(7))
    alone = Scene(scene.sprites[:1], scene.starts[:1])
    assert 0.2 < judge(render(alone), TWO).value < 0.6
    video = render(scene)
    video[10:] = BASE
    assert 0.2 < judge(video, TWO).value < 0.75


@pytest.mark.parametrize("elsewhere", [-14, 14])
def test_a_sprite_must_leave_the_curtain_where_its_motion_puts_it(elsewhere):
    scene = stage("a red circle moving left", np.random.default_rng(8), 120, curtain=True)
    scene = replace(scene, starts=((scene.starts[0][0], 32),))
    other = replace(scene, starts=((scene.starts[0][0], 32 + elsewhere),))
    back = scene.curtain.start + 15
    video = np.concatenate([render(scene, 120)[:back], render(other, 120)[back:]])
    assert judge(video, scene.prompt).parts["motion"] < 0.8


def test_small_imperfections_cost_little_and_more_costs_more():
    rng = np.random.default_rng(9)
    mild, strong = [], []
    for scene in scenes(20, seed=10):
        clip = render(scene)
        mild.append(judge(blur(clip, 0.5) + 0.01 * rng.standard_normal(clip.shape), scene.prompt).value)
        strong.append(judge(blur(clip, 1.2) + 0.03 * rng.standard_normal(clip.shape), scene.prompt).value)
        tinted = BASE + (clip - BASE) * 0.97
        assert judge(tinted, scene.prompt).value > 0.97
    assert np.mean(mild) > 0.95
    assert 0.4 < np.mean(strong) < 0.9


def test_slightly_out_of_range_is_clipped_and_lists_are_read():
    scene = stage(TWO, np.random.default_rng(11))
    video = render(scene, 2)
    assert judge(video + np.where(video > 0.9, 0.2, 0), TWO).value > 0.9
    assert judge(video.tolist(), TWO) == judge(video.astype(float), TWO)
    assert len(parse(TWO)) == 2 and all(type(v) is float for v in judge(video, TWO).parts.values())


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((3, 64, 64)), r"shape \(3, 64, 64\).*\(frames, 3, 64, 64\)"),
        (np.zeros((0, 3, 64, 64)), r"shape \(0, 3, 64, 64\)"),
        (np.zeros((5, 3, 32, 32)), r"shape \(5, 3, 32, 32\)"),
        (np.zeros((5, 64, 64, 3)), r"shape \(5, 64, 64, 3\)"),
        (np.zeros((2, 3, 64, 64), np.uint8), "dtype uint8.*divide by 255"),
        (np.full((1, 3, 64, 64), np.nan), "12288 values that are NaN"),
    ],
)
def test_bad_videos_are_refused(video, message):
    with pytest.raises(VideoError, match=message) as error:
        judge(video, TWO)
    assert isinstance(error.value, PrunusError)
    with pytest.raises(PromptError, match="outside the sprites grammar"):
        judge(video, "a cat")


def test_a_stretch_from_the_middle_may_go_either_way_but_not_another():
    scene = stage("a red circle moving left", np.random.default_rng(0), 120)
    video = render(scene, 120)
    back = next(t for t in range(10, 100) if (np.diff(scene.centres(120)[0, t : t + 12, 0]) > 0).all())
    stretch = video[back : back + 12]
    assert judge(stretch, scene.prompt).parts["motion"] < 0.1
    assert judge(stretch, scene.prompt, begins=False).value > 0.98
    assert judge(stretch, "a red circle moving up", begins=False).parts["motion"] < 0.2
    assert judge(stretch, "a red circle standing still", begins=False).parts["motion"] < 0.2
    still = np.broadcast_to(stretch[:1], stretch.shape)
    assert judge(still, scene.prompt, begins=False).value < 0.7
