"""What a client is told when its request is not answered, in OpenAI's shape.

    {"error": {"message": ..., "type": "invalid_request_error", "param": "max_tokens", "code": "above_limit"}}

``Refusal`` may be raised anywhere in a route. Of Prunus's own errors those that a client can mend are passed on; of all
others it is only told that they happened, since their messages may name folders, addresses or what other clients wrote.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse

from prunus.errors import BudgetError, PromptError, PrunusError, ServerError, SettingError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """A request that is refused: its HTTP status, and what the client reads.

    param: the field that is wrong. code: a word for programs. retry_after: seconds after which it may be sent again.
    headers: more headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after, self.headers = retry_after, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error object, also that of an error event in a stream."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        return JSONResponse(self.body(), self.status, headers)


class ClientGone(Exception):
    """The client has closed its connection: there is no one to answer."""


def refusal(error: Exception) -> Refusal:
    """What a client is told of an error that a route raised."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, (PromptError, SettingError, BudgetError)):
        return Refusal(400, str(error))
    if isinstance(error, ServerError):
        return Refusal(502, "the model's server did not answer as it should", code="upstream_error")
    if isinstance(error, PrunusError):
        return Refusal(500, "the search failed; the server's log has the reason", code="search_failed")
    return Refusal(500, "the server failed; its log has the reason", code="internal_error")
