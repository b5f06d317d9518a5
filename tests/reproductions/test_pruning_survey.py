"""The miniature of paper 46: what is asked of each direction, and that all pairs are measured."""

import pytest

from prunus.reproductions import pruning_survey
from prunus.reproductions.claim import HOLDS, NOT_HERE, SAME, Trial
from prunus.sparse.contrasts import Gap

BETTER, WORSE = ([0.9, 0.91, 0.9], [0.8, 0.81, 0.8])


@pytest.mark.parametrize(
    ("pair", "scores", "verdicts", "asked"),
    [
        ("P1", (BETTER, WORSE), [HOLDS], 0),
        ("P1", (WORSE, BETTER), [NOT_HERE], 0),
        ("P2", (BETTER, BETTER), [HOLDS], SAME),
        ("P2", (BETTER, WORSE), [NOT_HERE], SAME),
        ("P4", (WORSE, BETTER), [HOLDS], 0),
        ("P5", (BETTER, WORSE), [HOLDS, NOT_HERE], SAME),
        ("P5", (BETTER, BETTER), [HOLDS, HOLDS], SAME),
        ("P6, mask alone", (BETTER, WORSE), [], 0),
    ],
)
def test_what_is_asked(pair, scores, verdicts, asked):
    found = pruning_survey.directions(Gap(pair, "one", "other", scores, (1, 1), (0.1, 0.1)))
    assert [f.verdict for f in found] == verdicts and all(f.more_than == asked for f in found)


def test_the_miniature_runs():
    evidence = pruning_survey.CLAIM.measure(Trial("dev", smoke=True))
    assert [row["pair"] for row in evidence.rows] == ["P1", "P2", "P3", "P4", "P5", "P6", "P6, mask alone", "P7", "P8"]
    assert len(evidence.findings) == 6
