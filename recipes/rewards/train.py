"""Train the pocket rewards from preferences between candidates, and measure them on the decisions of a search.

Bradley-Terry: the better of two candidates wins with probability sigmoid(s_better - s_worse), for every output of the
network and every pair of a group for which there is a (noisy) preference; the loss is the mean negative logarithm.
Exact scores are never trained on. First the frame reward, on the candidates' last frames; then the clip reward, which
starts from the frame reward's eyes. At the end outputs are standardised over training candidates.

    python recipes/rewards/train.py --candidates work/candidates --out work/rewards     # resumable: run it again
    python recipes/rewards/train.py --candidates work/images --out work/image --images --start-from FRAME_REWARD

Writes ``frame-reward``, ``clip-reward`` (folders), ``metrics.json`` (below, on dev candidates) and ``log.jsonl``; with
``--images`` only the frame reward is trained, on one-frame candidates:

- agreement: share of sibling pairs, at least 0.05 apart by the judge on the clip so far, that the reward orders alike;
- regret: the judge's score of the best sibling minus that of the reward's choice; random_regret: of a random one's;
- spread: the judge's standard deviation among siblings. Where it is small, search has nothing to choose from.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from candidates import RESPECTS, Group, load

from prunus.rewards import ClipReward, FrameReward
from prunus.rewards.networks import ClipNetwork, FrameNetwork, RewardNetwork
from prunus.worlds import sprites

APART = 0.05  # pairs that the judge holds closer do not count in the agreement
CENTRE = 1e-3  # weight of the squared scores: pairs alone would let them drift
CHUNK = 3

Forward = Callable[[Sequence[Group]], torch.Tensor]


def vocabulary() -> list[str]:
    return ["a", *sprites.COLOURS, *sprites.SHAPES, *dict.fromkeys(w for m in sprites.MOTIONS for w in m.split())]


def forward_images(network: FrameNetwork) -> Forward:
    """The last frame of every candidate."""

    def forward(groups: Sequence[Group]) -> torch.Tensor:
        images = torch.stack([clip[-1] for g in groups for clip in g.clips]).float() / 255
        return network(images, [g.prompt for g in groups for _ in g.clips])

    return forward


def forward_clips(network: ClipNetwork) -> Forward:
    def forward(groups: Sequence[Group]) -> torch.Tensor:
        return network([c.float() / 255 for g in groups for c in g.clips], [g.prompt for g in groups for _ in g.clips])

    return forward


def preference_loss(scores: torch.Tensor, preferences: Sequence[torch.Tensor]) -> torch.Tensor:
    """scores (candidates of all groups, outputs); preferences: one (outputs, n, n) for each group."""
    losses = []
    for mine, preferred in zip(scores.split([p.shape[-1] for p in preferences]), preferences, strict=True):
        gap = mine.T[:, :, None] - mine.T[:, None, :]
        losses.append(F.softplus(-gap)[preferred > 0])
    return torch.cat(losses).mean() + CENTRE * scores.square().mean()


def train(
    network: RewardNetwork,
    forward: Forward,
    respects: Sequence[str],
    pools: Sequence[list[Group]],
    args: argparse.Namespace,
    name: str,
    steps: int,
    batch: int,
) -> None:
    """Each step draws ``batch`` groups, the same number from each pool. Goes on from its checkpoint."""
    columns = [RESPECTS.index(r) for r in respects]
    checkpoint = args.out / f"{name}.pt"
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.02)
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
    began, losses = time.time(), []
    for step in range(start, steps):
        for settings in optimiser.param_groups:
            settings["lr"] = args.rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        rng = np.random.default_rng([args.seed, step])
        groups = [pools[i % len(pools)][rng.integers(len(pools[i % len(pools)]))] for i in range(batch)]
        scores = forward(groups)
        loss = preference_loss(scores, [g.preferences[columns] for g in groups])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            entry = {"reward": name, "step": step + 1, "loss": round(float(np.mean(losses)), 4)}
            entry["seconds"] = round(time.time() - began)
            losses = []
            print(json.dumps(entry), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if (step + 1) % 200 == 0 or step + 1 == steps:
            state = {"model": network.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)


@torch.no_grad()
def standardise(network: RewardNetwork, forward: Forward, groups: Sequence[Group]) -> None:
    """Mean 0 and deviation 1 of every output over these candidates."""
    scores = torch.cat([forward([g]) for g in groups])
    network.config["normalisation"] = {
        name: [round(column.mean().item(), 5), round(column.std().item(), 5)]
        for name, column in zip(network.outputs, scores.T, strict=True)
    }


def measure(values: Sequence[torch.Tensor], groups: Sequence[Group], respect: str) -> dict[str, float]:
    """The reward's values (siblings,) of each group against the judge's scores in one respect."""
    agreed, regrets, random, spreads = [], [], [], []
    for value, group in zip(values, groups, strict=True):
        truth = group.scores[: group.siblings, RESPECTS.index(respect)]
        gap = truth[:, None] - truth[None]
        agreed.append((value[:, None] > value[None])[gap >= APART])
        regrets.append(truth.max() - truth[value.argmax()])
        random.append(truth.max() - truth.mean())
        spreads.append(truth.std(unbiased=False))
    pairs = torch.cat(agreed).float()
    return {
        "agreement": round(pairs.mean().item(), 4),
        "pairs": len(pairs),
        "regret": round(torch.stack(regrets).mean().item(), 4),
        "random_regret": round(torch.stack(random).mean().item(), 4),
        "spread": round(torch.stack(spreads).mean().item(), 4),
        "groups": len(groups),
    }


def report(frame: FrameReward, clip: ClipReward | None, groups: list[Group]) -> dict[str, dict[str, float]]:
    """Both rewards as a search uses them: the new chunk's frames, and the clip so far; None: images."""
    short, long = [], []
    for g in groups:
        clips, prompts = [c.float() / 255 for c in g.clips[: g.siblings]], [g.prompt] * g.siblings
        short.append(torch.tensor([s.value for s in frame.score([c[-CHUNK:] for c in clips], prompts)]))
        if clip is None:
            continue
        rows = clip.score(clips, prompts)
        long.append({"overall": [s.value for s in rows]} | {r: [s.parts[r] for s in rows] for r in RESPECTS[1:4]})
    out = {"frame (image)": measure(short, groups, "image"), "frame (overall)": measure(short, groups, "overall")}
    if clip is None:
        return out
    for respect in RESPECTS[:4]:
        out[f"clip ({respect})"] = measure([torch.tensor(x[respect]) for x in long], groups, respect)
    first = [i for i, g in enumerate(groups) if len(g.clips[0]) == CHUNK]
    later = [i for i, g in enumerate(groups) if len(g.clips[0]) > CHUNK]
    for when, rows in (("first chunk", first), ("later chunks", later)):
        if rows:
            values = [torch.tensor(long[i]["overall"]) for i in rows]
            out[f"clip (overall), {when}"] = measure(values, [groups[i] for i in rows], "overall")
    return out


