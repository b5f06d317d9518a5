"""Errors that a user can mend: what was given, what is allowed, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunus.tree import Tree


class PrunusError(Exception):
    """Base of every error whose message is meant for the user; the command line prints it and exits 2.

    ``tree`` is what a search had grown when the error ended it; it can be saved.
    """

    tree: Tree | None = None


class PromptError(PrunusError):
    """A prompt that the model or world at hand does not understand."""


class VideoError(PrunusError):
    """An array that is not a video of the expected shape, type or range."""


class ModelError(PrunusError):
    """A model folder or a model's setting that cannot be used."""


class BudgetError(PrunusError):
    """A budget that does not pay for a single candidate, or that cannot be read."""


class SettingError(PrunusError, ValueError):
    """A setting outside its allowed range."""


class FileError(PrunusError):
    """A file or folder that cannot be read or written."""


class ServerError(PrunusError):
    """A server that does not answer, or not as it should. ``status`` is its HTTP status, None if there was none."""

    status: int | None = None


class SearchError(PrunusError):
    """A search that could not go on; ``tree`` holds all that it had grown."""

    def __init__(self, message: str, tree: Tree | None = None) -> None:
        super().__init__(message)
        self.tree = tree


def require(ok: bool, field: str, value: object, allowed: str) -> None:
    """Raise SettingError that names the field, the value that came and what is allowed, unless ``ok``."""
    if not ok:
        raise SettingError(f"{field} = {value!r} is not allowed; {field} must be {allowed}")
