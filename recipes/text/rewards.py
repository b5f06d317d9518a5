"""Train the pocket process reward and outcome reward, and measure them.

The process reward begins as the language model's own layers, which know what should come next, and two more above
them, which do nothing at first. It learns in two parts, one optimiser and one learning rate through both:

1. on fresh solutions of a weak solver (``prunus.worlds.arithmetic.weak_solution``), some of them with a mistake of
   another kind, exactly labelled: at every token, can the text so far still be right in every step? A second head,
   which is thrown away, names the token at which it ceases to be: without it the network does not find out that it must
   compare a token with what should have come. Below the two new layers it still learns to write what is right, so that
   it does not forget how to calculate;
2. on samples of the language model, each step's label flipped with a chance of 10 %: at the end of its separator and,
   with less weight, at every token inside the step, where it foretells how a step will come out.

The outcome reward begins as the process reward's layers and learns from the same samples whether the answer is right,
at the end of the solution, with labels flipped as often.

    python recipes/text/rewards.py --model work/lm/model --solutions work/solutions --out work/rewards     # resumable

Writes ``prm`` and ``orm`` (folders), ``metrics.json`` (below, on dev solutions, clean labels) and ``log.jsonl``:

- AUROC by operations: of steps behind a right prefix (prm), of their halves (prm, partial), of answers (orm, and the
  prm's least score);
- pairwise: share of sibling steps of a right prefix, one right and one wrong, that the prm orders so; ties count half
  (halves of steps are often the same).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from language_model import problem
from solutions import OPERATIONS
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
)
from vocabulary import save

from prunus.generators.written import Written
from prunus.rewards import OutcomeReward, StepReward
from prunus.worlds import arithmetic
from prunus.worlds.arithmetic.expression import OPERATORS, operations, parse

sys.path.append(str(Path(__file__).parents[1] / "video"))
from muon import Muon

IGNORED = -100
INSIDE = 0.2  # weight of a token inside a step whose label is noisy
AFTER = 0.2  # weight of a step behind a wrong one: its label is no news
LAYERS = 2  # above those of the language model
NAMES = ("wrong", "right")
BLOCK = 16  # batches whose rows are sorted by length together, so that little is padding
SPOILT = 0.35  # share of the weak solver's solutions that get a mistake of another kind
WRONG_TOKENS = 10.0  # weight of the rare token at which a text ceases to be right


@dataclass
class Row:
    """A problem and its solution as tokens; what is learned at each of them, and at the end."""

    tokens: list[int]
    labels: list[int]  # 1 right, 0 wrong, IGNORED in the prompt
    weights: list[float]
    turns: list[float]  # 1 at the token at which the text ceases to be right
    right: int  # the answer


class Texts:
    """Solutions as rows: labels of steps are flipped with chance ``noise`` and ``inside`` weighs tokens within one."""

    def __init__(self, tokenizer: AutoTokenizer, noise: float, inside: float) -> None:
        self.tokenizer, self.noise, self.inside = tokenizer, noise, inside

    def row(self, prompt: str, solution: str, rng: np.random.Generator) -> Row:
        """``prompt`` without, ``solution`` with a newline at its end."""
        asked = self.tokenizer(prompt + "\n").input_ids
        row = Row(asked, [IGNORED] * len(asked), [0.0] * len(asked), [0.0] * len(asked), 0)
        can = arithmetic.can_be_right(solution, prompt)
        at, news = 0, 1.0
        for step in arithmetic.steps(solution):
            tokens = self.tokenizer(step + "\n", return_offsets_mapping=True)
            now = [can[at + end - 1] for _, end in tokens.offset_mapping]
            before = [at == 0 or can[at - 1], *now[:-1]]
            at += len(step) + 1
            flip = rng.random() < self.noise
            row.tokens = row.tokens + tokens.input_ids
            row.labels += [int(c != flip) for c in now]
            row.weights += [self.inside * news] * (len(now) - 1) + [news]
            row.turns += [float(b and not c) for b, c in zip(before, now, strict=True)]
            news = 1.0 if now[-1] else AFTER
        row.right = int((arithmetic.judge(solution, prompt).value == 1) != (rng.random() < self.noise))
        return row


def batches(rows: list[Row], size: int, rng: np.random.Generator) -> list[list[Row]]:
    """All rows, in batches of like length, in random order."""
    order = sorted(rows, key=lambda row: len(row.tokens))
    chunks = [order[at : at + size] for at in range(0, len(order) - size + 1, size)]
    return [chunks[i] for i in rng.permutation(len(chunks))]


def spoilt(solution: str, rng: np.random.Generator) -> str:
    """The solution with a mistake that the weak solver does not make: a digit changed or lost, an operator changed (and
    the result with it), or a line left out."""
    lines, kind = solution.split("\n"), rng.random()
    at = int(rng.integers(len(lines) - 1))
    step = re.fullmatch(r"(-?\d+)([-+*])(-?\d+)=.*", lines[at])
    if kind < 0.3 and step:
        left, right = int(step[1]), int(step[3])
        operator = rng.choice([o for o in OPERATORS if o != step[2]])
        lines[at] = f"{left}{operator}{right}={OPERATORS[operator](left, right)}"
        return "\n".join(lines)
    if kind < 0.5:
        return "\n".join(lines[:at] + lines[at + 1 :])
    places = [i for i, character in enumerate(solution) if character.isdigit()]
    at = places[rng.integers(len(places))]
    digit = "" if rng.random() < 0.3 else str((int(solution[at]) + int(rng.integers(1, 10))) % 10)
    return solution[:at] + digit + solution[at + 1 :]


def weak(texts: Texts, args: argparse.Namespace, start: int) -> Iterator[list[Row]]:
    """Batches of the weak solver's solutions, from step ``start`` on; in a first run long problems come in slowly."""
    for block in range(start // BLOCK, -(-args.weak_steps // BLOCK)):
        rng = np.random.default_rng([args.seed, 2, block])
        rows = []
        for _ in range(BLOCK * args.batch):
            prompt = problem(rng, 1 if args.start else block * BLOCK / args.weak_steps)
            solution = arithmetic.weak_solution(prompt, rng, args.mistakes)
            solution = spoilt(solution, rng) if rng.random() < SPOILT else solution
            rows.append(texts.row(prompt, solution + "\n", rng))
        yield from batches(rows, args.batch, rng)[max(0, start - block * BLOCK) :]


def sampled(texts: Texts, args: argparse.Namespace, start: int) -> Iterator[list[Row]]:
    """Batches of the language model's solutions, from step ``start`` on, again and again."""
    rng = np.random.default_rng([args.seed, 1])  # a label is flipped once and for all
    rows = []
    for line in (args.solutions / "train.jsonl").read_text().splitlines():
        found = json.loads(line)
        steps = "".join(f"{step}\n" for step in found["completions"])
        rows.append(texts.row(found["prompt"].strip(), steps, rng))
    done, epoch = 0, 0
    while True:
        for batch in batches(rows, min(args.batch, len(rows)), np.random.default_rng([args.seed, 3, epoch])):
            if done >= start:
                yield batch
            done += 1
        epoch += 1


def padded(rows: list[list], value: float) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], True, padding_value=value)


