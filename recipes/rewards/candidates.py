"""Make the candidates on which the pocket rewards are trained and measured, with preferences between them.

Two kinds, in groups that a search would have to choose from:

- ``renderings``: several imperfect drawings of one scene (``imperfections.py``), cut to a random length, a tenth of
  them a window of 30 frames out of a longer clip.
- ``siblings``: the children of one parent, grown by a beam search with the generator itself, one group for each chunk
  of each prompt. The parent is in the group too: Stream-T1's gates compare a candidate with its parent.

The world's judge looks at the clip so far and at its last frame as an image, and says which of two candidates of a
group is better, in each of five respects; ten of a hundred answers are flipped. Rewards are trained on these answers
alone. The judge's scores are kept for measuring. Training prompts have no held-out colour-shape pair.

    python recipes/rewards/candidates.py renderings --split train --groups 1500 --out work/candidates
    python recipes/rewards/candidates.py siblings --model src/prunus/pocket/video --split train --out ...
    python recipes/rewards/candidates.py siblings --model ... --frames 1 --euler-steps 20 --branch 8 --out work/images

Files are written one by one, each from its own seed: run a command again to go on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from imperfections import draw
from safetensors import safe_open
from safetensors.torch import save_file

from prunus import Reward, Score, View, search_many
from prunus.strategies import Beam
from prunus.worlds import sprites
from prunus.worlds.sprites.judge import judge

RESPECTS = ("overall", "visual", "motion", "text", "image")
FLIPPED = 0.1  # of the preferences
TIE = 0.01  # judge scores closer than this are no preference
WINDOW = 30  # frames that the clip reward reads at most
GROUPS_A_FILE, PROMPTS_A_FILE = 50, 8


@dataclass
class Group:
    """Candidates of one prompt. The first ``siblings`` of them have one parent and one length."""

    prompt: str
    clips: list[torch.Tensor]
    """What the clip reward reads of each: uint8 (f, 3, 64, 64)."""
    scores: torch.Tensor
    """The judge's, (n, 5) by ``RESPECTS``."""
    siblings: int
    preferences: torch.Tensor
    """int8 (5, n, n): 1 where the row's candidate is said to be better, -1 where the column's, 0 for ties."""


def judged(video: np.ndarray, prompt: str) -> list[float]:
    """The judge's scores by ``RESPECTS`` of a clip from its start, float32 (f, 3, 64, 64).

    visual is the geometric mean of cleanliness and shape, motion that of motion, smoothness and persistence, text the
    mean over sprites of the geometric mean of colour, shape and motion; image is the score of the last frame.
    """
    score = judge(video, prompt)
    part = score.parts
    return [
        score.value,
        (part["cleanliness"] * part["shape"]) ** (1 / 2),
        (part["motion"] * part["smoothness"] * part["persistence"]) ** (1 / 3),
        part["sprites"],
        judge(video[-1:], prompt).value,
    ]


