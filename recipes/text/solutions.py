"""Solutions that a language model samples for problems of the arithmetic world, with the labels of their steps.

Written as TRL's stepwise data, a JSON object a line: ``prompt`` (the problem and a newline), ``completions`` (the
steps), ``labels`` (are it and all steps before it right?); and ``right``, whether the answer is. Labels are exact here;
noise is added when rewards are trained on them. Siblings are next steps of one prefix that is right so far.
Some of the training solutions are drawn hotter, for more mistakes to learn from; those of dev are not.

    python recipes/text/solutions.py --model work/lm/model --out work/solutions     # resumable: files that exist stay

Writes ``train.jsonl``, ``dev.jsonl`` and ``siblings-dev.jsonl`` (prompt, completions: the prefix, steps, labels).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from prunus.worlds import arithmetic

OPERATIONS = range(arithmetic.FEWEST, arithmetic.MOST + 1)


@torch.no_grad()
def continuations(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    samples: int,
    tokens: int = 160,
    temperature: float = 1.0,
    rows: int = 512,
) -> list[list[str]]:
    """For each text so many continuations, batched with texts of like length; torch's seed rules."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: list[list[str]] = [[] for _ in texts]
    size = max(1, rows // samples)
    for at in range(0, len(order), size):
        chosen = order[at : at + size]
        inputs = tokenizer([texts[i] for i in chosen], padding=True, return_tensors="pt")
        out = model.generate(
            **inputs, do_sample=True, temperature=temperature, num_return_sequences=samples, max_new_tokens=tokens
        )
        written = tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        for j, i in enumerate(chosen):
            found[i] = written[j * samples : (j + 1) * samples]
    return found


def solved(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    samples: int,
    temperatures: tuple[float, ...] = (1.0,),
) -> Iterator:
    """So many solutions of each problem at each temperature."""
    for temperature in temperatures:
        found = continuations(model, tokenizer, [p + "\n" for p in prompts], samples, temperature=temperature)
        for prompt, texts in zip(prompts, found, strict=True):
            for text in texts:
                yield {
                    "prompt": prompt + "\n",
                    "completions": arithmetic.steps(text),
                    "labels": arithmetic.labels(text, prompt),
                    "right": arithmetic.judge(text, prompt).value == 1,
                }


def siblings(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, solutions: list[dict], samples: int, seed: int
) -> Iterator:
    """Next steps of a random prefix, right so far, of each solution."""
    rng = np.random.default_rng(seed)
    prefixes = []
    for row in solutions:
        length = int(rng.integers(sum(row["labels"][:-1]) + 1))
        prefixes.append((row["prompt"], row["completions"][:length]))
    texts = [prompt + "".join(f"{step}\n" for step in steps) for prompt, steps in prefixes]
    for (prompt, before), found in zip(prefixes, continuations(model, tokenizer, texts, samples, tokens=24)):
        steps = [text.split("\n")[0] for text in found]
        head = "".join(f"{step}\n" for step in before)
        labels = [arithmetic.labels(f"{head}{step}\n", prompt.strip())[-1] for step in steps]
        yield {"prompt": prompt, "completions": before, "steps": steps, "labels": labels}


def write(file: Path, rows: Callable[[], Iterator]) -> list[dict]:
    if not file.exists():
        lines = [json.dumps(row) + "\n" for row in rows()]
        file.with_suffix(".tmp").write_text("".join(lines))
        file.with_suffix(".tmp").replace(file)
    found = [json.loads(line) for line in file.read_text().splitlines()]
    print(f"{file.name}: {len(found)}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=1000, help="training problems of each number of operations")
    parser.add_argument("--samples", type=int, default=2, help="solutions of each at each temperature")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 1.4], help="of the training solutions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few solutions, to see that everything runs")
    args = parser.parse_args()
    few = 2 if args.smoke else None
    args.problems, args.samples = few or args.problems, few or args.samples
    args.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(args.model), AutoTokenizer.from_pretrained(args.model)
    model.float().eval()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    train = [arithmetic.sample(rng, k) for k in OPERATIONS for _ in range(args.problems)]
    dev = [prompt for k in OPERATIONS for prompt in arithmetic.split("dev", k)[: few or 60]]
    write(args.out / "train.jsonl", lambda: solved(model, tokenizer, train, args.samples, tuple(args.temperatures)))
    rows = write(args.out / "dev.jsonl", lambda: solved(model, tokenizer, dev, 4))
    write(args.out / "siblings-dev.jsonl", lambda: siblings(model, tokenizer, rows[::4], 8, args.seed))


if __name__ == "__main__":
    main()
