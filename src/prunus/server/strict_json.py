"""JSON from strangers: one object, nothing twice, no number that is not one, nothing deep, no half characters."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from prunus.server.errors import Refusal

LONGEST_NUMBER = 64  # characters
LARGEST_INTEGER = 2**63 - 1
BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def parse(content: bytes, depth: int) -> dict[str, Any]:
    """The object that a body holds. Raises Refusal(400)."""
    _check_depth(content, depth)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(f"is not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_real
        )
    except json.JSONDecodeError as error:
        raise _refusal(f"is not JSON: {error.msg} at character {error.pos}") from None
    if not isinstance(value, dict):
        raise _refusal("must be a JSON object")
    if "\\u" in text:  # only an escape can make half a character of UTF-8
        _check_texts(value)
    return value


def _refusal(what: str, code: str = "invalid_json") -> Refusal:
    return Refusal(400, f"the body {what}", code=code)


def _check_depth(content: bytes, most: int) -> None:
    """Before parsing, whose own limit is the stack's."""
    depth = 0
    for match in BRACKETS.finditer(content):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
            if depth > most:
                raise _refusal(f"is nested more than {most} deep")
        elif first in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise Refusal(400, f"the body has the field {_shown(twice)} twice", param=_shown(twice), code="invalid_json")
    return made


def _constant(word: str) -> Any:
    raise _refusal(f"has the number {word}, which JSON does not have")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER or abs(value := int(digits)) > LARGEST_INTEGER:
        raise _refusal("has an integer of more than 64 bits")
    return value


def _real(digits: str) -> float:
    value = float(digits) if len(digits) <= LONGEST_NUMBER else math.inf
    if math.isinf(value):
        raise _refusal(f"has a number that is too large or longer than {LONGEST_NUMBER} characters")
    return value


def _check_texts(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refusal("has half a character (a lone surrogate) in a text") from None
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(name)
            _check_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner)


def _shown(name: str) -> str:
    """A field's name as an error may hold it."""
    return name.encode("utf-8", "replace").decode()[:64]
