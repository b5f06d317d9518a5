"""Train the pocket language model: a tiny Llama that solves problems of the arithmetic world, a line at a time.

Every solution is drawn anew: problems of the train split, the long ones after a while, solved by a weak solver whose
lines are wrong at a given rate (``prunus.worlds.arithmetic.weak_solution``). The model learns to solve and to err:
sampled at temperature 1 it makes the weak solver's mistakes beside its own, and builds on them. Cross-entropy on the
solution's tokens.

    python recipes/text/language_model.py --out work/lm     # resumable: run it again to go on

``--mistakes`` may be changed in mid-run: the rate at the end is what the model has.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vocabulary import POSITIONS, build_tokenizer, save

from prunus.worlds import arithmetic
from prunus.worlds.arithmetic.problems import draw

sys.path.append(str(Path(__file__).parents[1] / "video"))
from muon import Muon

IGNORED = -100
BLOCK = 32  # batches whose sequences are sorted by length together, so that little is padding


def build_model(vocabulary: int, hidden: int = 128, layers: int = 6) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=max(1, hidden // 64),
        intermediate_size=hidden * 11 // 4,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def problem(rng: np.random.Generator, progress: float) -> str:
    """A problem of the train split; long ones come in over the first third and then are four times as frequent."""
    most = min(arithmetic.MOST, 3 + 15 * progress)
    share = np.where(np.arange(1, arithmetic.MOST + 1) <= most, np.linspace(1, 4, arithmetic.MOST), 0)
    operations = int(rng.choice(arithmetic.MOST, p=share / share.sum())) + 1
    # Single operations are in no split.
    return arithmetic.sample(rng, operations) if operations > 1 else draw(rng, 1)


def block(tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace, step: int) -> list[tuple[torch.Tensor, ...]]:
    """The next batches in random order: tokens (n, length), padded on the right, and targets."""
    rng = np.random.default_rng([args.seed, step])
    rows = []
    for _ in range(args.batch * BLOCK):
        prompt = problem(rng, step / args.steps)
        asked = tokenizer(prompt + "\n").input_ids
        rows.append((asked, tokenizer(arithmetic.weak_solution(prompt, rng, args.mistakes) + "</s>").input_ids))
    rows.sort(key=lambda row: len(row[0]) + len(row[1]))
    batches = []
    for at in rng.permutation(BLOCK) * args.batch:
        chosen = rows[at : at + args.batch]
        tokens = torch.zeros(len(chosen), max(len(a) + len(s) for a, s in chosen), dtype=torch.long)
        targets = torch.full_like(tokens, IGNORED)
        for i, (asked, solved) in enumerate(chosen):
            tokens[i, : len(asked) + len(solved)] = torch.tensor(asked + solved)
            targets[i, len(asked) : len(asked) + len(solved)] = torch.tensor(solved)
        batches.append((tokens, targets))
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--mistakes", type=float, default=0.02, help="share of lines that the weak solver gets wrong")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="train a third faster, after half a minute")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.batch, args.hidden, args.layers = 4, 4, 64, 1
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"

    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer), args.hidden, args.layers)
    average = copy.deepcopy(model)
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    optimisers = [
        torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.97), weight_decay=0.01),
        Muon(matrices, lr=2 * args.rate),
    ]
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    rates = [group["lr"] for group in groups]
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        start = saved["step"]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters; from step {start}", flush=True)

    forward = torch.compile(model, dynamic=True) if args.compile else model
    began, losses, waiting = time.time(), [], []
    for step in range(start, args.steps):
        # warm up, hold, then fall to nothing over the last third
        left = (args.steps - step) / args.steps
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * min(1, (step + 1) / 100, left * 3 + 0.01)
        waiting = waiting or block(tokenizer, args, step)
        tokens, targets = waiting.pop()
        loss = forward(tokens, labels=targets).loss  # padding stands on the right, where no target looks back at it
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            decay = min(0.99, (step + 1) / (step + 10))
            for a, b in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        losses.append(loss.item())
        if (step + 1) % 25 == 0 or step + 1 == args.steps:
            entry = {"step": step + 1, "loss": round(float(np.mean(losses)), 4), "mistakes": args.mistakes}
            entry["seconds"] = round(time.time() - began)
            losses = []
            print(json.dumps(entry), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            export(args.out / "model", tokenizer, average)


def export(folder: Path, tokenizer: PreTrainedTokenizerFast, model: torch.nn.Module) -> None:
    """Write a transformers folder in half precision."""
    half = copy.deepcopy(model).half()
    if hasattr(half, "generation_config"):
        half.generation_config = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=1, pad_token_id=0, max_new_tokens=256
        )
    half.save_pretrained(folder)
    save(folder, tokenizer)
    for file in folder.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
