"""The miniature of paper 21: what is pruned, and what every arm is charged."""

import pytest
import torch
from torch import nn

from prunus.reproductions.claim import SAME, Trial
from prunus.reproductions.scratch import WIDTHS, measure, network, without_rows, without_weights
from prunus.sparse.data import digits
from prunus.sparse.networks import drawn

pytest.importorskip("sklearn")
pytest.importorskip("torch_pruning")


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_rows_of_largest_norm_stay(share):
    model = drawn(network, 0)
    smaller, masks = without_rows(share, digits(), model)
    widths = [layer.out_features for layer in smaller if isinstance(layer, nn.Linear)]
    assert masks is None and sum(widths[:2]) == round(share * sum(WIDTHS)) and widths[2] == 10
    norms = model[0].weight.abs().sum(1)
    best = norms >= norms.sort().values[-widths[0]]
    assert widths[0] == round(share * WIDTHS[0]) and torch.equal(smaller[0].weight, model[0].weight[best])


def test_single_weights_are_kept_by_size_over_all_layers():
    model, masks = without_weights(0.3, drawn(network, 0))
    assert masks.kept == round(0.3 * masks.total)
    kept = torch.cat([w.detach()[masks[n]].abs() for n, w in masks.weights(model).items()])
    before = torch.cat([w.detach().abs().flatten() for w in masks.weights(drawn(network, 0)).values()])
    assert float(kept.min()) >= float(before.sort().values[-masks.kept])


def test_dense_training_is_charged_to_the_arms_that_inherit_it():
    evidence = measure(Trial(smoke=True))
    rows = {(row["kept"], row["arm"]): row for row in evidence.rows}
    few = {arm.removesuffix(" (cut short)"): row for (kept, arm), row in rows.items() if kept == "10% of rows"}
    steps = {name: row["steps"] for name, row in few.items()}
    assert steps == {
        "dense": 20, "finetune": 25, "finetune_full_lr": 40, "scratch_E": 20, "scratch_B": 80
    }  # fmt: skip
    compute = {name: row["steps x MACs of dense"] for name, row in few.items()}
    share = few["scratch_E"]["MACs"] / few["dense"]["MACs"]
    assert compute["dense"] == 20 and compute["scratch_E"] == pytest.approx(20 * share, rel=1e-3)
    assert compute["finetune_full_lr"] == pytest.approx(20 + 20 * share, rel=1e-3)
    assert compute["scratch_B"] <= 20
    a, b = 25, 13  # of 256 and 128; 38 together
    assert few["scratch_E"]["MACs"] == 64 * a + a * b + b * 10
    asked = [(f.ours.partition(",")[0], f.baseline.partition(",")[0], f.more_than) for f in evidence.findings]
    assert asked == [
        ("scratch_B", "finetune", SAME),
        ("scratch_B", "finetune_full_lr", SAME),
        ("finetune_full_lr", "scratch_B", 0.0),
    ]
