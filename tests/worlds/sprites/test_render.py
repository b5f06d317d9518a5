"""The renderer against a naive one that draws point by point, and against hand-picked pixels."""

import numpy as np
import pytest

from prunus.worlds.sprites import Scene, Sprite, render, stage
from prunus.worlds.sprites.scene import Curtain

HEX = {
    "red": "E63333",
    "green": "33CC4D",
    "blue": "3366FF",
    "yellow": "F2D91A",
    "purple": "A64DE6",
    "cyan": "1ACCCC",
}


def rgb(code):
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255


def inside(shape, x, y):
    match shape:
        case "circle":
            return x * x + y * y <= 64
        case "square":
            return max(abs(x), abs(y)) <= 7
        case "triangle":
            return -7 <= y <= 7 and abs(x) * 14 <= 8 * (y + 7)
        case "cross":
            return (abs(x) <= 8 and abs(y) <= 3) or (abs(x) <= 3 and abs(y) <= 8)


def naive_frame(scene, t):
    """Alpha of 16 points a pixel, laid over each other from the last-named sprite to the first."""
    frame = np.empty((64, 64, 3))
    for row in range(64):
        for column in range(64):
            colour = rgb("0F0F17")
            for sprite, centre in list(zip(scene.sprites, scene.centres(t + 1)[:, t], strict=True))[::-1]:
                x, y = column - centre[0], row - centre[1]
                if not (-9 <= x <= 8 and -9 <= y <= 8):
                    continue
                hits = [inside(sprite.shape, x + (i + 0.5) / 4, y + (j + 0.5) / 4) for i in range(4) for j in range(4)]
                colour = colour + sum(hits) / 16 * (rgb(HEX[sprite.colour]) - colour)
            frame[row, column] = colour
    return frame.transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("prompt", "t"),
    [
        ("a red circle moving left", 0),
        ("a yellow triangle moving up", 20),
        ("a blue cross moving right and a purple square moving down", 7),
        ("a green square standing still and a cyan circle moving up", 13),
    ],
)
def test_render_is_the_naive_renderer(prompt, t):
    scene = stage(prompt, np.random.default_rng(5))
    assert render(scene)[t] == pytest.approx(naive_frame(scene, t), abs=1e-6)


def test_the_first_named_sprite_is_on_top():
    sprites = (Sprite("red", "square", "standing still"), Sprite("blue", "square", "standing still"))
    for pair, top in ((sprites, "red"), (sprites[::-1], "blue")):
        assert render(Scene(pair, ((30, 30), (30, 30))), 1)[0, :, 30, 30] == pytest.approx(rgb(HEX[top]), abs=1e-6)


def test_the_curtain_covers_everything_while_it_hangs():
    scene = Scene((Sprite("red", "circle", "standing still"),), ((20, 20),), Curtain(left=10, start=2, frames=3))
    video = render(scene, 8)
    bare = render(Scene(scene.sprites, scene.starts), 8)
    assert video[2:5, :, :, 10:34] == pytest.approx(np.broadcast_to(rgb("3C3C46")[:, None, None], (3, 3, 64, 24)))
    video[2:5, :, :, 10:34] = bare[2:5, :, :, 10:34]
    assert np.array_equal(video, bare)


def test_shape_type_and_range():
    video = render(stage("a cyan cross moving down", np.random.default_rng(0), 120), 120)
    assert video.shape == (120, 3, 64, 64)
    assert video.dtype == np.float32
    assert 0 <= video.min() and video.max() <= 1
    assert np.ptp(render(Scene((), ()), 2), axis=(0, 2, 3)).tolist() == [0, 0, 0]  # background only