def noisy_preferences(scores: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Preferences int8 (5, n, n), antisymmetric, each flipped with probability FLIPPED."""
    gap = scores.T[:, :, None] - scores.T[:, None, :]
    flips = torch.from_numpy(np.where(rng.random(gap.shape) < FLIPPED, -1, 1))
    upper = (gap.sign() * (gap.abs() > TIE) * flips).triu(1)
    return (upper - upper.transpose(1, 2)).to(torch.int8)


def to_bytes(video: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.rint(video * 255).astype(np.uint8))


# ---- renderings ------------------------------------------------------------------------------------------------------


def rendered_group(rng: np.random.Generator, split: str, size: int = 6) -> Group:
    scene = sprites.sample(rng, split_name=split)
    frames = int(rng.choice([3, 3, 6, 6, 9, 12, 15, 18, 21])) if rng.random() < 0.9 else 3 * int(rng.integers(11, 31))
    clips, scores, severity = [], [], rng.random()
    for i in range(size):
        perfect = i == 0 and rng.random() < 0.5
        clip = to_bytes(sprites.render(scene, frames) if perfect else draw(scene, rng, frames, severity))
        scores.append(judged(clip.numpy().astype(np.float32) / 255, scene.prompt))
        clips.append(clip[-WINDOW:].clone())
    table = torch.tensor(scores)
    return Group(scene.prompt, clips, table, size, noisy_preferences(table, rng))


# ---- siblings --------------------------------------------------------------------------------------------------------


class NoisyJudge(Reward):
    """Keeps the judge's scores for the labels and chooses survivors by them with some noise.

    So parents are about as good as those that a search with a learned reward would keep, and not all alike.
    """

    name = "noisy-judge"
    view = View(None)

    def __init__(self, seed: int, noise: float = 0.1) -> None:
        self.rng, self.noise = np.random.default_rng(seed), noise

    def score(self, contents, prompts):
        out = []
        for video, prompt in zip(contents, prompts, strict=True):
            scores = judged(video.numpy(), prompt)
            value = scores[0] + self.noise * self.rng.standard_normal()
            out.append(Score(value, dict(zip(RESPECTS, scores, strict=True))))
        return out


def sibling_groups(generator, prompts: list[str], branch: int, seed: int) -> list[Group]:
    """One group for each chunk of each prompt."""
    rng = np.random.default_rng([seed, 1])
    groups = []
    seeds = [seed * 1000 + i for i in range(len(prompts))]
    for tree in search_many(prompts, generator, NoisyJudge(seed), Beam(keep=1, branch=branch), seeds=seeds):
        for parent in [n for n in tree.nodes if tree.children(n)]:
            siblings = [n for n in tree.children(parent) if n.scores]
            members = siblings + ([parent] if parent is not tree.root else [])
            scores = torch.tensor([[n.scores["noisy-judge"].parts[r] for r in RESPECTS] for n in members])
            clips = [torch.cat([m.rendering for m in n.lineage])[-WINDOW:] for n in members]
            groups.append(Group(tree.prompt, clips, scores, len(siblings), noisy_preferences(scores, rng)))
    return groups


# ---- files -----------------------------------------------------------------------------------------------------------


def save(groups: list[Group], path: Path) -> None:
    tensors = {}
    for i, g in enumerate(groups):
        tensors |= {
            f"{i}.frames": torch.cat(g.clips).contiguous(),
            f"{i}.lengths": torch.tensor([len(c) for c in g.clips]),
        }
        tensors |= {f"{i}.scores": g.scores, f"{i}.preferences": g.preferences.contiguous()}
    about = {"prompts": json.dumps([g.prompt for g in groups]), "siblings": json.dumps([g.siblings for g in groups])}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path.with_suffix(".tmp"), about)
    path.with_suffix(".tmp").replace(path)


def load(folder: Path, pattern: str) -> list[Group]:
    """All groups of the files that match."""
    groups = []
    for path in sorted(folder.glob(pattern)):
        with safe_open(path, "pt") as file:
            about = file.metadata()
            for i, (prompt, siblings) in enumerate(
                zip(json.loads(about["prompts"]), json.loads(about["siblings"]), strict=True)
            ):
                clips = file.get_tensor(f"{i}.frames").split(file.get_tensor(f"{i}.lengths").tolist())
                scores, preferences = file.get_tensor(f"{i}.scores"), file.get_tensor(f"{i}.preferences")
                groups.append(Group(prompt, list(clips), scores, siblings, preferences))
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("renderings", "siblings"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "dev"), default="train")
    parser.add_argument("--groups", type=int, default=1500, help="renderings: how many groups of six")
    parser.add_argument("--model", type=Path, help="siblings: the generator's folder")
    parser.add_argument("--prompts", type=int, default=128, help="siblings: how many prompts, seven groups each")
    parser.add_argument("--branch", type=int, default=6, help="siblings: candidates in a group")
    parser.add_argument("--frames", type=int, default=sprites.SHORT, help="siblings: 1 for images")
    parser.add_argument("--euler-steps", type=int, help="siblings: Euler steps (default: the model's own sampler)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few candidates, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.groups, args.prompts, args.branch, args.frames = 4, 2, 3, 6
    if args.kind == "siblings":
        if args.model is None:
            parser.error("siblings need --model, the generator's folder")
        from prunus.commands.models import load_generator

        generator = load_generator(args.model, args.frames, "cpu", "float32", args.euler_steps)
        # Every other prompt has one sprite.
        rng = np.random.default_rng(args.seed)
        shuffled = [rng.permutation(sprites.split(args.split, sprites=n)).tolist() for n in (1, 2)]
        prompts = [shuffled[i % 2][i // 2 % len(shuffled[i % 2])] for i in range(args.prompts)]
    total, each = (args.groups, GROUPS_A_FILE) if args.kind == "renderings" else (args.prompts, PROMPTS_A_FILE)
    began = time.time()
    for file in range(-(-total // each)):
        path = args.out / f"{args.kind}-{args.split}-{args.seed}-{file:03d}.safetensors"
        if path.exists():
            continue
        number = file + (0 if args.split == "train" else 10**6)
        if args.kind == "renderings":
            rng = np.random.default_rng([args.seed, number])
            groups = [rendered_group(rng, args.split) for _ in range(min(each, total - file * each))]
        else:
            mine = prompts[file * each : (file + 1) * each]
            groups = sibling_groups(generator, mine, args.branch, args.seed * 10**7 + number)
        save(groups, path)
        spread = float(np.mean([g.scores[: g.siblings, 0].std(unbiased=False) for g in groups]))
        mean = float(np.mean([g.scores[: g.siblings, 0].mean() for g in groups]))
        entry = {"file": path.name, "groups": len(groups), "judge": round(mean, 3), "spread": round(spread, 3)}
        print(json.dumps(entry | {"seconds": round(time.time() - began)}), flush=True)


if __name__ == "__main__":
    main()
