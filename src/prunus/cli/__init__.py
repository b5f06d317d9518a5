"""The command line: options and messages. What the commands do is in ``prunus.commands``, imported when one runs."""

from __future__ import annotations

import sys

from prunus.cli.app import app
from prunus.errors import PrunusError

# isort: off
from prunus.cli import videos, texts, serving, sparsifying, models, papers  # noqa: F401 - each registers its commands, in the order of the help


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. A user's mistake is one message on stderr and exit code 2; Ctrl-C is 130."""
    try:
        app(arguments)
    except PrunusError as error:
        print(f"prunus: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        sys.exit(130)
