"""Train rewards that read a generator's unfinished candidates, by self-distillation along a curriculum (paper 04).

Candidates of ``pocket/video`` for training prompts are grown with nothing pruned; the clean estimate after every
denoising step is kept. A copy of a reward learns to give the estimate the score that the reward itself gives the
finished chunk (a frame reward: its last frame): first estimates of the last step but one, which are almost clean, then
those of the step before it, and so on; the weights go on from step to step, the optimiser is made anew (AdamW, linear
decay to half the rate, gradients clipped), and each step's weights are kept for that step.

The loss is a mean squared error in two parts: of each candidate's distance to the mean of its group (the candidates of
one chunk of one prompt), and, with weight ``--between``, of those means. With weight 1 it is the paper's plain error;
less of it leaves the network to the order in a group, which is all that pruning needs.

    python recipes/rewards/noise_aware.py --out work/preview-reward --euler-steps 8 [--reward CLIP_REWARD_FOLDER]
    python recipes/rewards/noise_aware.py --out work/image-preview-reward --images --euler-steps 20 --until 13

Writes ``step-1``, ``step-2``, ... (folders) and ``metrics.json``: for each step, on prompts of the dev split, Kendall's
tau between candidates of one prompt (mean, and its 95 % interval by prompt), of the plain and of the trained reward,
with the plain reward of the finished frame (``reward``) and with the world's judge of it (``judge``).
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from prunus import pocket
from prunus.generators.streaming_video import StreamingVideo
from prunus.generators.video_model import VideoModel
from prunus.reproductions.previews import pieces, taus
from prunus.rewards import ClipReward
from prunus.rewards.network_reward import NetworkReward
from prunus.rewards.noise_aware import kind_of
from prunus.worlds import sprites
from prunus.worlds.sprites.judge import judge

Candidates = list[tuple[str, torch.Tensor]]  # prompt, a chunk after each step: uint8 (steps, frames, 3, h, w)


def grow(video: StreamingVideo, prompts: list[str], candidates: int, seed: int) -> Candidates:
    """Whole candidates of each prompt; a row is a chunk of one, and the rows of one chunk stand together."""
    out: Candidates = []
    for at in range(0, len(prompts), 8):
        for prompt, lines in pieces(video, prompts[at : at + 8], candidates, seed + at):
            for depth in range(1, video.chunks + 1):
                for line in lines:
                    out.append((prompt, torch.stack([n.rendering for n in line if n.depth == depth])))
    return out


def read(reward: NetworkReward, clips: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """Scores (n,) of chunks uint8 (n, frames, 3, h, w): a clip reward's of all of it, a frame reward's of its end."""
    clips = clips if isinstance(reward, ClipReward) else clips[:, -1:]
    return reward.evaluate(list(clips.float() / 255), prompts)[:, 0]


@torch.no_grad()
def scores(reward: NetworkReward, clips: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    return torch.cat([read(reward, clips[i : i + 256], prompts[i : i + 256]) for i in range(0, len(clips), 256)])


def train(
    student: NetworkReward, frames: torch.Tensor, prompts: list[str], labels: torch.Tensor, args: argparse.Namespace,
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
            guess = read(student, frames[rows], [prompts[i] for i in rows])
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


def measure(
    plain: NetworkReward, students: dict[int, NetworkReward], candidates: Candidates, size: int, units: int
) -> dict[str, dict[str, list[float]]]:
    """Mean tau over groups of ``size`` rows for each step, plain and trained, with its interval; first chunks only."""
    groups = [candidates[at : at + size] for at in range(0, len(candidates), size * units)]
    frames = torch.stack([f for group in groups for _, f in group])  # (all, steps, frames, 3, h, w)
    names, shape = [name for group in groups for name, _ in group], (len(groups), size)
    truth = [judge(f.float().numpy() / 255, name).value for f, name in zip(frames[:, -1], names, strict=True)]
    targets = {"reward": scores(plain, frames[:, -1], names).numpy(), "judge": np.array(truth)}
    out: dict[str, dict[str, list[float]]] = {}
    for step, student in students.items():
        for reader, reward in (("plain", plain), ("trained", student)):
            readings = scores(reward, frames[:, step - 1], names).numpy().reshape(*shape, 1)
            for target, values in targets.items():
                [tau] = taus(readings, values.reshape(shape))
                if tau:
                    said = [round(x, 3) for x in (tau.mean, tau.low, tau.high)]
                    out.setdefault(str(step), {})[f"{reader}, {target}"] = said
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=pocket.path("video"))
    parser.add_argument("--images", action="store_true", help="one-frame videos instead of chunks")
    parser.add_argument("--euler-steps", type=int, help="Euler steps (default: the model's own sampler)")
    parser.add_argument(
        "--reward",
        type=Path,
        default=pocket.path("frame-reward"),
        help="to distil: a frame or a clip reward",
    )
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
    video = StreamingVideo(model, frames, model.streaming.euler(args.euler_steps) if args.euler_steps else None)
    rng = np.random.default_rng(args.seed)
    prompts = [sprites.split("train", 1 + i % 2)[rng.integers(len(sprites.split("train", 1 + i % 2)))]
               for i in range(args.prompts)]  # fmt: skip
    dev = [p for n in (1, 2) for p in sprites.split("dev", n)[:: 1 if n == 1 else 10][: 2 if args.smoke else 20]]
    began = time.time()
    kind = kind_of(args.reward)
    plain = kind.load(args.reward)
    cache = args.out / "candidates.pt"
    if cache.exists():
        pool, held_out = torch.load(cache, weights_only=True)
    else:
        pool, held_out = (
            grow(video, some, args.candidates, seed) for some, seed in ((prompts, args.seed), (dev, 10**6))
        )
        torch.save([pool, held_out], cache)
    print(json.dumps({"candidates": len(pool), "seconds": round(time.time() - began)}), flush=True)

    (args.out / "sampler.json").write_text(json.dumps(video.sampler.spec()) + "\n")
    names, pictures = [p for p, _ in pool], torch.stack([f for _, f in pool])
    labels = scores(plain, pictures[:, -1], names)
    student, students = kind(deepcopy(plain.network)), {}
    steps = range(args.until or video.steps - 1, 0, -1)
    for step in steps if args.order == "clean-first" else reversed(steps):
        loss = train(student, pictures[:, step - 1], names, labels, args, step)
        print(json.dumps({"step": step, "loss": round(loss, 4), "seconds": round(time.time() - began)}), flush=True)
        student.save_pretrained(args.out / f"step-{step}")
        students[step] = kind.load(args.out / f"step-{step}")  # measured as it is shipped, in half precision
    metrics = measure(plain, dict(sorted(students.items())), held_out, args.candidates, units)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for step, row in metrics.items():
        print(f"step {step}: " + "  ".join(f"{k} {v[0]:.2f} [{v[1]:.2f}, {v[2]:.2f}]" for k, v in row.items()))


if __name__ == "__main__":
    main()
