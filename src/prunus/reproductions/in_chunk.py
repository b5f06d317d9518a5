"""Stream-T1 whose chunks are pruned while they are denoised: judge's score against forwards, for several budgets.

    python -m prunus.reproductions.in_chunk --split dev --out work/in-chunk --chart work/in-chunk.png

All methods run with the same sampler, Euler steps that keep their noise: with fresh noise estimates foretell too little
(``previews.py``). After the first chunk one line goes on: later siblings hardly differ here, and a second line costs
more than it gains (``docs/evidence/stream-t1.md``). The few-step rows have the model's own sampler.
``--out`` gets a file for each row; run the command again to go on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from prunus import __version__, pocket
from prunus.budget import Cost
from prunus.generators.streaming_video import StreamingVideo
from prunus.reproductions.comparison import Interval, Outcome, bootstrap, by_prompt, run_method
from prunus.reproductions.report_split import count_run
from prunus.roles import Reward, Strategy
from prunus.strategies import Beam, BestOfN, PruneSchedule, StreamT1, TTSnap
from prunus.worlds import sprites
from prunus.worlds.sprites.judge import judge

EULER_STEPS = 8
SCHEDULE = PruneSchedule(after=(4, 6), keep=(0.5, 0.25))
"""Chosen on the dev split."""
FIRST, FIRST_PRUNED = (4, 8, 16, 32), (6, 12, 24, 48)
"""Candidates of the first chunk: of beam and Stream-T1, and of pruned ones for about as many forwards."""
FEW = "few steps: "
DECIDER, SHORT = "clip-reward", "frame-reward"


def methods(preview: str) -> dict[str, Strategy]:
    """The rows of the table, by name; names of one method differ behind a comma only."""
    rows: dict[str, Strategy] = {"plain": BestOfN(1, DECIDER)}
    rows |= {f"best-of-n, {n}": BestOfN(n, DECIDER) for n in (2, 4)}
    rows |= {f"beam, {n}": Beam(1, 1, n, DECIDER) for n in FIRST}
    stream = {n: StreamT1(first=n, keep=1, branch=1) for n in (*FIRST, *FIRST_PRUNED)}
    rows |= {f"Stream-T1, {n}": stream[n] for n in FIRST}
    rows |= {"Stream-T1, 16 and two lines": StreamT1(first=16, keep=2, branch=1)}
    rows |= {f"Stream-T1 + in-chunk, {n}": TTSnap(stream[n], SCHEDULE, preview) for n in FIRST_PRUNED}
    rows |= {f"{FEW}plain": BestOfN(1, DECIDER)}
    rows |= {
        f"{FEW}Stream-T1, 16": StreamT1(first=16, keep=1, branch=1),
        f"{FEW}Stream-T1, 16 and two lines": rows["Stream-T1, 16 and two lines"],
    }
    return rows


def run(
    name: str,
    strategy: Strategy,
    rewards: Sequence[Reward],
    videos: dict[bool, StreamingVideo],
    jobs: Sequence[tuple[str, range]],
    folder: Path,
) -> list[Outcome]:
    """The outcomes of a row, read from its file or run and written. ``jobs`` are prompts with their seeds."""
    path = folder / f"{name.replace(' ', '-').replace(',', '').replace(':', '')}.json"
    if path.exists():
        read = json.loads(path.read_text())
        return [Outcome(**{**o, "cost": Cost(**o["cost"]), "path": tuple(o["path"])}) for o in read]
    wanted = [r for r in rewards if r.name in strategy.reads]
    video, found = videos[name.startswith(FEW)], []
    for seeds in dict.fromkeys(s for _, s in jobs):
        prompts = [p for p, s in jobs if s == seeds]
        found += run_method(prompts, seeds, video, wanted, strategy, DECIDER, lambda v, p: judge(v.numpy(), p).value)
    path.with_suffix(".tmp").write_text(json.dumps([asdict(o) for o in found]))
    path.with_suffix(".tmp").replace(path)
    return found


def compared(ours: Sequence[Outcome], baseline: Sequence[Outcome], sprites_named: int | None = None) -> Interval:
    """The paired difference of the judge's scores, ours minus baseline; of prompts with so many sprites, if given."""
    mine, base = scores(ours, sprites_named), scores(baseline)
    return bootstrap(by_prompt({key: score - base[key] for key, score in mine.items()}))


def mean(outcomes: Sequence[Outcome], sprites_named: int | None = None) -> Interval:
    return bootstrap(by_prompt(scores(outcomes, sprites_named)))


def scores(outcomes: Sequence[Outcome], sprites_named: int | None = None) -> dict[tuple[str, int], float]:
    """The judge's scores by prompt and seed."""
    wanted = [o for o in outcomes if sprites_named in (None, 1 + (" and a " in o.prompt))]
    return {(o.prompt, o.seed): o.judge for o in wanted if o.judge is not None}


