"""``prunus image``: an image by search over noise seeds, next to the one that the model makes without it (paper 04).

An image is a video of one frame, denoised in 20 Euler steps: the model's own few leave nothing to prune.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus import __version__, pocket
from prunus.budget import Budget
from prunus.commands.display import Show, number, print_table
from prunus.commands.methods import find_reward, packaged
from prunus.commands.models import check_prompts, judge, load_generator
from prunus.commands.output import Output, write_json
from prunus.errors import SettingError, require
from prunus.roles import CHUNK, Reward
from prunus.search import search
from prunus.strategies import BestOfN, PruneSchedule, TTSnap
from prunus.tree import Tree

if TYPE_CHECKING:
    from prunus.generators.streaming_video import StreamingVideo

STEPS = 20  # of paper 04; the packaged preview reward reads their estimates
SCHEDULE = PruneSchedule(after=(8,), keep=(0.3,))
"""Of those tried the best for the packaged model (``prunus reproduce 04``); the paper's is the class's default."""
METHODS = ("ttsnap", "best-of-n", "plain")


@dataclass(frozen=True)
class Images:
    """The model of ``folder`` for images, with the reward that chooses and the one that prunes."""

    generator: StreamingVideo
    final: Reward
    preview: Reward

    @classmethod
    def load(cls, folder: Path, reward: str | None, device: str, dtype: str) -> Images:
        generator = load_generator(folder, 1, device, dtype, STEPS)
        final = find_reward(reward, CHUNK) if reward else packaged("frame", 1, device)
        return cls(generator, final, packaged("image-preview", 1, device))

    def search(self, prompt: str, method: str, n: int, seed: int, budget: Budget | None = None) -> Tree:
        if method == "ttsnap":
            strategy = TTSnap(BestOfN(n, self.final.name), SCHEDULE, self.preview.name)
            return search(prompt, self.generator, [self.final, self.preview], strategy, seed=seed, budget=budget)
        plain = BestOfN(1 if method == "plain" else n, self.final.name)
        return search(prompt, self.generator, self.final, plain, seed=seed, budget=budget)


def image(
    prompt: str, *, method: str, n: int | None, seed: int, model: Path | None, budget: str | None,
    rewards: Sequence[str], device: str, dtype: str, out: Path | None, force: bool, show: Show,
) -> dict[str, Any]:  # fmt: skip
    """Make the image; returns what ``--json`` prints. ``n`` is the number of seeds: 32 (paper 04), of best-of-n 10."""
    if method not in METHODS:
        raise SettingError(f"method {method!r} is unknown; take one of {', '.join(METHODS)}")
    if method == "plain" and n is not None:
        raise SettingError("--n is not an option of plain, which makes one image; leave it out")
    if len(rewards) > 1:
        raise SettingError(f"--reward is given {len(rewards)} times; an image has one, which chooses")
    seeds = n if n is not None else (32 if method == "ttsnap" else 10)
    require(seeds >= 1, "n", seeds, "at least 1")
    limits = Budget.parse(budget) if budget else None
    folder = (model or pocket.path("video")).resolve()
    with Output(out, force, kind="image") as output:
        show.say(f"loading {folder}")
        images = Images.load(folder, next(iter(rewards), None), device, dtype)
        check_prompts(images.generator, [prompt])
        show.say(f"{method}: {1 if method == 'plain' else seeds} seeds, {STEPS} steps")
        tree = images.search(prompt, method, seeds, seed, limits)
        plain = images.search(prompt, "plain", 1, seed)
        output.claim({"kind": "image", "prompt": prompt, "method": method, "seed": seed, "prunus": __version__})
        return _write(tree, plain, method, images, output.folder)


def _write(tree: Tree, plain: Tree, method: str, images: Images, folder: Path) -> dict[str, Any]:
    from prunus.report.contact_sheet import contact_sheet
    from prunus.report.media import write_image, write_images_side_by_side

    both = {"plain": plain, "chosen": tree}
    frames = {name: t.best().output for name, t in both.items()}
    write_image(folder / "image.png", frames["chosen"])
    write_image(folder / "plain.png", frames["plain"])
    write_images_side_by_side(folder / "side-by-side.png", frames["plain"], frames["chosen"], ("plain", method))
    contact_sheet(tree, folder / "contact-sheet.png")
    tree.save(folder)
    world = images.generator.model.streaming.world
    result: dict[str, Any] = {
        "prunus": __version__, "folder": str(folder), "prompt": tree.prompt, "method": method, "seed": tree.seed,
        "settings": tree.spec["strategy"], "reward": images.final.name,
    }  # fmt: skip
    for name, t in both.items():
        verdict, cost = judge(world, frames[name], t.prompt), t.spent.total
        result[name] = {
            "judge": verdict.value if verdict else None, "reward": t.best().scores[images.final.name].value,
            "nfe": cost.nfe, "flops": cost.flops, "seconds": cost.seconds,
        }  # fmt: skip
    write_json(folder / "result.json", result)
    return result


def print_image(result: dict[str, Any], quiet: bool) -> None:
    """The table of plain and chosen, and where the files are."""
    rows = []
    for name, kind in (("plain", "plain"), (result["method"], "chosen")):
        r = result[kind]
        rows.append([name, number(r["judge"]), number(r["reward"]), number(r["nfe"], 0),
                     number(r["flops"] / 1e12), number(r["seconds"], 1)])  # fmt: skip
    print_table(["image", "judge", result["reward"], "NFE", "TFLOPs", "seconds"], rows, plain=quiet)
    print(f"{result['folder']}: image.png, plain.png, side-by-side.png, contact-sheet.png, tree.json")
