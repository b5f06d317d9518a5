"""Pools of candidates with what is read off their estimates, and pruned searches simulated on them (paper 04).

Candidates are grown once, with nothing pruned; after every denoising step the clean estimate is scored. Any schedule
and any budget can then be tried on the table without a network, as the paper does. A simulated search makes the choices
of a real one with the same candidates.

    python -m prunus.reproductions.previews --split dev --sprites 1 --euler-steps 8     # taus by step, with intervals
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import require
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.comparison import Interval, bootstrap
from prunus.roles import FunctionReward, Reward, View
from prunus.search import search_many
from prunus.strategies import BestOfN, PruneSchedule, TTSnap
from prunus.tree import Node
from prunus.worlds import sprites
from prunus.worlds.sprites.judge import judge

TOGETHER = 8  # prompts in a batch
PREVIEW = "noise-aware-reward"


@dataclass(frozen=True)
class Pool:
    """One-unit candidates (p prompts, n candidates, s steps): the finished ones' scores, and readings after each step.

    ``final`` (p, n) is the choosing reward's, ``judge`` (p, n) the world's; ``readings`` are (p, n, s) by name, NaN
    where a reward cannot read.
    """

    prompts: list[str]
    final: np.ndarray
    judge: np.ndarray
    readings: Mapping[str, np.ndarray]


def pieces(
    video: StreamingVideo, prompts: Sequence[str], candidates: int, seed: int
) -> list[tuple[str, list[list[Node]]]]:
    """For each prompt the candidates, whole and with nothing pruned: their nodes, one for each step of each unit."""
    every = PruneSchedule(tuple(range(1, video.steps)), (1.0,) * (video.steps - 1))
    level: list[Reward] = [FunctionReward(lambda *_: 0.0, name, View(1)) for name in ("final", PREVIEW)]
    strategy = TTSnap(BestOfN(candidates, reward="final"), every)
    trees = search_many(prompts, video, level, strategy, seeds=[seed + i for i in range(len(prompts))])
    for tree in trees:
        video.render([n for n in tree.nodes[1:] if n.rendering is None], View(1))  # units that were not scored
    return [(tree.prompt, [leaf.lineage for leaf in sorted(tree.finished, key=lambda n: n.path)]) for tree in trees]


def grow(
    video: StreamingVideo,
    prompts: Sequence[str],
    candidates: int,
    decider: Reward,
    readers: Mapping[str, Reward | Callable[[Any, str], float]],
    seed: int = 0,
) -> Pool:
    """The pool of ``prompts``, of videos of one unit. ``readers`` score estimates: rewards, or functions (judges)."""
    require(video.chunks == 1, "frames", video.frames, "one unit: a chunk, or one frame")
    final, truth = [], []
    readings: dict[str, list] = {name: [] for name in readers}
    for at in range(0, len(prompts), TOGETHER):
        for prompt, lines in pieces(video, prompts[at : at + TOGETHER], candidates, seed + at):
            shown = [[n.rendering.float() / 255 for n in line] for line in lines]
            ends = [line[-1] for line in shown]
            final.append(_values(decider, ends, prompt, video.steps))
            truth.append([judge(clip.numpy(), prompt).value for clip in ends])
            for name, reader in readers.items():
                by_step = [
                    _values(reader, [line[step] for line in shown], prompt, step + 1) for step in range(video.steps)
                ]
                readings[name].append(np.transpose(by_step))
    tables = {name: np.array(table) for name, table in readings.items()}
    return Pool(list(prompts), np.array(final), np.array(truth), tables)


def _values(reader: Reward | Callable[[Any, str], float], clips: Sequence[Any], prompt: str, step: int) -> list[float]:
    """What a reader says of the estimates after ``step`` steps; NaN if it was not made for that step."""
    if not isinstance(reader, Reward):
        return [reader(clip, prompt) for clip in clips]
    known = getattr(reader, "snapshots", None)
    if known is not None and step not in known:
        return [np.nan] * len(clips)
    contents = [(clip, step) for clip in clips] if reader.view.progress else list(clips)
    scores = reader.score(contents, [prompt] * len(clips))
    return [s if isinstance(s, float) else s.value for s in scores]


# ---- reading ---------------------------------------------------------------------------------------------------------


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-a of two rows of values, over the pairs that differ in ``b``; NaN if none does."""
    pairs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    apart = np.triu(b[:, None] != b, 1)
    return float(pairs[apart].mean()) if apart.any() else np.nan