def nfe(outcomes: Sequence[Outcome]) -> float:
    return sum(o.cost.nfe for o in outcomes) / len(outcomes)


def table(outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Markdown: every row's judge on all, one-sprite and two-sprite prompts, forwards and FLOPs a video."""
    lines = ["| method | judge, all | one sprite | two sprites | NFE | TFLOPs |", "|---|---|---|---|---|---|"]
    for name, some in outcomes.items():
        cells = [said(mean(some, n)) if scores(some, n) else "" for n in (None, 1, 2)]
        flops = sum(o.cost.flops for o in some) / len(some) / 1e12
        lines.append(f"| {name} | {' | '.join(cells)} | {nfe(some):.0f} | {flops:.3f} |")
    return lines


def said(value: Interval, sign: bool = False) -> str:
    kind = "+.3f" if sign else ".3f"
    return f"{value.mean:{kind}} [{value.low:{kind}}, {value.high:{kind}}]".replace("-", "\u2212")


def draw(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    from prunus.report.curves import Curve, write_curves

    curves = []
    for method in ("plain", "best-of-n", "beam", "Stream-T1", "Stream-T1 + in-chunk"):
        points = [n for n in outcomes if n.partition(",")[0] == method and "two lines" not in n]
        if method == "best-of-n":
            points = ["plain", *points]  # n = 1
        curves.append(Curve(method, [mean(outcomes[n]) for n in points], [nfe(outcomes[n]) for n in points]))
    write_curves(path, curves, "judge", "network forwards (NFE) a video")


def main() -> None:
    from prunus.rewards import ClipReward, FrameReward, NoiseAwareReward

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("dev", "report"), default="dev")
    parser.add_argument("--one", type=int, default=20, help="one-sprite prompts, two seeds each")
    parser.add_argument("--two", type=int, default=80, help="two-sprite prompts")
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--preview", type=Path, default=pocket.path("preview-reward"))
    parser.add_argument("--only", help="rows whose names contain this")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chart", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[str, range]] = []
    for number, limit, seeds in ((1, args.one, range(2)), (2, args.two, range(1))):
        known = sprites.split(args.split, number)
        count = min(limit, len(known))
        jobs += [(known[i * len(known) // count], seeds) for i in range(count)]
    model = StreamingVideo.load(pocket.path("video")).model
    videos = {
        True: StreamingVideo(model, args.frames),
        False: StreamingVideo(model, args.frames, model.streaming.euler(EULER_STEPS)),
    }
    preview = NoiseAwareReward.load(args.preview)
    rewards = [FrameReward.load(pocket.path(SHORT)), ClipReward.load(pocket.path(DECIDER)), preview]
    if args.split == "report":
        about = {"prunus": __version__, "model": str(pocket.path("video").resolve()), "frames": args.frames}
        print(f"run {count_run(about, ['in-chunk'])} on the report split with this version and model")
    outcomes = {}
    for name, strategy in methods(preview.name).items():
        if args.only is None or args.only in name:
            outcomes[name] = run(name, strategy, rewards, videos, jobs, args.out)
            print(f"{name}: {said(mean(outcomes[name]))}, {nfe(outcomes[name]):.0f} NFE", flush=True)
    print("\n".join(["", *table(outcomes), ""]))
    for ours, baseline in (
        ("Stream-T1 + in-chunk, 6", "Stream-T1, 4"),
        ("Stream-T1 + in-chunk, 6", "Stream-T1, 8"),
        ("Stream-T1 + in-chunk, 12", "Stream-T1, 16"),
        ("Stream-T1 + in-chunk, 12", "Stream-T1, 16 and two lines"),
        ("Stream-T1 + in-chunk, 12", "Stream-T1, 8"),
        ("Stream-T1 + in-chunk, 24", "Stream-T1, 16"),
        ("Stream-T1 + in-chunk, 48", "Stream-T1, 32"),
        ("Stream-T1 + in-chunk, 12", f"{FEW}Stream-T1, 16 and two lines"),
        ("Stream-T1, 8", f"{FEW}Stream-T1, 16 and two lines"),
    ):
        if ours in outcomes and baseline in outcomes:
            less = 1 - nfe(outcomes[ours]) / nfe(outcomes[baseline])
            differences = [said(compared(outcomes[ours], outcomes[baseline], n), sign=True) for n in (None, 1, 2)]
            print(f"{ours} against {baseline}: {less:.0%} fewer forwards; all, one, two: {'; '.join(differences)}")
    if args.chart:
        draw(outcomes, args.chart)


if __name__ == "__main__":
    main()
