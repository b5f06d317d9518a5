"""The curtain is what is shown and what the cache holds; what comes after it is judged by what came before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prunus import pocket, search_many
from prunus.errors import SettingError
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.behind_curtain import CurtainVideo, afterwards, encode, place_curtain, positions
from prunus.reproductions.memory_rules import MemoryRule
from prunus.roles import FunctionReward
from prunus.worlds.sprites import judge, render, stage
from prunus.worlds.sprites.render import hang
from prunus.worlds.sprites.scene import Curtain

PROMPT = "a red circle moving down"
BAR = Curtain(left=20, start=4, frames=3)  # touches frames 4, 5 and 6: chunks 1 and 2 of three
CLOTH = np.array([0x3C, 0x3C, 0x46])[:, None, None] / 255
NOTHING = FunctionReward(lambda frames, prompt: 0.0, "none")


@pytest.fixture(scope="module")
def model():
    return StreamingVideo.load(pocket.path("video"), 9).model


def grown(generator, prompt=PROMPT):
    (tree,) = search_many([prompt], generator, NOTHING, MemoryRule())
    return tree.result


@pytest.fixture(scope="module")
def plain(model):
    return grown(StreamingVideo(model, 9))


@pytest.fixture(scope="module")
def painted(model):
    return grown(CurtainVideo(model, 9, {(PROMPT, 0): BAR}))


def test_the_curtain_is_shown_and_nothing_else_is_changed_in_its_chunk(plain, painted):
    before, after = (np.concatenate([n.rendering.numpy() for n in x.lineage]) / 255 for x in (plain, painted))
    bar = slice(BAR.left, BAR.left + BAR.width)
    assert np.abs(after[4:7, :, :, bar] - CLOTH).mean() < 0.02
    assert np.array_equal(after[:3], before[:3])
    assert np.abs(after[3, :, :, bar] - CLOTH).mean() > 0.1  # the same chunk, before it begins
    beside = np.r_[0 : BAR.left - 8, BAR.left + BAR.width + 8 : 64]
    assert np.abs(after[3:6][..., beside] - before[3:6][..., beside]).mean() < 0.02  # coded again, no more


def test_the_painted_chunk_is_what_later_chunks_attend_to(model, painted):
    """The cache after chunk 1 is the clean pass of a chunk that was made by hand: decoded, painted, encoded."""
    first, second, _ = painted.lineage
    hand = StreamingVideo(model, 9)
    root = hand.begin(PROMPT)
    cache, context = root.committed, model.transformer.context(root.committed, root.text, model.latent_size)
    cache = cache.commit(model.transformer.commit(first.unit["latents"][None], [context])[0])
    ours = CurtainVideo(model, 9, {(PROMPT, 0): BAR}).restore([painted], PROMPT)[0][0].cache
    assert torch.allclose(ours.blocks[0].keys, cache.blocks[0].keys, atol=1e-5)
    unpainted = next(iter(grown_second(model, first)))
    frames = model.decoder.decode(unpainted[None], [None])[0][0]
    hang(BAR, frames.numpy(), first=3)
    by_hand = encode(model, frames)
    assert torch.allclose(second.unit["latents"], by_hand, atol=1e-4)
    context = model.transformer.context(cache, root.text, model.latent_size)
    block = model.transformer.commit(by_hand[None], [context])[0]
    assert torch.allclose(ours.blocks[1].keys, block.keys, atol=1e-3)
    other = model.transformer.commit(unpainted[None], [context])[0]
    assert (other.keys - block.keys).abs().max() > 0.1


def grown_second(model, first):
    """Chunk 1 as the model draws it without a curtain."""
    tree = search_many([PROMPT], StreamingVideo(model, 6), NOTHING, MemoryRule())[0]
    assert torch.equal(tree.result.lineage[0].unit["latents"], first.unit["latents"])
    yield tree.result.unit["latents"]


def test_a_clip_without_a_curtain_is_grown_as_it_is(model, plain):
    assert torch.equal(grown(CurtainVideo(model, 9, {})).unit["latents"], plain.unit["latents"])


def test_an_autoencoder_that_mixes_frames_is_refused(video_model):
    assert not video_model.decoder.framewise
    with pytest.raises(SettingError, match="mixes frames"):
        CurtainVideo(video_model, 9, {})


def test_the_curtain_hangs_where_the_sprite_will_be():
    scene = stage("a blue cross moving right", np.random.default_rng(3), 120)
    video = render(scene, 120)
    curtain = place_curtain(video, scene.prompt, 0)
    assert 30 <= curtain.start <= 60 and (curtain.width, curtain.frames) == (24, 30)
    middle = scene.centres(120)[0, curtain.start + 15, 0]
    assert abs(np.clip(middle - 12, 0, 40) - curtain.left) <= 1
    assert place_curtain(video, scene.prompt, 0) == curtain != place_curtain(video, scene.prompt, 1)


def test_afterwards_the_sprite_must_be_where_its_motion_puts_it():
    scene = stage("a blue cross moving right", np.random.default_rng(3), 120)
    curtain = Curtain(left=20, start=40)
    right = render(replace(scene, curtain=curtain), 120)
    perfect = afterwards(right, scene.prompt, curtain)
    assert min(perfect.values()) > 0.95
    (x, y), *_ = scene.starts
    elsewhere = render(replace(scene, starts=((x, 72 - y if abs(y - 36) > 8 else 8),), curtain=curtain), 120)
    moved = right.copy()
    moved[70:] = elsewhere[70:]
    lost = afterwards(moved, scene.prompt, curtain)
    assert lost["place"] < 0.05 and lost["persistence"] > 0.95 and lost["score"] > 0.95
    assert judge(moved, scene.prompt).value < judge(right, scene.prompt).value
    gone = right.copy()
    gone[70:] = right[0, :, :1, :1]
    assert max(afterwards(gone, scene.prompt, curtain).values()) < 0.05


def test_positions_are_the_sprites_centres():
    scene = stage("a blue cross moving right", np.random.default_rng(3))
    assert np.abs(np.array(positions(render(scene), scene.prompt)) - scene.centres(21)[0]).max() <= 0.5
