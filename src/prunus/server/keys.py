"""Who asks: keys of clients, the admin key, and the admin's sessions.

A key is compared in constant time with each that is known, by its digest, so that the time tells neither its length
nor which one it was. What logs, quotas and trees know a client by is its ``owner``: some of another digest of its key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.errors import FileError, SettingError
from prunus.server.errors import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

COOKIE = "prunus_admin"
SESSION_SECONDS = 12 * 3600
SESSIONS = 100  # at a time


class Keys:
    """The keys of a server. Sessions of the admin are kept in memory and end with the server."""

    def __init__(self, keys: Sequence[str] = (), admin: str | None = None) -> None:
        self._owners = {_digest(key): owner_of(key) for key in keys}
        self._admin = None if admin is None else _digest(admin)
        self._sessions: dict[bytes, float] = {}

    def client(self, request: Request) -> str:
        """The owner of the request's key; "" if the server has no keys. Raises Refusal(401)."""
        if not self._owners:
            return ""
        given, found = _digest(_bearer(request)), None
        for digest, owner in self._owners.items():  # all of them, also after the right one
            found = owner if hmac.compare_digest(digest, given) else found
        if found is None:
            raise _unknown("send a key of this server as a bearer token: Authorization: Bearer KEY")
        return found

    def check_admin(self, request: Request) -> None:
        """Raises Refusal unless the request has the admin key as a bearer token, or a session's cookie."""
        if self._admin is None:
            raise Refusal(403, "this is closed: the server was started without an admin key", code="no_admin_key")
        if not (self.is_admin(_bearer(request)) or self._in_session(request.cookies.get(COOKIE, ""))):
            raise _unknown("send the admin key as a bearer token, or sign in at the page")

    def is_admin(self, key: str) -> bool:
        return self._admin is not None and hmac.compare_digest(self._admin, _digest(key))

    def open_session(self) -> str:
        """A new session's token, for the cookie ``COOKIE``."""
        now = time.monotonic()
        self._sessions = {d: ends for d, ends in self._sessions.items() if ends > now}
        while len(self._sessions) >= SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        token = secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = now + SESSION_SECONDS
        return token

    def close_session(self, request: Request) -> None:
        self._sessions.pop(_digest(request.cookies.get(COOKIE, "")), None)

    def _in_session(self, token: str) -> bool:
        return self._sessions.get(_digest(token), 0.0) > time.monotonic()


def owner(request: Request) -> str:
    """A stable, non-secret id of the key that a request came with; "" without keys."""
    return request.scope.get("prunus.owner", "")


def owner_of(key: str) -> str:
    """48 bits of a digest: enough to tell keys apart, too few to find one by."""
    return "key-" + hashlib.sha256(b"prunus owner\0" + key.encode()).hexdigest()[:12]


def read_keys(variable: str, file: Path | None) -> tuple[str, ...]:
    """The keys in an environment variable and in a file, one a line or with commas between; # begins a comment line.

    Raises FileError, and SettingError for a file that has none.
    """
    found = _split(os.environ.get(variable, ""))
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"the key file {file} cannot be read: {error}") from None
        if not _split(text):
            raise SettingError(f"the key file {file} has no key; write one a line")
        found += _split(text)
    return tuple(dict.fromkeys(found))


def is_shown_to_others(file: Path) -> bool:
    """Whether other users of this machine may read a file."""
    return os.name == "posix" and bool(stat.S_IMODE(file.stat().st_mode) & 0o077)


def _split(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return [key for line in lines for key in line.replace(",", " ").split()]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _unknown(message: str) -> Refusal:
    return Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
