"""Write the train / dev / report splits of the sprites world. Run once; the files are committed.

report: the 20 one-sprite prompts with a held-out colour-shape pair, and 200 two-sprite prompts that contain one.
dev: 20 one-sprite and 200 two-sprite prompts without such a pair. train: every other prompt without such a pair.
"""

from pathlib import Path

import numpy as np

from prunus.worlds.sprites import scene


def main() -> None:
    rng = np.random.default_rng(0)

    def has_held_out(prompt: str) -> bool:
        return any((s.colour, s.shape) in scene.HELD_OUT_PAIRS for s in scene.parse(prompt))

    def draw(prompts: list[str], count: int) -> list[str]:
        return [prompts[i] for i in sorted(rng.choice(len(prompts), count, replace=False))]

    prompts = scene.all_prompts()
    seen = [[p for p in prompts if p.count(" and ") == n and not has_held_out(p)] for n in (0, 1)]
    unseen = [[p for p in prompts if p.count(" and ") == n and has_held_out(p)] for n in (0, 1)]
    dev = draw(seen[0], 20) + draw(seen[1], 200)
    report = unseen[0] + draw(unseen[1], 200)
    train = [p for p in seen[0] + seen[1] if p not in set(dev)]
    folder = Path(scene.__file__).parent / "splits"
    folder.mkdir(exist_ok=True)
    for name, lines in {"train": train, "dev": dev, "report": report}.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print(name, len(lines))


if __name__ == "__main__":
    main()
