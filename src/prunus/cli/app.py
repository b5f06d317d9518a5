"""The application that the commands are registered with."""

from __future__ import annotations

from typing import Annotated

import typer

from prunus import __version__

app = typer.Typer(
    help="Grow, score, prune: reward-guided search for generative models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors: rich alone takes longer to load than everything else
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"prunus {__version__}")
        raise typer.Exit


@app.callback()
def prunus(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Grow, score, prune: reward-guided search for generative models."""
