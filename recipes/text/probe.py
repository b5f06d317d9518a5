"""Train a small process reward on what a language model thinks: a linear read-out of its own frozen layers.

The language model reads solutions that it has sampled (``prunus solve``, runs whose rows hold all candidates) up to one
of its middle layers. At the end of every line a logistic regression on the hidden state foretells whether the solution
comes to the right answer: a value of the prefix, and at the last line an outcome score. Nothing else is trained, so a
few hundred solutions and a minute do. The layer and the strength of the L2 penalty are those with the best AUROC at the
last line in 5-fold cross-validation, folds by problem.

    python recipes/text/probe.py --model MODEL --runs work/svamp-train work/gsm8k-train --out work/probe

Writes a transformers folder for token classification, the layers up to the chosen one with the read-out as its head,
which ``prunus solve --reward`` and ``StepReward`` read; and ``metrics.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTokenClassification

from prunus.commands.solve_job import SolveJob
from prunus.generators.text_model import TextModel

FOLDS = 5
PENALTIES = (0.01, 0.03, 0.1, 0.3)
BATCH = 16
LAST = 4.0  # weight of the last line: the outcome


@dataclass
class Solution:
    """Tokens laid out as ``StepReward`` lays them out, where lines end, whether it is right, and of which problem."""

    tokens: list[int]
    ends: list[int]
    right: bool
    problem: str


def solutions(run: Path, tokenizer: Any) -> Iterator[Solution]:
    problems = SolveJob.load(run)[0].problems()
    pieces: dict[str, list[int]] = {}

    def tokens(text: str) -> list[int]:
        return pieces.setdefault(text, tokenizer(text, add_special_tokens=False).input_ids)

    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for line in (run / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompt = problems[row["problem"]].prompt
        for candidate in row["candidates"]:
            ids, ends = begin + tokens(f"{prompt}\n"), []
            for text in candidate["text"].removesuffix("\n").split("\n"):
                ids = ids + tokens(text) + tokens("\n")
                ends.append(len(ids) - 1)
            yield Solution(ids, ends, candidate["right"] == 1, prompt)


@torch.no_grad()
def states(network: Any, several: Sequence[Solution], layers: Sequence[int]) -> dict[int, list[torch.Tensor]]:
    """By layer, for each solution the normalised hidden states (lines, width) at the ends of its lines."""
    body, whole = network.model, network.model.layers
    body.layers = whole[: max(layers) + 1]  # one more: behind the last one, the model's own norm has been applied
    texts = sorted({tuple(s.tokens): s for s in several}.values(), key=lambda s: len(s.tokens))
    found: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    for at in range(0, len(texts), BATCH):
        chosen = texts[at : at + BATCH]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(s.tokens) for s in chosen], True)
        # What stands behind a token does not matter to it.
        hidden = body(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        for layer in layers:
            for row, s in zip(hidden[layer], chosen, strict=True):
                found[layer, tuple(s.tokens)] = normalised(row[s.ends].float(), network.config.rms_norm_eps)
        if at // BATCH % 10 == 0:
            print(f"read {min(at + BATCH, len(texts))} of {len(texts)}", flush=True)
    body.layers = whole
    return {layer: [found[layer, tuple(s.tokens)] for s in several] for layer in layers}


def normalised(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def fit(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A logistic regression's weights (width,) and bias (1,), in units of x; the penalty is on standardised ones."""
    mean, spread = x.mean(0), x.std(0) + 1e-6
    z = (x - mean) / spread
    w, b = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([w, b], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        each = torch.nn.functional.binary_cross_entropy_with_logits(z @ w + b, y, reduction="none")
        total = (each * weight).sum() / weight.sum() + penalty * w.square().sum() / 2
        total.backward()
        return total

    optimiser.step(loss)  # type: ignore[arg-type]
    w, b = w.detach() / spread, b.detach()
    return w, b - mean @ w


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The chance that a right one has the higher score; a tie counts half."""
    right, wrong = scores[labels], scores[~labels]
    return float((np.sign(right[:, None] - wrong[None]).mean() + 1) / 2) if len(right) and len(wrong) else float("nan")


def stacked(
    features: list[torch.Tensor], several: Sequence[Solution], picks: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    """Lines, their labels and their weights, of these solutions."""
    y = [float(several[i].right) for i in picks for _ in several[i].ends]
    weights: list[float] = []
    for i in picks:
        lines = len(several[i].ends)
        weights += [1.0 / lines] * (lines - 1) + [1.0 / lines + LAST]
    return torch.cat([features[i] for i in picks]), torch.tensor(y), torch.tensor(weights)


def validated(features: list[torch.Tensor], several: Sequence[Solution], penalty: float) -> np.ndarray:
    """What a read-out says of each solution that was trained on the other folds."""
    names = list(dict.fromkeys(s.problem for s in several))
    fold = {name: int(f) for name, f in zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS)}
    said = np.zeros(len(several))
    for k in range(FOLDS):
        w, b = fit(*stacked(features, several, [i for i, s in enumerate(several) if fold[s.problem] != k]), penalty)
        for i, s in enumerate(several):
            if fold[s.problem] == k:
                said[i] = float(features[i][-1] @ w + b)
    return said


def write(folder: Path, model: TextModel, layer: int, w: torch.Tensor, b: torch.Tensor) -> None:
    """The layers up to ``layer``, a norm without weights, and the read-out as the second of two labels."""
    config = type(model.config).from_dict(model.config.to_dict())
    config.num_hidden_layers, config.num_labels = layer, 2
    config.id2label, config.label2id = {0: "wrong", 1: "right"}, {"wrong": 0, "right": 1}
    config.classifier_dropout = 0.0
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layer]
    made = AutoModelForTokenClassification.from_config(config).to(model.network.dtype)
    weights = model.network.state_dict()
    kept = {name: weights[name] for name in made.state_dict() if name in weights}
    kept["model.norm.weight"] = torch.ones_like(weights["model.norm.weight"])
    kept["score.weight"] = torch.stack([torch.zeros_like(w), w])
    kept["score.bias"] = torch.cat([torch.zeros(1), b])
    made.load_state_dict(kept)  # every weight has a source
    made.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the language model that sampled the solutions")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of prunus solve")
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 12])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = TextModel.load(args.model, dtype=args.dtype)
    several = [s for run in args.runs for s in solutions(run, model.tokenizer)]
    labels = np.array([s.right for s in several])
    args.layers = sorted({min(layer, len(model.network.model.layers) - 1) for layer in args.layers})
    read = states(model.network, several, args.layers)
    metrics: dict[str, Any] = {"solutions": len(several), "right": float(labels.mean()), "auroc": {}}
    best = (-1.0, 0, 0.0)
    for layer in args.layers:
        for penalty in PENALTIES:
            value = auroc(validated(read[layer], several, penalty), labels)
            metrics["auroc"][f"layer {layer}, penalty {penalty}"] = round(value, 4)
            print(f"layer {layer}, penalty {penalty}: {value:.4f}", flush=True)
            best = max(best, (value, layer, penalty))
    _, layer, penalty = best
    metrics |= {"layer": layer, "penalty": penalty}
    w, b = fit(*stacked(read[layer], several, range(len(several))), penalty)
    write(args.out, model, layer, w, b)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
