"""Drawing tokens: against transformers' own processors and the plain definition of a distribution."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prunus.errors import SettingError
from prunus.generators.sampling import Sampling, Stream, invert


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1, 0, 1), (0.7, 0, 1), (1, 5, 1), (1.3, 0, 0.8), (0.9, 9, 0.6)]
)
def test_probabilities_are_those_of_transformers(temperature, top_k, top_p):
    logits = 3 * torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    chain = LogitsProcessorList([TemperatureLogitsWarper(float(temperature))])
    if top_k:
        chain.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        chain.append(TopPLogitsWarper(top_p))
    expected = chain(torch.zeros(6, 1, dtype=torch.long), logits.clone()).softmax(-1)
    found = Sampling(temperature, top_p, top_k).probabilities(logits / temperature)
    assert torch.allclose(found / found.sum(-1, keepdim=True), expected, atol=1e-6)


def test_a_token_is_where_the_cumulative_distribution_passes_the_number():
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]])
    for u, token in {0.0: 1, 0.2499: 1, 0.25: 3, 0.7499: 3, 0.75: 4, 1 - 2**-53: 4}.items():
        assert invert(probabilities, torch.tensor([u], dtype=torch.float64)).tolist() == [token]


def test_draws_follow_the_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf]).expand(20_000, 4)
    numbers = [Stream(0, (i,)).at(0) for i in range(20_000)]
    tokens, _ = Sampling().draw(logits, numbers, [1.0] * 20_000)
    shares = torch.bincount(tokens, minlength=4) / 20_000
    assert torch.allclose(shares, logits[0].softmax(-1), atol=0.015) and shares[3] == 0


def test_each_row_has_its_temperature_and_zero_is_greedy():
    logits = torch.tensor([[0.0, 1.0, 0.5]] * 3)
    tokens, scores = Sampling().draw(logits, [0.0, 0.0, 0.999], [0.0, 1.0, 1.0])
    assert tokens.tolist() == [1, 0, 2]
    assert torch.allclose(scores, logits[0].log_softmax(-1)[tokens])  # the model's own, whatever the temperature


def test_a_number_depends_on_seed_path_and_position_alone():
    numbers = {Stream(seed, path).at(at) for seed in (0, 1) for path in ((0,), (1,), (0, 1)) for at in (0, 1, 300)}
    assert len(numbers) == 18 and all(0 <= n < 1 for n in numbers)
    forwards, backwards = Stream(3, (1, 2)), Stream(3, (1, 2))
    assert [forwards.at(i) for i in range(5)] == [backwards.at(i) for i in reversed(range(5))][::-1]
    many = np.array([Stream(0, ()).at(i) for i in range(4000)])
    assert abs(many.mean() - 0.5) < 0.02 and abs(np.corrcoef(many[1:], many[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("folder", "given", "expected"),
    [
        ({}, {}, Sampling(1.0, 1.0, 0)),
        ({"do_sample": False, "temperature": 0.6}, {}, Sampling(0.0)),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20}, {}, Sampling(0.6, 0.9, 20)),
        ({"do_sample": False}, {"temperature": 0.8}, Sampling(0.8)),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20}, {"temperature": 0, "top_k": 0}, Sampling(0.0, 1.0, 0)),
    ],
)
def test_a_folder_says_how_unless_the_caller_does(folder, given, expected):
    assert Sampling.of_folder(GenerationConfig(**folder), **given) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
    ],
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(SettingError, match=f"^{field} = .* is not allowed"):
        Sampling(**{field: value})
