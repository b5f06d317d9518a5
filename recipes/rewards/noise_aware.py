"""Train rewards that read a generator's unfinished candidates, by self-distillation along a curriculum (paper 04).

Candidates of ``pocket/video`` for training prompts are grown with nothing pruned; after every denoising step the last
frame of the clean estimate is kept. A copy of the frame reward learns to give the estimate the score that the frame
reward itself gives the finished frame: first estimates of the last step but one, which are almost
clean, then those of the step before it, and so on; the weights go on from step to step, the optimiser is made anew
(AdamW, linear decay to half the rate, gradients clipped), and each step's weights are kept for that step.

The loss is a mean squared error in two parts: of each candidate's distance to the mean of its group (the candidates of
one chunk of one prompt), and, with weight ``--between``, of those means. With weight 1 it is the paper's plain error;
less of it leaves the network to the order in a group, which is all that pruning needs.

    python recipes/rewards/noise_aware.py --out work/preview-reward            # chunks, the model's own steps
    python recipes/rewards/noise_aware.py --out work/image-preview-reward --images --steps 20 --until 13

Writes ``step-1``, ``step-2``, ... (folders) and ``metrics.json``: for each step, on prompts of the dev split, Kendall's
tau between candidates of one prompt, of the plain and of the trained reward, with the plain reward of the finished
frame (``reward``) and with the world's judge of the finished frame (``judge``).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from prunus import pocket, search_many
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.rewards import FrameReward
from prunus.roles import FunctionReward, View
from prunus.strategies import BestOfN, PruneSchedule, TTSnap
from prunus.worlds import sprites
from prunus.worlds.sprites.judge import judge

Candidates = list[tuple[str, torch.Tensor]]  # prompt, the last frame after each step: uint8 (steps, 3, h, w)


def grow(video: StreamingVideo, prompts: list[str], candidates: int, seed: int) -> Candidates:
    """Whole candidates of each prompt; a row is a chunk of one, and the rows of one chunk stand together."""
    every = PruneSchedule(tuple(range(1, video.steps)), (1.0,) * (video.steps - 1))
    level = [FunctionReward(lambda *_: 0.0, name, View(1)) for name in ("final", "noise-aware-reward")]
    out: Candidates = []
    for at in range(0, len(prompts), 8):
        some = prompts[at : at + 8]
        strategy = TTSnap(BestOfN(candidates, reward="final"), every)
        for tree in search_many(some, video, level, strategy, seeds=[seed + at + i for i in range(len(some))]):
            video.render([n for n in tree.nodes[1:] if n.rendering is None], View(1))  # chunks that were not scored
            for depth in range(1, tree.result.depth + 1):
                for leaf in tree.finished:
                    frames = torch.stack([n.rendering[-1] for n in leaf.lineage if n.depth == depth])
                    out.append((tree.prompt, frames))
    return out


@torch.no_grad()
def scores(reward: FrameReward, frames: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """Scores (n,) of single frames uint8 (n, 3, h, w)."""
    rows = range(0, len(frames), 256)
    return torch.cat([reward.network(frames[i : i + 256].float() / 255, prompts[i : i + 256])[:, 0] for i in rows])


def train(
    student: FrameReward, frames: torch.Tensor, prompts: list[str], labels: torch.Tensor, args: argparse.Namespace,
    step: int,
) -> float:  # fmt: skip
    """One stage of the curriculum; returns the loss of its last epoch."""
    network = student.network.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=0.01)
    rng = np.random.default_rng([args.seed, step])
    groups = torch.arange(len(frames)).view(-1, args.candidates)
    total, done = max(1, args.epochs * (len(groups) // args.batch)), 0
    for _ in range(args.epochs):
        losses, order = [], rng.permutation(len(groups))
        for some in order[: len(order) // args.batch * args.batch].reshape(-1, args.batch):
            rows = groups[some].flatten()
            for group in optimiser.param_groups:
                group["lr"] = args.rate * (1 - 0.5 * done / total)
            guess = network(frames[rows].float() / 255, [prompts[i] for i in rows])[:, 0]
            error = (guess - labels[rows]).view(-1, args.candidates)
            mean = error.mean(1, keepdim=True)
            loss = (error - mean).square().mean() + args.between * mean.square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            losses.append(loss.item())
            done += 1
    network.eval().requires_grad_(False)
    return float(np.mean(losses))


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-a of two rows of values, over the pairs that differ in ``b``."""
    pairs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    apart = np.triu(b[:, None] != b, 1)
    return float(pairs[apart].mean()) if apart.any() else math.nan


