"""Step beam search over text by Prunus against batched ``generate`` on the full text at every step: time and tokens.

    python benchmarks/text_search.py                      # a random Llama of 8 M parameters, a prompt of 320 tokens
    python benchmarks/text_search.py --model DIR          # a model of yours, for example the pocket LM
    python benchmarks/text_search.py --smoke              # once, small: for CI

The partner does what openr and llm-reasoners do: it hands the whole text of every beam to transformers' ``generate``,
left-padded in one batch, and stops each row at the end of its step. Both sides take turns in one process, with the same
network, threads and random numbers, and must write the same tokens. Printed: seconds of each (median, least, most),
their ratio, the tokens that each puts through the network, and how far ours is above its own forwards, replayed with
nothing between them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StoppingCriteriaList,
)

from prunus import search
from prunus.generators.sampling import Stream
from prunus.generators.text import TextGenerator
from prunus.generators.text_model import TextModel
from prunus.roles import FunctionReward
from prunus.strategies import Beam
from prunus.tree import seed_of

LETTERS = "0123456789+-*()=? answer\n"


def random_model(layers: int = 8, width: int = 256) -> TextModel:
    """A random Llama of 8 M parameters that writes characters; a line has 25 of them on average, and none ends."""
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *sorted(set(LETTERS))])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    torch.manual_seed(0)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64 or 1,
            num_key_value_heads=width // 64 or 1,
            head_dim=64,
            max_position_embeddings=2048,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=1,
        )
    )
    network.generation_config.do_sample = True
    return TextModel(network, tokenizer, "random Llama")


def few_shot(model: TextModel, tokens: int) -> str:
    """Solved problems and a question, of at least so many tokens."""
    shots = ["(7+5)*3-4=?\n7+5=12\n12*3=36\n36-4=32\nanswer 32\n", "9*(8-3)=?\n8-3=5\n9*5=45\nanswer 45\n"]
    text = "(3+4)*5-6=?\n"
    while len(model.encode(text, chat=False)) < tokens:
        text = shots[len(text) % 2] + text
    return text


def liking(text: str, prompt: str) -> float:
    """What a verifier might say; it takes no time on either side."""
    return seed_of(text) / 2**63


class SameDraws(LogitsProcessor):
    """Draws as Prunus does, with the same number for (seed, path, position), and leaves nothing else to choose."""

    def __init__(self, generator: TextGenerator, rows: list[Any]) -> None:
        self.generator, self.rows, self.at = generator, rows, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        numbers = [stream.at(count + self.at) for stream, count in self.rows]
        heat = [self.generator.sampling.temperature] * len(self.rows)
        tokens, _ = self.generator.sampling.draw(scores, numbers, heat)
        self.at += 1
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens[:, None], 0.0)


class StepEnds(StoppingCriteria):
    """A row is finished where its step ends."""

    def __init__(self, generator: TextGenerator, start: int, lengths: list[int]) -> None:
        self.generator, self.start, self.lengths = generator, start, lengths

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        done = []
        for row, length in zip(input_ids[:, self.start :].tolist(), self.lengths, strict=True):
            reached = self.generator.step.reached(self.generator.model.decode(row), len(row))
            done.append(reached or len(row) == self.generator.max_step or len(row) >= length)
        return torch.tensor(done, device=input_ids.device)


class FullText:
    """Step beam search as others run it: every round generates from the full text of every beam."""

    def __init__(self, generator: TextGenerator, keep: int, branch: int) -> None:
        self.generator, self.keep, self.branch = generator, keep, branch
        self.pad = 1

    def run(self, prompt: str, seed: int = 0) -> list[list[tuple[tuple[int, ...], list[int], float]]]:
        """For each round (path, tokens of the step, score) of its candidates, in the order of paths."""
        model = self.generator.model
        start = model.encode(prompt, self.generator.chat)
        beams: list[tuple[tuple[int, ...], list[int], str]] = [((), [], "")]
        most = self.generator.begin(prompt).most
        rounds = []
        while beams:
            count = self.keep * self.branch if beams[0][0] == () else self.branch
            rows = [(*beam, (*beam[0], i)) for beam in beams for i in range(count)]
            texts = [start + written for _, written, _, _ in rows]
            longest = max(map(len, texts))
            ids = torch.tensor([[self.pad] * (longest - len(t)) + t for t in texts])
            mask = torch.tensor([[0] * (longest - len(t)) + [1] * len(t) for t in texts])
            draws = SameDraws(self.generator, [(Stream(seed, path), len(w)) for _, w, _, path in rows])
            lengths = [most - len(written) for _, written, _, _ in rows]
            out = model.network.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                logits_processor=[draws],
                stopping_criteria=StoppingCriteriaList([StepEnds(self.generator, longest, lengths)]),
                max_new_tokens=self.generator.max_step or most,
                pad_token_id=self.pad,
            )
            grown = []
            for (_, written, text, path), new, length in zip(rows, out[:, longest:].tolist(), lengths, strict=True):
                step = self._cut(new, length)
                whole = text + model.decode(step)
                grown.append((path, written + step, whole, step, liking(whole, prompt)))
            grown.sort(key=lambda row: row[0])
            rounds.append([(path, step, score) for path, _, _, step, score in grown])
            best = sorted(grown, key=lambda row: (-row[4], row[0]))[: self.keep]
            last = len(rounds) == self.generator.max_steps
            beams = [
                (path, written, whole)
                for path, written, whole, step, _ in best
                if not last and len(written) < most and step[-1] not in model.ends
            ]
            if len(beams) < self.keep and not last:
                raise SystemExit("a candidate ended early; this comparison is of steps that all go on")
        return rounds

    def _cut(self, new: list[int], length: int) -> list[int]:
        """The row's own tokens, without the padding behind its end."""
        for end in range(1, len(new) + 1):
            if new[end - 1] in self.generator.model.ends or end in (self.generator.max_step, length):
                return new[:end]
            if self.generator.step.reached(self.generator.model.decode(new[:end]), end):
                return new[:end]
        return new