def taus(readings: np.ndarray, target: np.ndarray) -> list[Interval | None]:
    """For each step, the mean over prompts of tau between the readings after it and ``target`` (p, n)."""
    out: list[Interval | None] = []
    for step in range(readings.shape[2]):
        each = [kendall(table[:, step], row) for table, row in zip(readings, target, strict=True)]
        known = [[tau] for tau in each if np.isfinite(tau)]
        readable = bool(known) and bool(np.isfinite(readings[:, :, step]).all())
        out.append(bootstrap(known) if readable else None)
    return out


# ---- searching on the table ------------------------------------------------------------------------------------------


def choose(readings: np.ndarray, final: np.ndarray, schedule: PruneSchedule | None) -> int:
    """The candidate that a search chooses from readings (n, s) and final scores (n,); None: best-of-n."""
    alive = np.arange(len(final))
    if schedule is not None:
        for stage, step in enumerate(schedule.after):
            kept = schedule.survivors(stage, len(alive))
            order = np.argsort(-readings[alive, step - 1], kind="stable")
            alive = np.sort(alive[order[:kept]])
    return int(alive[np.argmax(final[alive])])


def simulate(
    pool: Pool,
    reader: str | None,
    schedule: PruneSchedule | None,
    candidates: int,
    draws: int = 50,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Chosen candidates' (reward, judge) by prompt, (p,) each, over random subsets of the pool's candidates.

    Raises SettingError for more candidates than the pool has: subsets would be the whole pool every time.
    """
    most = pool.final.shape[1]
    require(1 <= candidates <= most, "candidates", candidates, f"at most the pool's {most}")
    rng = np.random.default_rng(seed)
    rewards, judged = [], []
    for p in range(len(pool.prompts)):
        readings = pool.readings[reader][p] if reader else pool.final[p][:, None]
        picked = []
        for _ in range(draws):
            some = rng.choice(most, candidates, replace=False)
            picked.append(some[choose(readings[some], pool.final[p][some], schedule)])
        rewards.append(pool.final[p][picked].mean())
        judged.append(pool.judge[p][picked].mean())
    return np.array(rewards), np.array(judged)


def area_gain(ours: Sequence[float], best_of_n: Sequence[float]) -> float:
    """Paper 04's metric, as found in its code: how much more area our reward-budget curve has above best-of-n's start.

    Both curves are on one even grid of an odd number of budgets; areas by Simpson's rule. 0.25 is 25 % more.
    """
    points = len(best_of_n)
    require(points >= 3 and points % 2 == 1, "budgets", points, "an odd number of at least 3")
    weights = np.array([1, *[4, 2] * ((points - 3) // 2), 4, 1])
    floor = best_of_n[0]
    mine, base = (float(weights @ (np.asarray(curve) - floor)) for curve in (ours, best_of_n))
    return (mine - base) / base


# ---- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    from prunus import pocket
    from prunus.rewards import ClipReward, FrameReward, NoiseAwareReward

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("dev", "report"), default="dev")
    parser.add_argument("--sprites", type=int, choices=(1, 2), default=1)
    parser.add_argument("--limit", type=int, default=20, help="prompts")
    parser.add_argument("--candidates", type=int, default=16, help="of each prompt")
    parser.add_argument("--frames", type=int, help="1 for images (default: a chunk)")
    parser.add_argument("--euler-steps", type=int, help="Euler steps (default: the model's own sampler)")
    parser.add_argument("--preview", type=Path, help="folder of a noise-aware reward")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = StreamingVideo.load(pocket.path("video")).model
    sampler = model.streaming.euler(args.euler_steps) if args.euler_steps else None
    video = StreamingVideo(model, args.frames or model.streaming.cache.chunk, sampler)
    known = sprites.split(args.split, args.sprites)
    count = min(args.limit, len(known))
    prompts = [known[i * len(known) // count] for i in range(count)]
    plain = FrameReward.load(pocket.path("frame-reward"))
    readers: dict[str, Any] = {"judge": lambda clip, prompt: judge(clip.numpy(), prompt).value, "frame reward": plain}
    if video.chunk_frames > 1:
        readers["clip reward"] = ClipReward.load(pocket.path("clip-reward"))
    if args.preview:
        readers["noise-aware"] = NoiseAwareReward.load(args.preview)
    pool = grow(video, prompts, args.candidates, plain, readers, args.seed)
    print(json.dumps({"judge of one": pool.judge.mean().round(3), "prompts": len(prompts), **vars(args)}, default=str))
    for name, table in pool.readings.items():
        for target, values in (("judge", pool.judge), ("reward", pool.final)):
            said = [f"{t.mean:.2f} [{t.low:.2f}, {t.high:.2f}]" if t else "-" for t in taus(table, values)]
            print(f"{name} of the estimate, {target} of the finished: " + "  ".join(said))


if __name__ == "__main__":
    main()
