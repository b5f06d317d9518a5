"""Settings as people write them on a command line: ``name=value``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from prunus.errors import SettingError


def read_settings(texts: Iterable[str], whose: str, how: str) -> dict[str, Any]:
    """Each ``name=value`` as an entry; values are JSON, or else strings. SettingError names ``whose`` they are and says
    ``how`` to write them."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingError(f"{whose}: {text!r} is not a setting; write {how}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
