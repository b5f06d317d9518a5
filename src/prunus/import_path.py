"""Plug-ins by import path: ``package.module:Name``, on the command line and in Python only."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from prunus.errors import SettingError


def find_object(option: str, path: str) -> Any:
    """What stands at ``package.module:Name``, looked up where Python looks and in the current folder.

    Raises SettingError that says which part of the option's path is wrong.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise SettingError(f"{option} {path!r} is not an import path; write package.module:Name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
        return found
    except AttributeError:
        raise SettingError(f"{option} {path!r}: module {module_name} has no {name!r}") from None
    except Exception as error:  # an import runs the user's own code
        raise SettingError(f"{option} {path!r} cannot be imported: {type(error).__name__}: {error}") from error
