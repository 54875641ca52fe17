"""What is not answered, in OpenAI's form of an error."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from exoflow.errors import AdapterError, ContextTooLong, LLMError, OutOfPages
from exoflow.llm.engine.request import Overloaded, WrongRequest

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}

GONE = 499
"""Nobody reads it; it is counted."""


class Refusal(Exception):  # it is an answer, not a fault
    """Ends the handling of a request with this status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        wait_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.wait_s = status, message, param, code, wait_s
        self.headers = dict(headers or {})

    def content(self) -> dict[str, object]:
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = self.headers | ({"Retry-After": str(self.wait_s)} if self.wait_s is not None else {})
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in (413, 500):
            headers["Connection"] = "close"  # the rest of the body is not read; the server closes after a mistake
        return Response(msgspec.json.encode(self.content()), self.status, headers, "application/json")


def no_model(name: str) -> Refusal:
    """Never the base instead of it."""
    return Refusal(404, f"there is no model {name!r}: GET /v1/models lists them", param="model", code="model_not_found")


def refusal_of(error: Exception) -> Refusal:
    """What went wrong, as an answer."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, LLMError):
        return _of_engine(error)
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, error.detail, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return Refusal(GONE, "the client has gone")
    return Refusal(500, f"a mistake of the server's: {type(error).__name__}")  # its log has the rest


def _of_engine(error: LLMError) -> Refusal:
    if isinstance(error, Overloaded):
        return Refusal(429, str(error), code="overloaded", wait_s=1)
    if isinstance(error, ContextTooLong):
        return Refusal(400, str(error), code="context_length_exceeded")
    if isinstance(error, WrongRequest):
        return Refusal(400, str(error))
    if isinstance(error, OutOfPages):
        return Refusal(400, str(error), code="out_of_pages")
    if isinstance(error, AdapterError):
        return Refusal(400, str(error), code="adapter_broken")
    return Refusal(500, str(error))