def widened(eyes: dict[str, torch.Tensor], reader: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The frame reward's eyes for a reader that sees more colours, which count for nothing at first."""
    state = {name: torch.zeros_like(value) for name, value in reader.state_dict().items()}
    for name, value in eyes.items():
        state[name][tuple(map(slice, value.shape))] = value
    return state


def train_clip_reward(eyes: FrameNetwork, pools: Sequence[list[Group]], args: argparse.Namespace) -> ClipReward:
    """The clip reward, from the frame reward's eyes; saved."""
    whole = ClipNetwork(vocabulary())
    whole.prompts.load_state_dict(eyes.prompts.state_dict())
    whole.reader.load_state_dict(widened(eyes.reader.state_dict(), whole.reader))
    train(whole, forward_clips(whole), whole.outputs, pools, args, "clip-reward", args.clip_steps, args.batch)
    standardise(whole, forward_clips(whole), pools[0][:200])
    ClipReward(whole).save_pretrained(args.out / "clip-reward")
    return ClipReward.load(args.out / "clip-reward")


def preferring(groups: Sequence[Group], pairs: int = 3) -> list[Group]:
    """Without the groups whose candidates are all alike: they teach next to nothing and take as long as the others."""
    return [g for g in groups if (g.preferences[0] > 0).sum() >= pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frame-steps", type=int, default=1600)
    parser.add_argument("--clip-steps", type=int, default=2600)
    parser.add_argument("--images", action="store_true", help="train the frame reward alone, on one-frame candidates")
    parser.add_argument("--start-from", type=Path, help="a frame reward whose weights to start from")
    parser.add_argument("--batch", type=int, default=8, help="groups a step of the clip reward; four times for frames")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.frame_steps, args.clip_steps, args.batch = 3, 3, 2
    args.out.mkdir(parents=True, exist_ok=True)
    kinds = ("siblings", "renderings")
    pools = [pool for kind in kinds if (pool := preferring(load(args.candidates, f"{kind}-train-*.safetensors")))]
    if not pools:
        parser.error(f"{args.candidates} has no training candidates; make them with recipes/rewards/candidates.py")
    print(json.dumps({"training groups": [len(p) for p in pools]}), flush=True)

    torch.manual_seed(args.seed)
    eyes = FrameReward.load(args.start_from).network.train() if args.start_from else FrameNetwork(vocabulary())
    eyes.requires_grad_(True)
    eyes.config["normalisation"] = {"overall": [0.0, 1.0]}
    train(eyes, forward_images(eyes), ["image"], pools, args, "frame-reward", args.frame_steps, 4 * args.batch)
    standardise(eyes, forward_images(eyes), pools[0][:200])
    FrameReward(eyes).save_pretrained(args.out / "frame-reward")
    # Measured as they are shipped, in half precision.
    frame, clip = FrameReward.load(args.out / "frame-reward"), None
    if not args.images:
        clip = train_clip_reward(eyes, pools, args)
    metrics = {
        kind: report(frame, clip, groups)
        for kind in kinds
        if (groups := load(args.candidates, f"{kind}-dev-*.safetensors"))
    }
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for kind, rows in metrics.items():
        for name, row in rows.items():
            print(f"{kind:10s} {name:28s} " + "  ".join(f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
