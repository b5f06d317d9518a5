"""The miniature of paper 12 runs, and its arms are what they say."""

from prunus.reproductions import lottery_ticket
from prunus.reproductions.claim import Trial


def test_the_miniature_runs():
    evidence = lottery_ticket.CLAIM.measure(Trial("dev", smoke=True))
    assert len(evidence.findings) == 3 * 3 + 1
    rows = {(row["network"], row["kept"]): row for row in evidence.rows}
    assert len(rows) == 1 + 3 * 3 + 2 and all(set(row) == set(evidence.columns) for row in rows.values())
    kept = ["80.2%", "64.3%", "51.6%"]  # the card's 80.04 and 51.28 % are of a net with 784 inputs
    assert {k for _, k in rows} == {"100.0%", *kept}
    assert [rows["ticket", k]["steps in all"] for k in kept] == [80, 120, 160]
    assert rows["magnitude one-shot", kept[0]]["steps in all"] == 160 and rows["dense", "100.0%"]["steps in all"] == 40
    speeds = [row["steps to 90 %"] for row in rows.values() if row["steps to 90 %"] != ""]
    assert all(20 <= steps <= 40 for steps in speeds)
