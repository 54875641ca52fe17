"""What is not answered, in OpenAI's form of an error."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from exoflow.errors import AdapterError, ContextTooLong, LLMError, OutOfPages
from exoflow.llm.engine.request import Overloaded

KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 413:
"invalid_request_error",
         429: "rate_limit_error"}  # fmt: skip


class Refusal(Exception):  # it is an answer, not a fault
    """Ends the handling of a request with this status."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, wait_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.wait_s = status, message, param, code, wait_s

    def content(self) -> dict[str, object]:
        kind = KINDS.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        headers = {"Retry-After": str(self.wait_s)} if self.wait_s is not None else {}
        return Response(msgspec.json.encode(self.content()), self.status, headers, "application/json")


def refusal_of(error: LLMError) -> Refusal:
    """What the engine said, as an answer."""
    if isinstance(error, AdapterError):
        return Refusal(404, str(error), param="model", code="model_not_found")
    if isinstance(error, ContextTooLong):
        return Refusal(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, Overloaded):
        return Refusal(429, str(error), code="overloaded", wait_s=1)
    if isinstance(error, OutOfPages):
        return Refusal(400, str(error), code="out_of_pages")
    return Refusal(500, str(error))
