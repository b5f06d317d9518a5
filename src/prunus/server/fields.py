"""Reading the fields of a body: the right type (true is no number), within bounds, or a 400 that names the field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from prunus.server.errors import Refusal

Default = TypeVar("Default")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def wrong(name: str, allowed: str, code: str = "invalid_value") -> Refusal:
    return Refusal(400, f"{name} must be {allowed}", param=name, code=code)


def integer(body: dict[str, Any], name: str, default: Default, low: int, high: int) -> int | Default:
    """A whole number from ``low`` to ``high``; absent or null: the default."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(name, f"a whole number from {low} to {high}")
    if not low <= value <= high:
        raise wrong(name, f"from {low} to {high}", "above_limit" if value > high else "invalid_value")
    return value


def number(body: dict[str, Any], name: str, default: Default, low: float, high: float) -> float | Default:
    """A number from ``low`` to ``high``; absent or null: the default."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(name, f"a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise wrong(name, f"from {low:g} to {high:g}", "above_limit" if value > high else "invalid_value")
    return float(value)


def boolean(body: dict[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(name, "true or false")
    return value


def text(body: dict[str, Any], name: str, most: int) -> str:
    """A text of at most so many characters, which must be there."""
    return check_text(body.get(name), name, most)


def texts(body: dict[str, Any], name: str, count: int, most: int) -> list[str]:
    """A text or a list of texts, at least one and at most ``count``, of at most ``most`` characters each."""
    value = body.get(name)
    if not isinstance(value, list):
        return [check_text(value, name, most)]
    if not value:
        raise wrong(name, "a text or a list of at least one")
    if len(value) > count:
        raise wrong(name, f"at most {count} texts, and here are {len(value)}", "above_limit")
    return [check_text(one, name, most) for one in value]


def check_text(value: Any, name: str, most: int) -> str:
    if not isinstance(value, str):
        raise wrong(name, "a text")
    if len(value) > most:
        raise wrong(name, f"at most {most} characters, and it has {len(value)}", "above_limit")
    return value


def one_of(body: dict[str, Any], name: str, allowed: Sequence[str]) -> str:
    """One of the names that the operator has listed."""
    value = body.get(name)
    if not isinstance(value, str) or value not in allowed:
        raise Refusal(404, f"{name} must be one of {', '.join(allowed)}", param=name, code=f"{name}_not_found")
    return value


def ignored(body: dict[str, Any], known: Sequence[str]) -> dict[str, str]:
    """A header that lists the fields of a body that were not looked at, if there are any."""
    names = [name if NAME.fullmatch(name) else "?" for name in body if name not in known]
    return {"X-Prunus-Ignored": ", ".join(dict.fromkeys(names[:20]))} if names else {}
