"""Answers: results, runs that go on, problems."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from exoflow.conversion import json_of
from exoflow.errors import ExoFlowError
from exoflow.web import problems
from exoflow.web.elsewhere import Stopping
from exoflow.web.gateway import Overloaded
from exoflow.web.naming import location_of
from exoflow.web.problems import Problem

logger = logging.getLogger(__name__)


def content_of(run_id: str, result: object) -> bytes:
    try:
        return json_of(result)
    except ValueError as error:
        detail = f"the run {run_id} is done, and its result cannot be said in JSON: {error}"
        raise Problem(500, detail, run=run_id) from error


def result_answer(content: bytes, run_id: str) -> Response:
    return Response(content, media_type="application/json", headers={"Run-Id": run_id})


def accepted_answer(run_id: str, flow: str, applied: str, status: str = "running") -> Response:
    headers = {"Location": location_of(run_id), "Run-Id": run_id}
    if applied:
        headers["Preference-Applied"] = applied
    content = json_of({"id": run_id, "flow": flow, "status": status})
    return Response(content, 202, media_type="application/json", headers=headers)


def _problem(_: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = Problem(error.status_code, error.detail, headers=error.headers)
    assert isinstance(error, Problem)
    return Response(json_of(error.document()), error.status, error.headers, "application/problem+json")


def _overloaded(request: Request, error: Exception) -> Response:
    return _problem(request, Problem(429, f"{error}: ask again later", headers={"Retry-After": "1"}))


def _stopping(request: Request, error: Exception) -> Response:
    return _problem(request, Problem(503, f"{error}: ask again", headers={"Retry-After": "1", "Connection": "close"}))


def _error(request: Request, error: Exception) -> Response:
    problem = problems.of_error(error)
    if problem is None:
        logger.error("a request failed by a mistake of ours", exc_info=error)
        problem = Problem(500, f"the gateway failed: {type(error).__name__}; its log says where")
    return _problem(request, problem)


HANDLERS = {
    Problem: _problem, HTTPException: _problem, Overloaded: _overloaded, Stopping: _stopping, ExoFlowError: _error,
    Exception: _error,
}  # fmt: skip
"""What Starlette is to make of exceptions."""
