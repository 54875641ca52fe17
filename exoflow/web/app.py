"""The routes of ``exoflow serve``."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import html
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from exoflow import sending
from exoflow.conversion import WrongArgument, arguments_of, json_of
from exoflow.errors import CodecError, RunError, RunMismatch, RunNotFound
from exoflow.http.pages import why_not
from exoflow.http.tokens import Tokens
from exoflow.model import Status
from exoflow.web import openapi, problems
from exoflow.web.answers import HANDLERS, accepted_answer, content_of, result_answer
from exoflow.web.elsewhere import NotEnded
from exoflow.web.gateway import OWNER, Gateway
from exoflow.web.problems import Problem
from exoflow.web.reading import body_of, json_of_body, key_of, preference_of
from exoflow.web.standing import Standing, may_see, no_run, standing, summary_json
from exoflow.web.stream import stream

MAX_BODY_BYTES = 1024 * 1024
_ANSWERS_MAX = 1024
_ANSWER_MAX_BYTES = 64 * 1024
_LIST_MAX = 1000


class Service:
    """What answers requests.

    Args:
        gateway: Runs the flows.
        tokens: Who may ask.
        any_host: Without tokens, take requests to whatever name: something in front says who may ask.
        max_body: Bytes of a request's body.
        debug: Whether a failed run's problem has its traceback.
    """

    def __init__(
        self, gateway: Gateway, tokens: Tokens | None = None, *, any_host: bool = False,
        max_body: int = MAX_BODY_BYTES, debug: bool = False,
    ) -> None:  # fmt: skip
        self.gateway = gateway
        self.tokens = tokens or Tokens()
        self._any_host = any_host
        self._max_body = max_body
        self._debug = debug
        self._openapi = json_of(openapi.document(gateway.flows, authenticated=bool(self.tokens)))
        self._answers: OrderedDict[tuple[str, str, str], tuple[bytes, bytes, str]] = OrderedDict()
        """By token, flow and key: the body, the result, and the id of a run that is done; the newest last."""

    # -- flows -------------------------------------------------------------------------------------------------------

    async def start(self, request: Request) -> Response:
        """``POST /flows/NAME``."""
        token = self._token(request)
        name = request.path_params["name"]
        flow = self.gateway.flows.get(name)
        if flow is None:
            raise _no_flow(name, self.gateway)
        body = await body_of(request, self._max_body)
        key, preference = key_of(request), preference_of(request)
        known = self._answers.get((token, name, key)) if key is not None else None
        if known is not None and known[0] == body:
            return result_answer(known[1], known[2])
        given = json_of_body(request, body)
        if not isinstance(given, dict | None):
            raise Problem(422, "$: the body has to be an object, with the flow's arguments by name")
        try:
            args, kwargs = arguments_of(flow._spec.function, given or {})
        except WrongArgument as error:
            raise Problem(422, str(error), argument=error.name) from error
        loop = asyncio.get_running_loop()
        until = None if preference.wait_s is None else loop.time() + preference.wait_s
        try:
            execution = await self.gateway.begin(name, args, kwargs, token=token, key=key, wait_s=preference.wait_s)
        except NotEnded as error:
            return accepted_answer(str(error), flow.name, preference.applied)
        except CodecError as error:
            raise Problem(422, str(error)) from error
        except RunMismatch as error:
            raise Problem(422, f"Idempotency-Key {key!r} was given before with other arguments: {error}") from error
        if not await self.gateway.has_ended(execution, until):
            await self.gateway.accepted(execution)
            return accepted_answer(execution.run_id, flow.name, preference.applied)
        try:
            result = execution.result()
        except BaseException as error:
            raise problems.of_run(execution.run_id, error, execution.status, debug=self._debug) from error
        return self._done(execution.run_id, result, body, (token, name, key))

    def _done(self, run_id: str, result: object, body: bytes, asked: tuple[str, str, str | None]) -> Response:
        content = content_of(run_id, result)
        token, name, key = asked
        if key is not None and len(content) + len(body) <= _ANSWER_MAX_BYTES:
            self._answers[token, name, key] = body, content, run_id
            if len(self._answers) > _ANSWERS_MAX:
                self._answers.popitem(last=False)
        return result_answer(content, run_id)

    # -- runs --------------------------------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """``GET /runs/ID``."""
        token, run_id = self._token(request), request.path_params["id"]
        found = await asyncio.to_thread(standing, self.gateway, run_id, token)
        return Response(self._shown(found), media_type="application/json")

    def _shown(self, found: Standing) -> bytes:
        shown: dict[str, object] = {
            "id": found.run_id, "flow": found.flow, "status": str(found.status), "started_s": found.started_s,
            "ended_s": found.ended_s,
        }  # fmt: skip
        if found.status is Status.DONE:
            return json_of(shown)[:-1] + b',"result":' + content_of(found.run_id, found.outcome) + b"}"
        if found.error is not None:
            shown["problem"] = problems.of_run(found.run_id, found.error, found.status, debug=self._debug).document()
        return json_of(shown)

    async def follow(self, request: Request) -> Response:
        """``GET /runs/ID/events``."""
        run_id = await self._own(request)
        last = request.headers.get("last-event-id", "0")
        if not last.isdecimal():
            raise Problem(400, f"Last-Event-ID {last!r} is not one of ours: they are numbers")
        events = stream(self.gateway, run_id, int(last))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def send(self, request: Request) -> Response:
        """``POST /runs/ID/events/NAME``."""
        run_id, name = await self._own(request), request.path_params["name"]
        data = json_of_body(request, await body_of(request, self._max_body))
        send = partial(sending.send, run_id, name, data, id=key_of(request), store=self.gateway.store)
        try:
            await asyncio.to_thread(send)
        except RunNotFound:
            raise no_run(run_id) from None
        except RunError as error:
            raise Problem(409, str(error), run=run_id) from error
        except ValueError as error:
            raise Problem(422, str(error)) from error
        return Response(json_of({"id": run_id, "event": name}), 202, media_type="application/json")

    async def cancel(self, request: Request) -> Response:
        """``POST /runs/ID/cancel``."""
        run_id = await self._own(request)
        live = self.gateway.runtime.executions.get(run_id)
        if live is not None:
            await asyncio.to_thread(live.cancel)
            return accepted_answer(run_id, live.flow.name, "", status="cancelling")
        found = await asyncio.to_thread(standing, self.gateway, run_id, "")
        if found.status in (Status.DONE, Status.FAILED):
            raise Problem(409, f"the run {run_id} has ended: it is {found.status}", run=run_id)
        if found.status is not Status.CANCELLED:
            await asyncio.to_thread(sending.cancel, run_id, self.gateway.store)
        return accepted_answer(run_id, found.flow, "", status="cancelling")

    async def list(self, request: Request) -> Response:
        """``GET /runs``."""
        token = self._token(request)
        query = request.query_params
        status, limit = query.get("status"), query.get("limit", "100")
        if status is not None and status not in list(Status):
            raise Problem(422, f"status: there is no {status!r}; there are {', '.join(Status)}")
        if not limit.isdecimal() or not 1 <= int(limit) <= _LIST_MAX:
            raise Problem(422, f"limit: expected a number from 1 to {_LIST_MAX}, got {limit!r}")
        wanted = None if status is None else Status(status)
        found = await asyncio.to_thread(self._listed, token, wanted, query.get("flow"), int(limit))
        return Response(json_of(found), media_type="application/json")

    def _listed(self, token: str, status: Status | None, flow: str | None, limit: int) -> object:
        from exoflow.catalogue import Catalogue

        labels: Mapping[str, str] = {OWNER: token} if token else {}
        known = self.gateway.flows.get(flow or "")
        with Catalogue(self.gateway.store) as catalogue:
            catalogue.refresh()
            runs = catalogue.runs(status=status, flow=known.name if known else flow, labels=labels, limit=limit)
        return [summary_json(run, self.gateway) for run in runs]

    async def _own(self, request: Request) -> str:
        """The id in the path, if that run is the token's.

        Raises:
            Problem: 404, it is not.
        """
        token, run_id = self._token(request), str(request.path_params["id"])
        execution = self.gateway.runtime.executions.get(run_id)
        if execution is None:
            await asyncio.to_thread(standing, self.gateway, run_id, token)
        elif not may_see(token, execution.labels):
            raise no_run(run_id)
        return run_id

    # -- the rest ----------------------------------------------------------------------------------------------------

    async def health(self, _: Request) -> Response:
        """``GET /health``."""
        if self.gateway.stopping.is_set():
            return Response(b'{"status":"stopping"}', 503, media_type="application/json")
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def describe(self, request: Request) -> Response:
        """``GET /openapi.json``."""
        self._token(request)
        return Response(self._openapi, media_type="application/json")

    async def index(self, request: Request) -> Response:
        """``GET /``: nothing that a token would be needed for."""
        told = () if self.tokens or self._why_not(request) else self.gateway.flows
        names = "".join(f"<li>{html.escape(name)}</li>" for name in told)
        return HTMLResponse(_PAGE.format(flows=f"<ul>{names}</ul>" if names else ""))

    def _token(self, request: Request) -> str:
        """The name of the request's token; empty where none is needed.

        Raises:
            Problem: 401, or 403 for what may be a page of another site in a browser.
        """
        if not self.tokens:
            why = self._why_not(request)
            if why:
                raise Problem(403, f"{why}: serve with tokens, if it may be")
            return ""
        name = self.tokens.name_of(request.headers.get("authorization"))
        if name is None:
            challenge = 'Bearer realm="exoflow"'
            raise Problem(
                401, "send a known token: Authorization: Bearer SECRET", headers={"WWW-Authenticate": challenge}
            )
        return name

    def _why_not(self, request: Request) -> str | None:
        return why_not(request.headers, any_host=self._any_host)


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>ExoFlow</title>
<body style="font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em">
<h1>ExoFlow</h1><p>Flows as HTTP functions: <code>POST /flows/NAME</code>, with <code>Idempotency-Key</code>.
They are described in <a href="openapi.json">openapi.json</a>.</p>{flows}</body></html>
"""


def _no_flow(name: str, gateway: Gateway) -> Problem:
    near = difflib.get_close_matches(name, gateway.flows, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(gateway.flows)}"
    return Problem(404, f"there is no flow {name!r}; {hint}")


def application(service: Service) -> Starlette:
    """The ASGI application. Its lifespan adopts what others left."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        adopting = asyncio.create_task(service.gateway.adopt_forever())
        try:
            yield
        finally:
            service.gateway.stopping.set()
            await adopting

    routes = [
        Route("/flows/{name}", service.start, methods=["POST"]),
        Route("/runs", service.list),
        Route("/runs/{id:path}/events/{name}", service.send, methods=["POST"]),
        Route("/runs/{id:path}/events", service.follow),
        Route("/runs/{id:path}/cancel", service.cancel, methods=["POST"]),
        Route("/runs/{id:path}", service.show),
        Route("/health", service.health),
        Route("/openapi.json", service.describe),
        Route("/", service.index),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=HANDLERS)
