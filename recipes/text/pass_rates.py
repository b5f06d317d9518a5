"""Measure pass@k of a language model folder on the arithmetic world, with transformers' own ``generate``.

pass@k is estimated without bias from n samples with c right ones, 1 - C(n-c, k) / C(n, k) (Chen et al., 2021), and
averaged over problems; the interval is a 95 % bootstrap by problem.

    python recipes/text/pass_rates.py --model work/lm/model --operations 2 4 6 8
"""

from __future__ import annotations

import argparse
import json
from math import comb
from pathlib import Path

import numpy as np
import torch
from solutions import continuations
from transformers import AutoModelForCausalLM, AutoTokenizer

from prunus.worlds import arithmetic


def pass_at(k: int, samples: int, right: int) -> float:
    return 1 - comb(samples - right, k) / comb(samples, k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--operations", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7, 8])
    parser.add_argument("--problems", type=int, default=50, help="of the dev split, for each number of operations")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(args.model), AutoTokenizer.from_pretrained(args.model)
    model.float().eval()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    for operations in args.operations:
        prompts = list(arithmetic.split("dev", operations)[: args.problems])
        solutions = continuations(model, tokenizer, [p + "\n" for p in prompts], args.samples)
        right = [sum(arithmetic.judge(s, p).value == 1 for s in texts) for p, texts in zip(prompts, solutions)]
        entry: dict[str, object] = {"operations": operations}
        for k in (1, 4, 16):
            if k <= args.samples:
                rates = np.array([pass_at(k, args.samples, c) for c in right])
                means = rates[rng.integers(len(rates), size=(2000, len(rates)))].mean(1)
                low, high = np.quantile(means, (0.025, 0.975))
                entry[f"pass@{k}"] = [round(float(x), 3) for x in (rates.mean(), low, high)]
        wrong = [t for p, texts in zip(prompts, solutions) for t in texts if arithmetic.judge(t, p).value == 0]
        entry["no answer"] = round(sum(arithmetic.answer(t) is None for t in wrong) / (len(prompts) * args.samples), 4)
        print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
