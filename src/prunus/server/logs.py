"""The server's log: one JSON object a line on stderr. Never prompts, answers, keys, or what an error quotes of them."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

LOGGER = logging.getLogger("prunus.server")


class JSONLines(logging.Formatter):
    """``extra={"fields": {...}}`` become fields of the line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        return json.dumps({**line, **getattr(record, "fields", {})})


def start(level: int = logging.INFO) -> None:
    """Write the log of the server, and what uvicorn has to say, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    for name, lowest in (("prunus.server", level), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(max(level, lowest))


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    LOGGER.log(level, event, extra={"fields": fields})


def where(error: BaseException) -> dict[str, Any]:
    """An error's type and the lines of code that it passed; not its message, which may quote what a client wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    return {"error": type(error).__name__, "at": [f"{f.filename}:{f.lineno} {f.name}" for f in frames[-12:]]}