def measure(
    plain: FrameReward, students: dict[int, FrameReward], candidates: Candidates, size: int, units: int
) -> dict[str, dict[str, float]]:
    """Mean tau over groups of ``size`` rows for each step, plain and trained; first chunks only."""
    groups = [candidates[at : at + size] for at in range(0, len(candidates), size * units)]
    out = {}
    for step, student in students.items():
        rows = []
        for group in groups:
            prompt, frames = group[0][0], torch.stack([f for _, f in group])
            names = [prompt] * len(frames)
            final = scores(plain, frames[:, -1], names).numpy()
            truth = np.array([judge(f[None].float().numpy() / 255, prompt).value for f in frames[:, -1]])
            for reward in (plain, student):
                guess = scores(reward, frames[:, step - 1], names).numpy()
                rows.append((kendall(guess, final), kendall(guess, truth)))
        means = np.nanmean(np.array(rows).reshape(-1, 2, 2), axis=0).round(3)
        out[str(step)] = {
            "plain, reward": means[0, 0], "trained, reward": means[1, 0],
            "plain, judge": means[0, 1], "trained, judge": means[1, 1],
        }  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=pocket.path("video"))
    parser.add_argument("--images", action="store_true", help="one-frame videos instead of chunks")
    parser.add_argument("--steps", type=int, help="Euler steps (default: the model's own sampler)")
    parser.add_argument("--until", type=int, help="last step to train for (default: the last but one)")
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--candidates", type=int, default=8, help="candidates of a prompt")
    parser.add_argument("--chunks", type=int, default=2, help="chunks of a candidate")
    parser.add_argument("--epochs", type=int, default=6, help="of each step's stage")
    parser.add_argument("--batch", type=int, default=12, help="groups of a training step")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--between", type=float, default=0.1, help="weight of the groups' means in the loss")
    parser.add_argument("--order", choices=("clean-first", "noisy-first"), default="clean-first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few candidates, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.prompts, args.candidates, args.epochs, args.batch = 4, 3, 1, 2
    args.out.mkdir(parents=True, exist_ok=True)
    model = VideoModel.load(args.model)
    units = 1 if args.images else args.chunks
    frames = 1 if args.images else args.chunks * model.streaming.cache.chunk
    video = StreamingVideo(model, frames, model.streaming.euler(args.steps) if args.steps else None)
    rng = np.random.default_rng(args.seed)
    prompts = [sprites.split("train", 1 + i % 2)[rng.integers(len(sprites.split("train", 1 + i % 2)))]
               for i in range(args.prompts)]  # fmt: skip
    dev = [p for n in (1, 2) for p in sprites.split("dev", n)[:: 1 if n == 1 else 10][: 2 if args.smoke else 20]]
    began = time.time()
    cache = args.out / "candidates.pt"
    if cache.exists():
        pool, held_out = torch.load(cache, weights_only=True)
    else:
        pool, held_out = grow(video, prompts, args.candidates, args.seed), grow(video, dev, args.candidates, 10**6)
        torch.save([pool, held_out], cache)
    print(json.dumps({"candidates": len(pool), "seconds": round(time.time() - began)}), flush=True)

    plain = FrameReward.load(pocket.path("frame-reward"))
    names, pictures = [p for p, _ in pool], torch.stack([f for _, f in pool])
    labels = scores(plain, pictures[:, -1], names)
    student, students = FrameReward(deepcopy(plain.network)), {}
    steps = range(args.until or video.steps - 1, 0, -1)
    for step in steps if args.order == "clean-first" else reversed(steps):
        loss = train(student, pictures[:, step - 1], names, labels, args, step)
        print(json.dumps({"step": step, "loss": round(loss, 4), "seconds": round(time.time() - began)}), flush=True)
        student.save_pretrained(args.out / f"step-{step}")
        students[step] = FrameReward.load(args.out / f"step-{step}")  # measured as it is shipped, in half precision
    metrics = measure(plain, dict(sorted(students.items())), held_out, args.candidates, units)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for step, row in metrics.items():
        print(f"step {step}: " + "  ".join(f"{k} {v:.2f}" for k, v in row.items()))


if __name__ == "__main__":
    main()
