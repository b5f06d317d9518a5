"""The miniature of paper 25: exact densities, equal steps, and a probe with all four corners."""

import pytest

from prunus.reproductions.claim import Trial
from prunus.reproductions.granet import DENSITIES, measure, network
from prunus.sparse import Masks
from prunus.sparse.networks import drawn

pytest.importorskip("sklearn")


def test_every_arm_ends_at_the_density_with_as_many_steps():
    evidence = measure(Trial(smoke=True))
    density, total = DENSITIES[0], Masks.of(drawn(network, 0)).total
    rows = {row["arm"]: row for row in evidence.rows}
    assert len(rows) == 13
    for name, row in rows.items():
        assert row["kept"] == pytest.approx(1 if "dense" in name else round(density * total) / total)
        assert row["steps"] == (160 if "scratch-B" in name else 40)
    told = evidence.settings["plasticity"]
    assert {(p["pruned at"], p["regrown"]) for p in told} == {(0.25, 0.0), (0.25, 0.5), (0.75, 0.0), (0.75, 0.5)}
    by = {(p["pruned at"], p["regrown"]): sum(p["change"]) / 2 for p in told}
    high, low = evidence.findings[4], evidence.findings[6]
    assert high.difference.mean == pytest.approx(by[0.25, 0.0] - by[0.75, 0.0])
    assert low.difference.mean == pytest.approx(by[0.75, 0.5] - by[0.75, 0.0])
    assert len(evidence.findings) == 7
