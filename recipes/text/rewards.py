"""Train the pocket process reward and outcome reward from labelled solutions, and measure them.

Both begin as the language model's own layers, which know what should come next, and two more above them, which do
nothing at first. The process reward learns, by cross-entropy, each step's label at the end of its separator and, with
less weight, at every token inside the step: there it foretells how a step will come out that is not finished. The
outcome reward learns whether the answer is right, at the end of the solution. Every label is flipped with a chance of
10 %: exact labels are never trained on.

    python recipes/text/rewards.py --model work/lm/model --solutions work/solutions --out work/rewards     # resumable

Writes ``prm`` and ``orm`` (folders), ``metrics.json`` (below, on dev solutions, clean labels) and ``log.jsonl``:

- AUROC by operations: of steps behind a right prefix (prm), of their halves (prm, partial), of answers (orm, and the
  prm's least score);
- pairwise: share of sibling steps of a right prefix, one right and one wrong, that the prm orders so; ties count half
  (halves of steps are often the same).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from solutions import OPERATIONS
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification, LlamaForTokenClassification
from vocabulary import save

from prunus.generators.written import Written
from prunus.rewards import OutcomeReward, StepReward
from prunus.worlds.arithmetic.expression import operations, parse

IGNORED = -100
INSIDE = 0.2  # weight of a token inside a step
AFTER = 0.2  # weight of a step behind a wrong one: its label is no news
LAYERS = 2  # above those of the language model
NAMES = ("wrong", "right")


class Solutions:
    """Labelled solutions as tokens, each label flipped with chance ``noise``, once and for all."""

    def __init__(self, file: Path, tokenizer: AutoTokenizer, noise: float, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self.rows = []
        for line in file.read_text().splitlines():
            row = json.loads(line)
            tokens = tokenizer(row["prompt"]).input_ids
            labels, weights = [IGNORED] * len(tokens), [0.0] * len(tokens)
            parents = [True, *row["labels"]]
            for step, label, parent in zip(row["completions"], row["labels"], parents):
                piece = tokenizer(step + "\n").input_ids
                tokens = tokens + piece
                labels += [int(label ^ (rng.random() < noise))] * len(piece)
                news = 1.0 if parent else AFTER
                weights += [INSIDE * news] * (len(piece) - 1) + [news]
            # The solution ends without the last newline.
            self.rows.append((tokens, labels, weights, int(row["right"] ^ (rng.random() < noise))))
        self.rows.sort(key=lambda row: len(row[0]))

    def batch(self, rng: np.random.Generator, size: int) -> list[tuple]:
        """Some solutions of like length."""
        at = int(rng.integers(max(1, len(self.rows) - 2 * size)))
        near = self.rows[at : at + 2 * size]
        return [near[i] for i in rng.permutation(len(near))[:size]]


def padded(rows: list[list], value: float) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], True, padding_value=value)


def step_loss(model: torch.nn.Module, rows: list[tuple]) -> torch.Tensor:
    tokens, labels, weights = (padded([r[i] for r in rows], v) for i, v in enumerate((0, IGNORED, 0.0)))
    logits = model(input_ids=tokens).logits  # what stands behind a token does not matter to it
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return (losses * weights).sum() / weights.sum()


def outcome_loss(model: torch.nn.Module, rows: list[tuple]) -> torch.Tensor:
    tokens = padded([r[0][:-1] for r in rows], 0)
    logits = model(input_ids=tokens, attention_mask=(tokens > 0).long()).logits
    return F.cross_entropy(logits, torch.tensor([r[3] for r in rows]))


def train(name: str, kind: type, loss_of: object, data: Solutions, args: argparse.Namespace) -> torch.nn.Module:
    """Goes on from its checkpoint."""
    torch.manual_seed(args.seed)
    config = LlamaConfig.from_pretrained(args.model)
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: i for i, name in enumerate(NAMES)}
    config.classifier_dropout, config.num_hidden_layers = 0.0, config.num_hidden_layers + LAYERS
    model = kind.from_pretrained(args.model, config=config).float()
    for layer in model.model.layers[-LAYERS:]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.02)
    checkpoint, start = args.out / f"{name}.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
    began, losses = time.time(), []
    for step in range(start, args.steps):
        for group in optimiser.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        loss = loss_of(model, data.batch(np.random.default_rng([args.seed, step]), args.batch))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % 25 == 0 or step + 1 == args.steps:
            entry = {"reward": name, "step": step + 1, "loss": round(float(np.mean(losses)), 4)}
            entry["seconds"] = round(time.time() - began)
            losses = []
            print(json.dumps(entry), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    return model


def export(folder: Path, model: torch.nn.Module, tokenizer: AutoTokenizer) -> None:
    """Write a transformers folder in half precision."""
    model.half().save_pretrained(folder)
    save(folder, tokenizer)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file in folder.iterdir():
        file.chmod(0o644)


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The chance that a right one has the higher score; a tie counts half."""
    right, wrong = scores[labels], scores[~labels]
    if not len(right) or not len(wrong):
        return math.nan
    return float((np.sign(right[:, None] - wrong[None]).mean() + 1) / 2)


