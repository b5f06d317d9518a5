"""A head that is fitted on a policy's own samples, against the chance of doing better that is known exactly."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from prunus import Cost, search
from prunus.errors import SettingError
from prunus.rewards.self_evaluation import Head, SelfEvaluation
from prunus.rewards.self_evaluation_data import Recorder, examples
from prunus.strategies import Beam, BestOfN
from prunus.strategies.adaptive_sampling import AdaptiveSampling, samples
from prunus.testing import ScriptedGenerator

STEPS = 3
RIGHT = {"easy": 0.95, "hard": 0.6, "hopeless": 0.0}  # the chance that a step is right


def judge(values, prompt):
    return float(all(v < RIGHT[prompt] for v in values))


@dataclass(frozen=True)
class Knowing(ScriptedGenerator):
    """A model whose logits show how many steps were wrong so far, and which prompt it is, among noise."""

    units: int = STEPS
    prompt: str = ""

    def logits_after(self, states, tokens):
        values = [[v for block in s.blocks for v in block] for s in states]
        wrong = [sum(v >= RIGHT[self.prompt] for v in row) for row in values]
        kinds = [float(self.prompt == name) for name in RIGHT]
        return torch.tensor(
            [[float(w > 0), *kinds, float(w > 0) * kinds[1], v[0] - 0.5] for w, v in zip(wrong, values, strict=True)]
        )

    def look_cost(self, states, tokens):
        return Cost(len(states), sum(map(len, tokens)))


def sampled(count, strategy):
    logits, labels = [], []
    for name in RIGHT:
        generator = Knowing(prompt=name)
        recorder = Recorder(generator, (9,))
        trees = [search(name, generator, recorder, strategy, seed=s) for s in range(count)]
        rows, s = examples(trees, recorder, judge)
        logits.append(rows)
        labels += s
    return torch.cat(logits), labels


def test_whole_samples_and_beginnings_are_labelled():
    generator = Knowing(prompt="hard")
    recorder = Recorder(generator, (9,))
    tree = search("hard", generator, recorder, Beam(6, 1))
    rows, labels = examples([tree], recorder, judge)
    assert rows.shape == (12, 6) and len(recorder.kept) == 6 * STEPS
    good = [judge(generator.output(n), "hard") for n in tree.finished]
    s = [sum(other <= own for other in good) - 1 for own in good]
    assert labels == [x / 5 for x in s for _ in range(2)]
    only_whole, _ = examples([search("hard", generator, recorder, BestOfN(4))], recorder, judge, beginnings=0)
    assert len(only_whole) == 4
    with pytest.raises(SettingError, match="took part in"):
        examples([], recorder, judge)


def test_a_fitted_evaluator_is_calibrated_and_spends_samples_where_they_help():
    head = Head.fit(*sampled(40, Beam(8, 1)), decay=1e-4)
    used = {}
    for name in RIGHT:
        generator = Knowing(prompt=name)
        evaluation = SelfEvaluation(generator, (9,), head=head)
        p = RIGHT[name] ** STEPS
        trees = [
            search(name, generator, evaluation, AdaptiveSampling(most=16, tau=0.9), seed=1000 + s) for s in range(30)
        ]
        for tree in trees:
            for leaf in tree.finished:
                s = 1.0 if judge(generator.output(leaf), name) else 1 - p
                assert leaf.scores["self-evaluation"].value == pytest.approx(s, abs=0.15)
        used[name] = np.mean([samples(t) for t in trees])
    assert used["hopeless"] == 1 and used["easy"] < 2 and used["hard"] > 3