class Aids(torch.nn.Module):
    """What training needs beside the model: a head that names the token at which a text ceases to be right, and the
    norm before the language model's own head."""

    def __init__(self, language_model: Path) -> None:
        super().__init__()
        model = LlamaForCausalLM.from_pretrained(language_model).float()
        self.norm = model.model.norm
        self.turn = torch.nn.Linear(model.config.hidden_size, 1)


def step_loss(model: torch.nn.Module, aids: Aids, rows: list[Row], exact: bool) -> torch.Tensor:
    tokens, labels = padded([r.tokens for r in rows], 0), padded([r.labels for r in rows], IGNORED)
    weights = padded([r.weights for r in rows], 0.0)
    out = model.run(input_ids=tokens, output_hidden_states=exact)  # what stands behind a token does not matter to it
    hidden = out.last_hidden_state
    losses = F.cross_entropy(model.score(hidden).transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    loss = (losses * weights).sum() / weights.sum()
    if exact:
        news = weights == 1
        turns = padded([r.turns for r in rows], 0.0)[news]
        wrong = torch.tensor(WRONG_TOKENS)
        loss = loss + F.binary_cross_entropy_with_logits(aids.turn(hidden)[..., 0][news], turns, pos_weight=wrong)
        below = aids.norm(out.hidden_states[len(model.model.layers) - LAYERS])
        written = F.linear(below, model.model.embed_tokens.weight)
        right = tokens.masked_fill(labels != 1, IGNORED)[:, 1:]
        loss = loss + F.cross_entropy(written[:, :-1].transpose(1, 2), right, ignore_index=IGNORED)
    return loss


def outcome_loss(model: torch.nn.Module, rows: list[Row]) -> torch.Tensor:
    tokens = padded([r.tokens[:-1] for r in rows], 0)  # a solution ends without the last newline
    logits = model(input_ids=tokens, attention_mask=(tokens > 0).long()).logits
    return F.cross_entropy(logits, torch.tensor([r.right for r in rows]))


class Training:
    """One reward's training: rate, checkpoints, log. It goes on from its checkpoint."""

    def __init__(self, name: str, modules: torch.nn.ModuleList, steps: int, rate: float, out: Path) -> None:
        self.name, self.modules, self.steps, self.out = name, modules, steps, out
        matrices = [p for p in modules[0].model.layers.parameters() if p.ndim == 2]
        others = [p for p in modules.parameters() if not any(p is matrix for matrix in matrices)]
        self.optimisers = [
            torch.optim.AdamW(others, lr=rate / 2, betas=(0.9, 0.97), weight_decay=0.01),
            Muon(matrices, lr=rate),
        ]
        self.rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self.checkpoint, self.start = out / f"{name}.pt", 0
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, weights_only=True)
            modules.load_state_dict(saved["modules"])
            for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
                optimiser.load_state_dict(state)
            self.start = saved["step"]

    def run(self, loss_at: Callable[[int], torch.Tensor]) -> None:
        began, losses = time.time(), []
        self.modules.train()
        for step in range(self.start, self.steps):
            # warm up, hold, then fall to nothing over the last third
            share = min(1, (step + 1) / 50, 3 * (self.steps - step) / self.steps)
            for optimiser, rates in zip(self.optimisers, self.rates, strict=True):
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * share
            loss = loss_at(step)
            self.modules.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
            for optimiser in self.optimisers:
                optimiser.step()
            losses.append(loss.item())
            if (step + 1) % 25 == 0 or step + 1 == self.steps:
                entry = {"reward": self.name, "step": step + 1, "loss": round(float(np.mean(losses)), 4)}
                entry["seconds"] = round(time.time() - began)
                losses = []
                print(json.dumps(entry), flush=True)
                with (self.out / "log.jsonl").open("a") as log:
                    log.write(json.dumps(entry) + "\n")
            if (step + 1) % 100 == 0 or step + 1 == self.steps:
                self.save(step + 1)
        self.modules.eval()

    def save(self, step: int) -> None:
        optimisers = [optimiser.state_dict() for optimiser in self.optimisers]
        state = {"modules": self.modules.state_dict(), "optimisers": optimisers, "step": step}
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").replace(self.checkpoint)


