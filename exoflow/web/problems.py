"""What went wrong, as RFC 9457 has it: ``application/problem+json``."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from http import HTTPStatus

from exoflow.errors import InDoubt, RunCancelled, RunIsLive, RunMismatch, RunNotFound, StorageError
from exoflow.model import Status


class Problem(Exception):
    """An answer that is no success.

    Args:
        status: Of HTTP.
        detail: What happened, with which values, and what to do.
        headers: Of the answer.
        more: Further members of the document.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: object) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self._more = more

    def document(self) -> dict[str, object]:
        """The members of the document. The title says what the status means: its type is ``about:blank``."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": str(self), **self._more}


def of_run(run_id: str, error: BaseException, status: Status, *, debug: bool) -> Problem:
    """Why there is no result of a run."""
    if status is Status.CANCELLED or isinstance(error, RunCancelled):
        return Problem(410, f"the run {run_id} was cancelled", run=run_id)
    if status is Status.IN_DOUBT or isinstance(error, InDoubt):
        detail = f"the run {run_id} stopped in doubt, and an operator has to say what happened: {error}"
        return Problem(409, detail, run=run_id, error="InDoubt")
    if status is Status.FAILED:
        name = type(error).__name__
        if debug:
            where = "".join(traceback.format_exception(error))
            return Problem(500, str(error) or name, error=name, run=run_id, traceback=where)
        return Problem(500, str(error) or name, error=name, run=run_id)
    detail = f"the run {run_id} was stopped, and nothing that it recorded is lost: ask again ({error})"
    return Problem(503, detail, headers={"Retry-After": "1"}, run=run_id, error=type(error).__name__)


def of_error(error: Exception) -> Problem | None:
    """What an error of ExoFlow outside of a run's body is to who asks; None: it is a mistake of ours."""
    if isinstance(error, RunNotFound):
        return Problem(404, str(error))
    if isinstance(error, RunMismatch):
        return Problem(422, str(error), run=error.run_id)
    if isinstance(error, RunIsLive):
        return Problem(409, str(error), run=error.run_id)
    if isinstance(error, StorageError):
        return Problem(503, f"the store failed: {error}", headers={"Retry-After": "1"})
    return None
