"""The two samplers against what they are defined by."""

import pytest
import torch

from prunus.errors import SettingError
from prunus.generators.flow_sampler import FlowSampler, shifted


def streams(n):
    return [torch.Generator().manual_seed(i) for i in range(n)]


def test_paper_01s_levels():
    assert shifted((1000, 750, 500, 250), 5) == pytest.approx((1, 0.9375, 0.8333333, 0.625))


def test_both_find_a_single_image_from_the_exact_velocity():
    """If all data is one image m, then x = (1 - s) m + s e and v = e - m: every estimate is m, whatever is drawn."""
    target, noise = torch.full((3, 2), 0.3), torch.randn(2, 3, 2, generator=streams(1)[0])
    for fresh in (True, False):
        sampler, rows, x = FlowSampler((1.0, 0.7, 0.2), fresh), streams(2), noise
        for i, sigma in enumerate(sampler.sigmas):
            implied = (x - (1 - sigma) * target) / sigma
            x, estimate = sampler.step(x, implied - target, [i, i], rows)
            assert torch.allclose(estimate, target.expand(2, 3, 2), atol=1e-6)
        assert torch.allclose(x, target.expand(2, 3, 2), atol=1e-6)


def test_rows_at_different_steps_go_as_they_would_alone():
    sampler = FlowSampler((1.0, 0.6, 0.3))
    x, v = torch.randn(2, 2, 4, generator=streams(1)[0])
    both, estimates = sampler.step(x, v, [0, 1], streams(2))
    for i, step in enumerate((0, 1)):
        one, estimate = sampler.step(x[i : i + 1], v[i : i + 1], [step], [streams(2)[i]])
        assert torch.equal(one[0], both[i]) and torch.equal(estimate[0], estimates[i])
        drawn = torch.randn(4, generator=streams(2)[i])
        after = sampler.sigmas[step + 1]
        assert torch.allclose(both[i], (1 - after) * estimates[i] + after * drawn)


def test_euler_keeps_the_noise_that_the_estimate_implies():
    sampler = FlowSampler((0.9, 0.5), fresh_noise=False)
    x, v = torch.tensor([[1.0]]), torch.tensor([[-2.0]])
    after, estimate = sampler.step(x, v, [0], streams(1))
    assert estimate.item() == pytest.approx(1 + 0.9 * 2) and after.item() == pytest.approx(1 + 0.4 * 2)
    assert sampler.draws(1) == 0 and FlowSampler((0.9, 0.5)).draws(2) == 1


@pytest.mark.parametrize("sigmas", [(), (1.2, 0.5), (0.5, 0.5), (0.5, 0.0)])
def test_levels_must_fall(sigmas):
    with pytest.raises(SettingError, match="falling"):
        FlowSampler(sigmas)
