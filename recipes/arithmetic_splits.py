"""Write the train / dev / report splits of the arithmetic world. Run once; the files are committed.

For each number of operations from 2 to 8 there are 200 problems in report, 100 in dev and 200 in train, all different.
Train is a sample: every problem that is in neither dev nor report belongs to it.
"""

from pathlib import Path

import numpy as np

from prunus.worlds.arithmetic import problems

SIZES = {"report": 200, "dev": 100, "train": 200}


def main() -> None:
    rng = np.random.default_rng(0)
    lines: dict[str, list[str]] = {name: [] for name in SIZES}
    for operations in range(problems.FEWEST, problems.MOST + 1):
        drawn: dict[str, None] = {}
        while len(drawn) < sum(SIZES.values()):
            drawn[problems.draw(rng, operations)] = None
        rest = iter(drawn)
        for name, size in SIZES.items():
            lines[name] += [next(rest) for _ in range(size)]
    folder = Path(problems.__file__).parent / "splits"
    folder.mkdir(exist_ok=True)
    for name, prompts in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(prompts) + "\n")
        print(name, len(prompts))


if __name__ == "__main__":
    main()
