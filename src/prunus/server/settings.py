"""How a server is run: where it listens, who may use it, and its limits."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, fields
from pathlib import Path

from prunus.errors import SettingError, require

SHORTEST_KEY = 16  # characters; what can be guessed is not a key
VISIBLE = re.compile("[!-~]*")


@dataclass(frozen=True)
class Limits:
    """Bounds that are always on. What a request may ask for, in the answer that it gets where it asks for more:"""

    body_bytes: int = 1_048_576
    """of a request (413)"""
    json_depth: int = 32
    """of nested lists and objects (400)"""
    prompt_characters: int = 32_768
    """of a prompt, or of all messages of a chat (400)"""
    n: int = 16
    """answers to a request (400)"""
    candidates: int = 64
    """that grow side by side in a search: its n, or keep x branch (400)"""
    max_tokens: int = 4096
    """of one answer (400)"""
    search_tokens: int = 131_072
    """candidates x length: what a search may write, at most (400)"""
    stops: int = 16
    """stop texts, of at most 256 characters each (400)"""
    pairs: int = 1024
    """texts to score in a request (400)"""
    text_characters: int = 65_536
    """of each text to score (400)"""
    score_characters: int = 2_097_152
    """of all pairs of a request, a shared prompt counted with each (400)"""

    searches: int = 16
    """that run at a time; more wait"""
    queue: int = 64
    """searches that wait; more are refused (429)"""
    rows: int = 8192
    """texts of all requests that wait to be scored; more are refused (429)"""
    seconds: float = 300.0
    """from a request to its whole answer (408)"""

    header_seconds: float = 10.0
    """until a request's headers are read (408)"""
    body_seconds: float = 30.0
    """until its body is read (408), and a client that takes none of its answer is given up"""
    connections: int = 512
    """at a time (503); systems let a process have 1024 files, unless told otherwise"""
    connections_per_address: int = 128
    """at a time, of one address that is not a trusted proxy (429)"""

    requests_per_minute: int | None = None
    """of one key (429); None: no bound"""
    tokens_per_minute: int | None = None
    """of one key, generated, processed and scored (429); None: no bound"""

    drain_seconds: float = 30.0
    """after SIGTERM, for what runs to finish"""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            none = value is None and f.default is None
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(none or (number and 0 < value < 1e12), f.name, value, "above 0")


@dataclass(frozen=True)
class Settings:
    """How a server is run. Raises SettingError; an address that others reach needs a key."""

    host: str = "127.0.0.1"
    """the address to listen at"""
    port: int = 8000
    """the port, 0: a free one"""
    keys: tuple[str, ...] = field(default=(), repr=False)
    """of clients, sent as bearer tokens; none: every client on this machine is served"""
    admin_key: str | None = field(default=None, repr=False)
    """of the page, its events and /metrics; None: these are closed"""
    hosts: tuple[str, ...] = ()
    """names that clients may call the server by, beside its address and localhost; * is every name"""
    proxies: tuple[str, ...] = ()
    """addresses of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed"""
    root_path: str = ""
    """the prefix that a reverse proxy has taken off, such as /prunus"""
    trees: Path | None = None
    """the folder of saved trees, private files; None: a temporary one that goes with the server"""
    tree_seconds: float = 86_400.0
    """how long a saved tree is kept"""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        require(0 <= self.port < 65_536, "port", self.port, "from 0 to 65535")
        require(self.tree_seconds > 0, "tree_seconds", self.tree_seconds, "above 0")
        prefix = self.root_path
        require(
            not prefix or (prefix.startswith("/") and not prefix.endswith("/")), "root_path", prefix, "such as /prunus"
        )
        for name, key in [("a key", k) for k in self.keys] + [("the admin key", self.admin_key)]:
            if key is not None and not (
                len(key) >= SHORTEST_KEY and key.isascii() and key.isprintable() and " " not in key
            ):
                raise SettingError(  # without the value
                    f"{name} is not allowed; a key is at least {SHORTEST_KEY} printable ASCII characters without "
                    "spaces: openssl rand -hex 32 makes one"
                )
        if self.admin_key in self.keys:
            raise SettingError("the admin key is one of the clients' keys; it must be another one")
        if not self.keys and not is_loopback(self.host):
            raise SettingError(
                f"host = {self.host!r} is reached by others, and no key is set; set PRUNUS_API_KEYS or give "
                "--key-file, or listen at 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
