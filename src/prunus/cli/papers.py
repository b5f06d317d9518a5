"""The command for the papers' claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.app import app
from prunus.cli.options import AsJson, Quiet


@app.command()
def reproduce(
    papers: Annotated[list[str] | None, typer.Argument(help="Numbers of papers: 01 ...", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All papers; the results are written.")] = False,
    split: Annotated[str, typer.Option(help="Prompts: report, or dev while settings are mended.")] = "report",
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="A few dev prompts, to see in seconds that it runs.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write README.md and results.json here.", show_default="reproductions, if --all")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Try a miniature of a paper's main claim, at equal cost, and say whether it holds."""
    from prunus.commands.display import Show
    from prunus.commands.reproduce import print_results
    from prunus.commands.reproduce import reproduce as run

    results = run(papers or [], everything, split=split, seed=seed, smoke=smoke, out=out, show=Show(quiet))
    if as_json:
        print(json.dumps(results[0] if len(results) == 1 and not everything else {"papers": results}))
    else:
        print_results(results, quiet)
