"""The grammar, the scenes and the splits of the sprites world, against the rules as written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.errors import PromptError
from prunus.worlds.sprites import scene
from prunus.worlds.sprites.scene import Scene, Sprite, parse, path, reflect, stage, stencil

PROMPTS = scene.all_prompts()
SPRITES = st.builds(
    Sprite, st.sampled_from(list(scene.COLOURS)), st.sampled_from(scene.SHAPES), st.sampled_from(list(scene.MOTIONS))
)


def test_all_prompts_are_120_and_12000_distinct_ones():
    singles = [p for p in PROMPTS if " and " not in p]
    assert len(singles) == 6 * 4 * 5
    assert len(PROMPTS) - len(singles) == 120 * 100  # the second has one of the five other colours
    assert len(set(PROMPTS)) == len(PROMPTS)


@given(SPRITES, SPRITES)
def test_parse_reads_what_str_writes(first, second):
    assert parse(str(first)) == (first,)
    if first.colour != second.colour:
        assert parse(f"{first} and {second}") == (first, second)
    else:
        with pytest.raises(PromptError, match=f"two {first.colour} sprites"):
            parse(f"{first} and {second}")


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red circle",
        "a pink circle moving left",
        "a red hexagon moving left",
        "a red circle moving away",
        "a red circle moving left and",
        "a red circle moving left, a blue square moving up",
        "a red circle moving left and a blue square moving up and a green cross moving up",
        "the red circle moving left",
        "a red circle moving left!",
    ],
)
def test_parse_refuses_and_shows_the_grammar(prompt):
    with pytest.raises(PromptError, match="colours: red, green") as error:
        parse(prompt)
    assert repr(prompt) in str(error.value)


@given(st.integers(-1000, 1000))
def test_reflect_stays_between_the_walls_and_steps_by_one(position):
    here, there = int(reflect(position)), int(reflect(position + 1))
    assert 8 <= here <= 56
    assert abs(here - there) == 1
    if 8 <= position <= 56:
        assert here == position


@given(st.integers(4, 28), st.integers(4, 28), st.sampled_from(list(scene.MOTIONS)), st.integers(1, 130))
def test_path_is_the_step_by_step_simulation(half_x, half_y, motion, frames):
    place, velocity = [2 * half_x, 2 * half_y], list(scene.MOTIONS[motion])
    walked = []
    for _ in range(frames):
        walked.append(tuple(place))
        for axis in (0, 1):
            if not 8 <= place[axis] + velocity[axis] <= 56:
                velocity[axis] *= -1
            place[axis] += velocity[axis]
    assert path((2 * half_x, 2 * half_y), motion, frames).tolist() == [list(p) for p in walked]


@pytest.mark.parametrize(
    ("shape", "area", "tolerance"),
    [
        ("square", 14 * 14, 0),
        ("cross", 2 * 16 * 6 - 6 * 6, 0),
        ("circle", np.pi * 64, 1),
        ("triangle", 16 * 14 / 2, 1),
    ],
)
def test_stencil_areas(shape, area, tolerance):
    assert stencil(shape).sum() == pytest.approx(area, abs=tolerance + 1e-9)


def test_stencils_are_supersampled_point_by_point():
    """Each of the 4x4 sub-samples of each pixel, tested with the shape's own words."""
    inside = {
        "circle": lambda x, y: (x * x + y * y) ** 0.5 <= 8,
        "square": lambda x, y: -7 <= x <= 7 and -7 <= y <= 7,
        # left edge from the apex (0, -7) to (-8, 7), right edge mirrored, both as half planes
        "triangle": lambda x, y: y <= 7 and 14 * x - 8 * (y + 7) <= 0 and -14 * x - 8 * (y + 7) <= 0,
        "cross": lambda x, y: (-8 <= x <= 8 and -3 <= y <= 3) or (-3 <= x <= 3 and -8 <= y <= 8),
    }
    for shape, test in inside.items():
        for row in range(16):
            for column in range(16):
                points = [(column - 8 + (i + 0.5) / 4, row - 8 + (j + 0.5) / 4) for i in range(4) for j in range(4)]
                assert stencil(shape)[row, column] == sum(test(x, y) for x, y in points) / 16


def test_covered_is_the_share_of_the_lower_stencil():
    """A square 10 px beside another covers 4 of its 14 columns; 14 px beside, none."""
    squares = (Sprite("red", "square", "standing still"), Sprite("blue", "square", "standing still"))
    assert scene.covered(Scene(squares, ((30, 30), (40, 30))), 1) == pytest.approx([4 / 14])
    assert scene.covered(Scene(squares, ((30, 30), (30, 44))), 1) == pytest.approx([0])
    assert scene.covered(Scene(squares[:1], ((30, 30),)), 3).tolist() == [0, 0, 0]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PROMPTS), st.integers(0, 2**32 - 1), st.sampled_from([3, 21, 120]))
def test_stage_keeps_every_rule(prompt, seed, frames):
    staged = stage(prompt, np.random.default_rng(seed), frames)
    assert staged.prompt == prompt
    for sprite, start in zip(staged.sprites, staged.starts, strict=True):
        assert all(c % 2 == 0 and 8 <= c <= 56 for c in start)
        ahead = np.asarray(start) + 10 * np.asarray(scene.MOTIONS[sprite.motion])
        assert ((ahead >= 8) & (ahead <= 56)).all()
    if len(staged.starts) == 2:
        assert np.hypot(*np.subtract(*staged.starts)) >= 20
        assert (scene.covered(staged, frames) > 0.5).sum() <= 6


def test_stage_with_a_curtain_hides_the_first_sprite():
    for seed in range(20):
        staged = stage("a red circle moving left", np.random.default_rng(seed), 120, curtain=True)
        bar = staged.curtain
        assert (bar.width, bar.frames, bar.colour) == (24, 30, (0x3C, 0x3C, 0x46))
        assert 0 <= bar.left <= 40
        assert bar.start + bar.frames <= 120
        x = staged.centres(120)[0, bar.start + 15, 0]
        assert bar.left + 8 <= x <= bar.left + 16  # wholly behind the bar


def test_an_empty_scene_has_no_centres():
    assert Scene((), ()).centres(5).shape == (0, 5, 2)


def test_splits_are_disjoint_and_hold_out_the_pairs():
    def held_out(prompt):
        return any((s.colour, s.shape) in scene.HELD_OUT_PAIRS for s in parse(prompt))

    train, dev, report = map(scene.split, ("train", "dev", "report"))
    assert len({*train, *dev, *report}) == len(train) + len(dev) + len(report)
    assert set(train) | set(dev) == {p for p in PROMPTS if not held_out(p)}
    assert all(held_out(p) for p in report)
    assert [len(scene.split(name, 1)) for name in ("train", "dev", "report")] == [80, 20, 20]
    assert [len(scene.split(name, 2)) for name in ("dev", "report")] == [200, 200]
    with pytest.raises(PromptError, match="'test' is unknown; take train, dev or report"):
        scene.split("test")


def test_sample_is_seeded_and_draws_one_or_two_sprites():
    drawn = [scene.sample(np.random.default_rng(seed)) for seed in range(40)]
    assert drawn == [scene.sample(np.random.default_rng(seed)) for seed in range(40)]
    assert {len(s.sprites) for s in drawn} == {1, 2}
    assert all(s.prompt in set(scene.split("train")) for s in drawn)
