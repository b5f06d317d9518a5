"""How much a key may ask for: requests and tokens of a minute, as buckets that fill up again steadily.

A request's tokens are known when it is done; they may overdraw the bucket, and the next request waits for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from prunus.server.errors import Refusal
from prunus.server.keys import owner
from prunus.server.settings import Limits


@dataclass
class Bucket:
    """What is left of ``size`` a minute."""

    size: int
    left: float
    at: float

    def fill(self, now: float) -> None:
        self.left, self.at = min(self.size, self.left + (now - self.at) * self.size / 60), now

    def seconds_until(self, level: float) -> float:
        return max(0.0, level - self.left) * 60 / self.size


class Quotas:
    """The buckets of all keys, as many as there are keys."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        sizes = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
        self.sizes = {what: size for what, size in sizes.items() if size is not None}
        self.clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def admit(self, owner: str) -> None:
        """Take one request off. Raises Refusal(429) if there is none, or if tokens are overdrawn."""
        for what in self.sizes:
            bucket, needed = self._bucket(owner, what), 1.0
            if wait := bucket.seconds_until(needed):
                raise Refusal(
                    429, f"this key has used up its {bucket.size} {what} a minute", code="quota_exceeded",
                    retry_after=wait,
                )  # fmt: skip
        if "requests" in self.sizes:
            self._bucket(owner, "requests").left -= 1

    def charge(self, owner: str, tokens: int) -> None:
        if "tokens" in self.sizes:
            self._bucket(owner, "tokens").left -= tokens

    def _bucket(self, owner: str, what: str) -> Bucket:
        now, size = self.clock(), self.sizes[what]
        bucket = self._buckets.setdefault((owner, what), Bucket(size, size, now))
        bucket.fill(now)
        return bucket


def charge(request: Request, tokens: int) -> None:
    """Book what a request took on its key."""
    request.app.state.quotas.charge(owner(request), tokens)
