"""What a self-evaluation's head is fitted on: logits of a policy's own samples, and how they fared (paper 52).

A ``Recorder`` takes part in a search as a reward and keeps the logits that follow its question, of whole samples and of
their beginnings, should the strategy score those too (a beam of branch 1 that keeps all does). ``examples`` labels
them: a sample by the share of the prompt's other samples that are no better, a beginning as the sample that it became.
The paper truncates about half of the samples; here ``beginnings`` says how many beginnings of each sample are used.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunus.errors import require
from prunus.rewards.self_evaluation import WITH_STATE, LooksAhead, win_or_tie
from prunus.roles import Reward, View
from prunus.tree import Node, Tree

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Recorder(Reward):
    """Keeps the logits (vocabulary) after ``question`` for each (prompt, text) that it is shown; its scores are 0."""

    generator: LooksAhead
    question: tuple[int, ...]
    name: str = "recorder"
    view: View = WITH_STATE
    kept: dict[tuple[str, Any], torch.Tensor] = field(default_factory=dict, repr=False)

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[float]:
        logits = self.generator.logits_after([s for _, s in contents], [self.question] * len(contents))
        for (text, _), prompt, row in zip(contents, prompts, logits, strict=True):
            self.kept[prompt, _key(text)] = row.clone()
        return [0.0] * len(contents)


def examples(
    trees: Sequence[Tree],
    recorder: Recorder,
    judge: Callable[[Any, str], float],
    *,
    beginnings: int = 1,
    tie: float = 0.0,
    seed: int = 0,
) -> tuple[torch.Tensor, list[float]]:
    """Logits (n, vocabulary) and labels (n) of the finished samples of these trees and of as many random beginnings of
    each. ``judge`` says how good an output is. Trees of fewer than two samples are passed over."""
    import torch

    rng, rows, labels = random.Random(seed), list[torch.Tensor](), list[float]()
    for tree in trees:
        generator, leaves = tree.generator, tree.finished
        if generator is None or len(leaves) < 2:
            continue
        outputs = [generator.output(leaf) for leaf in leaves]
        fared = win_or_tie([judge(output, tree.prompt) for output in outputs], tie)
        for leaf, s in zip(leaves, fared, strict=True):
            earlier = leaf.units()[:-1]
            nodes: list[Node] = [leaf, *rng.sample(earlier, min(beginnings, len(earlier)))]
            for text in generator.render(nodes, View(None)):
                if (tree.prompt, _key(text)) in recorder.kept:
                    rows.append(recorder.kept[tree.prompt, _key(text)])
                    labels.append(s)
    require(len(rows) > 0, "trees", len(trees), "searches that the recorder took part in, with two samples or more")
    return torch.stack(rows), labels


def _key(text: Any) -> Any:
    return text if isinstance(text, str) else repr(text)