def configuration(folder: Path) -> LlamaConfig:
    config = LlamaConfig.from_pretrained(folder)
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: i for i, name in enumerate(NAMES)}
    config.classifier_dropout, config.num_hidden_layers = 0.0, config.num_hidden_layers + LAYERS
    return config


def train_step_reward(tokenizer: AutoTokenizer, args: argparse.Namespace) -> torch.nn.Module:
    torch.manual_seed(args.seed)
    model = LlamaForTokenClassification.from_pretrained(args.model, config=configuration(args.model)).float()
    for layer in model.model.layers[-LAYERS:]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    if args.start:
        model = LlamaForTokenClassification.from_pretrained(args.start).float()
    object.__setattr__(model, "run", torch.compile(model.model, dynamic=True) if args.compile else model.model)
    aids = Aids(args.model)
    steps = args.weak_steps + args.steps
    training = Training("prm", torch.nn.ModuleList([model, aids]), steps, args.rate, args.out)
    first = weak(Texts(tokenizer, noise=0.0, inside=1.0), args, training.start)
    second = sampled(Texts(tokenizer, args.noise, INSIDE), args, max(0, training.start - args.weak_steps))

    def loss_at(step: int) -> torch.Tensor:
        exact = step < args.weak_steps
        return step_loss(model, aids, next(first if exact else second), exact)

    training.run(loss_at)
    return model


def train_outcome_reward(steps: torch.nn.Module, tokenizer: AutoTokenizer, args: argparse.Namespace) -> torch.nn.Module:
    torch.manual_seed(args.seed)
    model = LlamaForSequenceClassification(configuration(args.model)).float()
    model.model.load_state_dict(steps.model.state_dict())
    training = Training("orm", torch.nn.ModuleList([model]), args.steps, args.rate / 2, args.out)
    rows = sampled(Texts(tokenizer, args.noise, INSIDE), args, training.start)
    training.run(lambda step: outcome_loss(model, next(rows)))
    return model


def export(folder: Path, model: torch.nn.Module, tokenizer: AutoTokenizer) -> None:
    """Write a transformers folder in half precision."""
    copy.deepcopy(model).half().save_pretrained(folder)
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
    parser.add_argument("--weak-steps", type=int, default=3000, help="steps on the weak solver's solutions")
    parser.add_argument("--steps", type=int, default=500, help="steps on the language model's, for each reward")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--mistakes", type=float, default=0.2, help="share of lines that the weak solver gets wrong")
    parser.add_argument("--noise", type=float, default=0.1, help="share of the sampled steps whose label is flipped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a process reward to go on from, instead of the language model")
    parser.add_argument("--compile", action="store_true", help="train faster, after half a minute")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.weak_steps, args.steps, args.batch = 3, 3, 4
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    steps = train_step_reward(tokenizer, args)
    export(args.out / "prm", steps, tokenizer)
    export(args.out / "orm", train_outcome_reward(steps, tokenizer, args), tokenizer)
    # Measured as they are shipped, in half precision.
    metrics = measure(StepReward.load(args.out / "prm"), OutcomeReward.load(args.out / "orm"), args.solutions)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for name, row in metrics.items():
        print(f"{name:14s} " + "  ".join(f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
