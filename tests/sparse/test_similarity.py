"""Linear CKA: the card's values, what it is blind to, and the debiased estimate against its slow form."""

import pytest
import torch
from torch import nn

from prunus.errors import SettingError
from prunus.sparse.similarity import linear_cka, output_cka

X = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 0]])
Y = torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, 2]])


def random(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram_cka(x, y, debiased):
    """By Gram matrices (n, n), doubly centred; or U-centred without their diagonals (Szekely and Rizzo)."""
    n, centred = len(x), []
    for z in (x.double(), y.double()):
        k = z @ z.T
        if debiased:
            k.fill_diagonal_(0)
            k = k - k.sum(0) / (n - 2) - k.sum(1, keepdim=True) / (n - 2) + k.sum() / ((n - 1) * (n - 2))
            k.fill_diagonal_(0)
        else:
            k = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
        centred.append(k)
    k, m = centred
    return float((k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt())


def test_the_cards_values():
    column = torch.tensor([[1.0], [2], [3]])
    assert linear_cka(column, torch.tensor([[1.0], [2], [4]])) == pytest.approx(0.9642857, abs=1e-7)
    assert linear_cka(X, Y) == pytest.approx(0.5345225, abs=1e-7)
    assert linear_cka(X, 3 * X + 1) == pytest.approx(1)


@pytest.mark.parametrize("debiased", [False, True])
def test_it_is_blind_to_shift_scale_and_rotation_and_symmetric(debiased):
    x, y = random(12, 3, 0), random(12, 5, 1)
    turned = x @ torch.linalg.qr(random(3, 3, 2)).Q
    assert linear_cka(x, 2 * turned - 7, debiased) == pytest.approx(1)
    assert linear_cka(x, y, debiased) == pytest.approx(linear_cka(y, turned + 1, debiased))
    assert linear_cka(x, y, debiased) == pytest.approx(gram_cka(x, y, debiased))


def test_few_examples_look_alike_unless_debiased():
    pairs = [(random(10, 20, 2 * i), random(10, 20, 2 * i + 1)) for i in range(50)]
    biased, debiased = (sum(linear_cka(x, y, d) for x, y in pairs) / len(pairs) for d in (False, True))
    assert biased > 0.6 and abs(debiased) < 0.1


def test_of_constant_outputs_nothing_is_said():
    constant = torch.full((6, 3), 0.1)
    assert linear_cka(constant, random(6, 3, 0)) == linear_cka(constant, constant) == 0
    assert linear_cka(constant, random(6, 3, 0), debiased=True) == 0


def test_outputs_of_networks_in_evaluation_mode():
    inputs = random(9, 4, 0).float()
    a, b = (nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)) for _ in range(2))
    logits = [network[0](inputs).detach() for network in (a, b)]
    assert output_cka(a, b, inputs, "logits") == pytest.approx(linear_cka(*logits))
    assert output_cka(a, b, inputs) == pytest.approx(linear_cka(*(z.softmax(-1) for z in logits)), abs=1e-6)
    assert a.training and output_cka(a, a, inputs) == pytest.approx(1)
    words = inputs[:8].view(2, 4, 4)  # (n, words, features): each word is an example
    assert output_cka(a, b, words, "logits") == pytest.approx(linear_cka(*(z[:8] for z in logits)))


def test_settings_are_checked():
    with pytest.raises(SettingError, match="at least 4"):
        linear_cka(X[:3], Y[:3], debiased=True)
    with pytest.raises(SettingError, match="as many examples"):
        linear_cka(X, Y[:3])
    with pytest.raises(SettingError, match="two dimensions"):
        linear_cka(X[0], Y[0])
    with pytest.raises(SettingError, match="softmax or logits"):
        output_cka(nn.Identity(), nn.Identity(), X, "probabilities")