class Forwards:
    """A network's calls: the tokens that it was given and the seconds that it took; with ``keep`` their inputs."""

    def __init__(self, network: Any, keep: bool = False) -> None:
        self.network, self.keep = network, keep
        self.tokens, self.seconds, self.made = 0, 0.0, []

    def __enter__(self) -> Forwards:
        usual = self.network.forward

        def forward(*inputs: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = usual(*inputs, **options)
            self.seconds += time.perf_counter() - began
            self.tokens += (inputs[0] if inputs else options["input_ids"]).numel()
            return result

        self.network.forward = forward
        return self

    def __exit__(self, *_: Any) -> None:
        del self.network.forward


def check_same(found: list, tree: Any) -> int:
    """Raise unless both grew the same tokens with the same scores; the number of tokens."""
    total = 0
    for depth, theirs in enumerate(found, 1):
        ours = sorted((n for n in tree.nodes if n.depth == depth), key=lambda n: n.path)
        mine = [n.unit["tokens"].tolist() for n in ours]
        scores = [n.scores["liking"].value for n in ours]
        if mine != [step for _, step, _ in theirs] or scores != [score for _, _, score in theirs]:
            raise SystemExit(f"the two differ in step {depth}; speeds cannot be compared")
        total += sum(map(len, mine))
    if max(n.depth for n in tree.nodes) != len(found):
        raise SystemExit("the two differ in their number of steps")
    return total


def replayed(generator: TextGenerator, run: Any) -> float:
    """Seconds of the engine's calls of a run, made again with nothing between them."""
    engine, calls = generator.model.engine, []
    read, write = engine.read, engine.write

    def reading(*inputs: Any) -> Any:
        calls.append((read, inputs))
        return read(*inputs)

    def writing(contexts: Any) -> Any:
        calls.append((write, (contexts,)))
        return Watched(write(contexts), calls)

    engine.read, engine.write = reading, writing
    try:
        run()
    finally:
        del engine.read, engine.write
    began, live = time.perf_counter(), None
    for call, inputs in calls:
        if call is read:
            read(*inputs)
        elif call is write:
            live = write(*inputs)
        else:
            getattr(live, call)(*inputs)
    return time.perf_counter() - began


class Watched:
    def __init__(self, writing: Any, calls: list) -> None:
        self.writing, self.calls = writing, calls

    def __getattr__(self, name: str) -> Any:
        def call(*inputs: Any) -> Any:
            self.calls.append((name, inputs))
            return getattr(self.writing, name)(*inputs)

        return call


def compare(generator: TextGenerator, prompt: str, keep: int, branch: int, runs: int) -> dict[str, Any]:
    model, strategy, reward = generator.model, Beam(keep=keep, branch=branch), FunctionReward(liking, "liking")
    partner = FullText(generator, keep, branch)

    def ours() -> Any:
        return search(prompt, generator, reward, strategy)

    with Forwards(model.network) as theirs:
        found = partner.run(prompt)  # also the warm-up
    with Forwards(model.network) as mine:
        tree = ours()
    written = check_same(found, tree)
    start = len(model.encode(prompt, generator.chat))
    seconds: dict[str, list[float]] = {name: [] for name in ("partner", "ours", "inside", "forwards")}
    for _ in range(runs):
        began = time.perf_counter()
        partner.run(prompt)
        seconds["partner"].append(time.perf_counter() - began)
        began = time.perf_counter()
        ours()
        seconds["ours"].append(time.perf_counter() - began)
        with Forwards(model.network) as calls:
            ours()
        seconds["inside"].append(calls.seconds)
        seconds["forwards"].append(replayed(generator, ours))

    def ratio(upper: str, lower: str, less: float = 0.0) -> dict[str, float]:
        middle = statistics.median(seconds[upper]) / statistics.median(seconds[lower])
        each = [a / b for a, b in zip(seconds[upper], seconds[lower], strict=True)]
        return {k: round(v - less, 3) for k, v in (("of_medians", middle), ("least", min(each)), ("most", max(each)))}

    def figures(name: str) -> dict[str, float]:
        values = seconds[name]
        return {
            "median": round(statistics.median(values), 3),
            "least": round(min(values), 3),
            "most": round(max(values), 3),
        }

    return {
        "model": model.name,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "search": f"{keep}x{branch}",
        "steps": len(found),
        "prompt_tokens": start,
        "written_tokens": written,
        "partner_seconds": figures("partner"),
        "seconds": figures("ours"),
        "times_faster": ratio("partner", "ours"),
        "partner_tokens": theirs.tokens,
        "tokens": mine.tokens,
        "tokens_per_needed": round(mine.tokens / (start + written), 3),
        "above_engine": ratio("ours", "forwards", less=1),
        "above_forwards": ratio("ours", "inside", less=1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a transformers folder (default: a random Llama)")
    parser.add_argument("--keep", type=int, default=4)
    parser.add_argument("--branch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=320, help="tokens of the prompt, at least")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--smoke", action="store_true", help="one small run, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.runs, args.steps, args.prompt, args.threads = 1, 3, 64, 1
    torch.set_num_threads(args.threads)
    model = TextModel.load(args.model) if args.model else random_model(*(2, 64) if args.smoke else ())
    model.ends = frozenset()  # all candidates go on for all steps, on both sides
    model.network.generation_config.eos_token_id = None
    generator = TextGenerator(
        model, "\n", temperature=1.0, top_k=0, top_p=1.0, chat=False, max_step=32, max_steps=args.steps, max_tokens=512
    )
    figures = compare(generator, few_shot(model, args.prompt), args.keep, args.branch, args.runs)
    print(json.dumps(figures), flush=True)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
