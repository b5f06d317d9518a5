"""One thread for all that models do: they are not made for several, and their cores are the same ones.

What is given to it runs in order; the event loop stays free to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class ModelThread:
    """Shared by all parts of a server, so that no two of them use a model at a time."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="prunus-models")

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What the function returns. Once begun it goes on to its end, also if no one waits any more."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
