"""The miniature of paper 26 runs, and even in a few steps tickets are nearer to the whole network than lots are."""

from prunus.reproductions import rewinding
from prunus.reproductions.claim import Trial


def test_the_miniature_runs():
    evidence = rewinding.CLAIM.measure(Trial("dev", smoke=True))
    assert len(evidence.findings) == 2 + 2 * 2 + 1
    rows = {(row["network"], row["mask"], row["k"]): row for row in evidence.rows}
    assert {key[0] for key in rows} == {"ResNet", "LeNet"} and len(rows) == 10
    assert rows["ResNet", "ticket", 0]["steps"] == 40 and rows["ResNet", "ticket", 1]["steps"] == 39
    for k in (0, 1):
        ticket, shuffled = rows["LeNet", "ticket", k], rows["LeNet", "shuffled", k]
        assert 0 < ticket["pruning, angle"] < shuffled["pruning, angle"] < 180