def measure(prm: StepReward, orm: OutcomeReward, folder: Path) -> dict:
    rows = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]
    metrics: dict[str, dict] = {}
    for count in OPERATIONS:
        steps, partial, answers = [], [], []
        for row in (r for r in rows if r["completions"] and operations(parse(r["prompt"])) == count):
            prompt, lines = row["prompt"].strip(), row["completions"]
            reached = min(len(lines), sum(row["labels"]) + 1)  # as far as its parent is right
            texts = [Written([f"{s}\n" for s in lines[: k + 1]]) for k in range(len(lines))]
            halves = [Written([*t.steps[:-1], s[: (len(s) + 1) // 2]], whole=False) for t, s in zip(texts, lines)]
            scores = prm.score([*texts, *halves[:reached]], [prompt] * (len(texts) + reached))
            steps += [(s.value, label) for s, label in zip(scores[:reached], row["labels"])]
            partial += [(s.value, label) for s, label in zip(scores[len(texts) :], row["labels"])]
            whole = orm.score(["\n".join(lines)], [prompt])[0]
            answers.append((whole, scores[len(texts) - 1].parts["min"], row["right"]))

        def of(pairs: list[tuple], column: int = 0) -> float:
            table = np.array(pairs, dtype=float)
            return round(auroc(table[:, column], table[:, -1] > 0.5), 3)

        metrics[f"{count} operations"] = {
            "prm": of(steps), "prm, partial": of(partial), "orm": of(answers), "prm least": of(answers, 1),
            "steps": len(steps), "wrong": sum(not label for _, label in steps),
            "answers right": round(float(np.mean([a[2] for a in answers])), 3),
        }  # fmt: skip
    ordered: list[float] = []
    halves_ordered: list[float] = []
    for row in map(json.loads, (folder / "siblings-dev.jsonl").read_text().splitlines()):
        before, labels = [f"{s}\n" for s in row["completions"]], np.array(row["labels"])
        texts = [Written([*before, f"{s}\n"]) for s in row["steps"]]
        halves = [Written([*before, s[: (len(s) + 1) // 2]], whole=False) for s in row["steps"]]
        for contents, out in ((texts, ordered), (halves, halves_ordered)):
            values = np.array([s.value for s in prm.score(contents, [row["prompt"].strip()] * len(contents))])
            out += ((np.sign(values[labels][:, None] - values[~labels][None]) + 1) / 2).ravel().tolist()
    metrics["siblings"] = {
        "pairwise": round(float(np.mean(ordered)), 3) if ordered else math.nan,
        "pairwise, partial": round(float(np.mean(halves_ordered)), 3) if ordered else math.nan,
        "pairs": len(ordered),
    }
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the language model whose layers to begin with")
    parser.add_argument("--solutions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.batch = 3, 4
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    data = Solutions(args.solutions / "train.jsonl", tokenizer, args.noise, args.seed)
    export(args.out / "prm", train("prm", LlamaForTokenClassification, step_loss, data, args), tokenizer)
    export(args.out / "orm", train("orm", LlamaForSequenceClassification, outcome_loss, data, args), tokenizer)
    # Measured as they are shipped, in half precision.
    metrics = measure(StepReward.load(args.out / "prm"), OutcomeReward.load(args.out / "orm"), args.solutions)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for name, row in metrics.items():
        print(f"{name:14s} " + "  ".join(f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
