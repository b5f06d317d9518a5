"""What a command shows while it works (on stderr) and at its end (on stdout)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from prunus.search import Event


class Show:
    """A progress bar with the best score so far; plain lines where stderr is no terminal; nothing if ``quiet``."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self._bar: Any = None
        self._best: dict[int, float] = {}
        self._several, self._decider, self._counts = False, "", "round"

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def start(
        self, what: str, total: int, decider: str, done: int = 0, several: bool = False, counts: str = "round"
    ) -> Show:
        """Begin a bar of ``total`` events of the kind that it ``counts``; use as a context manager.

        ``decider`` is the reward that is shown.
        """
        self._several, self._decider, self._counts, self._best = several, decider, counts, {}
        if not self.quiet and self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[best]}"), console=self.console, transient=True)
            self._task = self._bar.add_task(what, total=total, completed=done, best="")
        return self

    def __enter__(self) -> Show:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __call__(self, event: Event) -> None:
        """Take note of an event of a search."""
        tree = event.tree
        if event.kind == "round":
            # Only the newest scores: those of earlier rounds are of shorter candidates.
            if newest := [n.scores[self._decider].value for n in event.nodes if self._decider in n.scores]:
                self._best[id(tree)] = max(newest)
        if event.kind == self._counts and self._bar:
            self._bar.update(self._task, advance=1, best=self.best)
        if event.kind == "settled" and event.nodes and not self._several:
            first, last = event.nodes[0].depth, event.nodes[-1].depth
            which = f"chunk {first} is" if first == last else f"chunks {first} to {last} are"
            self.say(f"  {which} settled  {self.best}")

    @property
    def best(self) -> str:
        """The best score so far, or the mean over prompts of it."""
        if not self._best:
            return ""
        mean = sum(self._best.values()) / len(self._best)
        return f"best {self._decider} {mean:.3f}" + (" (mean)" if self._several else "")


class Trainings:
    """A bar that trainings tell of their steps (``Journal.watch``); where stderr is no terminal a line for each."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._bar: Any = None
        self.what = ""

    def __enter__(self) -> Trainings:
        if not self._show.quiet and self._show.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._show.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, training: int, step: int, stop: int, loss: float) -> None:
        text = f"{self.what}, training {training}, loss {loss:.4g}"
        if self._bar:
            self._bar.update(self._task, description=text, completed=step, total=stop)
        elif step == stop:
            self._show.say(f"  {text}, {stop} steps")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], plain: bool = False) -> None:
    """A table on stdout; aligned plain lines if asked or where stdout is no terminal."""
    if plain or not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
        for row in (columns, *rows):
            cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
            print("  ".join(cells).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
