"""The OpenAPI 3.1 document of what is served."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from exoflow.web.gateway import Flow
from exoflow.web.schemas import schema

_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "detail": {"type": "string"}, "run": {"type": "string"}, "error": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}  # fmt: skip
_RUN = {
    "type": "object",
    "properties": {
        "id": {"type": "string"}, "flow": {"type": "string"}, "status": {"type": "string"},
        "started_s": {"type": ["number", "null"]}, "ended_s": {"type": ["number", "null"]}, "result": {},
        "problem": {"$ref": "#/components/schemas/exoflow.Problem"},
    },
    "required": ["id", "flow", "status"],
}  # fmt: skip
_RUN_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


def document(flows: Mapping[str, Flow], *, authenticated: bool) -> dict[str, Any]:
    """A path for each flow, and those of runs."""
    schemas = schema(*(flow._spec.function for flow in flows.values()))
    paths: dict[str, Any] = {}
    for (name, flow), arguments, result in zip(flows.items(), schemas.arguments, schemas.results, strict=True):
        paths[f"/flows/{name}"] = {"post": _start(name, flow, arguments, result)}
    paths.update(_runs())
    own = {"exoflow.Problem": _PROBLEM, "exoflow.Run": _RUN}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "ExoFlow", "version": "1", "description": "Flows as HTTP functions that happen once."},
        "paths": paths,
        "components": {"schemas": {**schemas.components, **own}},
    }
    if authenticated:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


def _start(name: str, flow: Flow, arguments: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(flow._spec.function) or ""
    return {
        "operationId": name,
        "summary": text.partition("\n")[0] or f"Run {name}.",
        **({"description": text} if "\n" in text else {}),
        "parameters": [
            _header("Idempotency-Key", "The same key again gives the same run.", {"type": "string", "maxLength": 255}),
            _header("Prefer", "respond-async, or wait=SECONDS.", {"type": "string"}),
        ],
        "requestBody": {"required": bool(arguments.get("required")), "content": _json(arguments)},
        "responses": {
            "200": {"description": "What the flow returned; it is durable.", "content": _json(result)},
            "202": {
                "description": "It is durably accepted, and goes on.",
                "headers": {"Location": {"schema": {"type": "string"}}},
                "content": _json({"$ref": "#/components/schemas/exoflow.Run"}),
            },
            **_problems(400, 401, 409, 410, 413, 415, 422, 429, 500, 503),
        },
    }


def _runs() -> dict[str, Any]:
    run = _json({"$ref": "#/components/schemas/exoflow.Run"})
    listing = _json({"type": "array", "items": {"$ref": "#/components/schemas/exoflow.Run"}})
    stream = {"text/event-stream": {"schema": {"type": "string"}}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    queries = [
        {"name": "status", "in": "query", "schema": {"type": "string"}},
        {"name": "flow", "in": "query", "schema": {"type": "string"}},
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
    ]
    return {
        "/runs": {"get": _operation("listRuns", "Runs, the newest first.", listing, queries, 401, 422)},
        "/runs/{id}": {"get": _operation("getRun", "How a run stands.", run, [_RUN_ID], 401, 404)},
        "/runs/{id}/events": {
            "get": _operation("followRun", "What happens in it, as it becomes durable.", stream, [_RUN_ID], 401, 404)
        },
        "/runs/{id}/events/{name}": {
            "post": {
                **_operation(
                    "sendEvent", "Send it an event.", None, [_RUN_ID, name], 400, 401, 404, 409, 413, 415, 422
                ),
                "requestBody": {"content": _json({})},
            }
        },
        "/runs/{id}/cancel": {"post": _operation("cancelRun", "Cancel it.", None, [_RUN_ID], 401, 404, 409)},
        "/health": {
            "get": _operation("health", "Whether it serves.", _json({"type": "object"}), []) | {"security": []}
        },
    }


def _operation(
    name: str, summary: str, content: dict[str, Any] | None, parameters: list[dict[str, Any]], *problems: int
) -> dict[str, Any]:
    done = (
        {"202": {"description": "It is durable."}}
        if content is None
        else {"200": {"description": summary, "content": content}}
    )
    return {
        "operationId": f"exoflow_{name}",
        "summary": summary,
        **({"parameters": parameters} if parameters else {}),
        "responses": {**done, **_problems(*problems)},
    }


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _problems(*statuses: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/exoflow.Problem"}}}
    return {str(status): {"description": _WORDS[status], "content": content} for status in statuses}


_WORDS = {
    400: "The request makes no sense.",
    401: "No token, or not a known one.",
    404: "There is no such thing, or it is not yours.",
    409: "The run is in doubt, or cannot do that as it stands.",
    410: "The run was cancelled.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "An argument is wrong, or the key was given with others.",
    429: "Too many flows run and wait: later.",
    500: "The flow failed.",
    503: "Later: the gateway stops, or its store fails.",
}
