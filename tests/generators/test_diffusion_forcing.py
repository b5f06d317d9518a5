"""Diffusion forcing: where chunks stand, what noise they get, and the loss, against slow obvious ways."""

import numpy as np
import pytest
import torch

from prunus.generators.diffusion_forcing import forcing_loss, layout, noised
from prunus.generators.wan_streaming import StreamingTransformer


@pytest.mark.parametrize("seed", range(12))
def test_chunks_stand_where_the_rolling_cache_would_hold_them(seed):
    where = layout(np.random.default_rng(seed), 3, 3, 120)
    assert where.positions.shape == (3, sum(where.lengths)) and where.lengths[1:] == [3] * 4
    assert where.lengths[0] == 3 or (where.lengths[0] == 1 and not where.long)
    for row in where.positions.tolist():
        assert row == sorted(set(row)) and row[0] == 0 and row[-1] < (120 if where.long else 21)
    sees = [[bool(where.mask[i, j]) for j in range(len(where.mask))] for i in range(len(where.mask))]
    chunk = where.chunk_of.tolist()
    hidden = set() if where.long else {(4, 1)}  # it has left the window
    assert all(sees[i][j] == (chunk[j] <= chunk[i] and (chunk[i], chunk[j]) not in hidden)
               for i in range(len(chunk)) for j in range(len(chunk)))  # fmt: skip


def test_short_and_long_clips_of_all_kinds_are_drawn():
    rng = np.random.default_rng(0)
    drawn = [layout(rng, 1, 3, 120) for _ in range(400)]
    assert 0.2 < np.mean([where.long for where in drawn]) < 0.4
    assert 0.1 < np.mean([where.lengths[0] == 1 for where in drawn]) < 0.25


def test_noise_is_mixed_by_chunk_and_clean_chunks_do_not_count():
    rng = np.random.default_rng(5)
    where = layout(rng, 64, 3, 120)
    clean, noise = torch.full((64, 2, sum(where.lengths), 1, 1), 2.0), torch.full((64, 2, sum(where.lengths), 1, 1), -3)
    batch = noised(clean, where, 5.0, rng, lambda like: noise.float())
    sigma = batch.timesteps / 1000
    lowest = 5 * 0.15 / (1 + 4 * 0.15)
    is_clean = sigma == 0
    assert bool(((sigma >= lowest) & (sigma <= 1) | is_clean).all()) and 0.2 < is_clean.float().mean() < 0.45
    assert not is_clean[:, where.chunk_of == 4].any()  # the newest chunk is never context
    for chunk in range(5):
        assert bool((sigma[:, where.chunk_of == chunk].std(1) < 1e-6).all())  # a level for each chunk
    mix = (clean - batch.latents) / 5  # of 2 and -3
    assert torch.allclose(mix[:, 0, :, 0, 0][~is_clean], sigma[~is_clean], atol=1e-5)
    assert bool((mix[:, 0, :, 0, 0][is_clean] <= 0.1 + 1e-6).all())  # slightly perturbed
    assert bool((batch.target == -5).all()) and torch.equal(batch.counts[:, 0, :, 0, 0] == 0, is_clean)


def test_the_loss_is_the_mean_over_frames_that_count(video_model):
    rng = np.random.default_rng(0)
    where = layout(rng, 2, 3, 120)
    draws = torch.Generator().manual_seed(0)
    clean = torch.randn(2, 4, sum(where.lengths), 8, 8, generator=draws)
    batch = noised(clean, where, 5.0, rng, lambda like: torch.randn(like.shape, generator=draws))
    text = torch.randn(2, 12, 16, generator=draws)
    streaming: StreamingTransformer = video_model.transformer
    with torch.no_grad():
        loss = forcing_loss(streaming, batch, text)
        velocity = streaming.clip_velocity(
            batch.latents, batch.timesteps, text, mask=where.mask, frames=where.positions
        )
    errors = [
        float((velocity[i, :, f] - batch.target[i, :, f]).square().mean())
        for i in range(2)
        for f in range(velocity.shape[2])
        if batch.timesteps[i, f] > 0
    ]
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-5)
