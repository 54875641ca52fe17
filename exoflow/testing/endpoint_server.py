"""The server of a fake endpoint; a process of its own when it is run as a module."""

from __future__ import annotations

import asyncio
import importlib
import json
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import cast

from aiohttp import web

from exoflow.testing.endpoint_batches import Batches
from exoflow.testing.endpoint_replies import (
    Asked,
    Json,
    Reply,
    answer_of,
    error_of,
    pieces_of,
    prompt_of,
    said,
)

Answering = Callable[[Asked], "str | Reply"]
_MAX_BODY = 1 << 30

__all__ = ["Answering", "Server", "importable", "said"]


def importable(name: str) -> Answering:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    found: object = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    return cast(Answering, found)


class Server:
    """Counts, and answers as a function says."""

    def __init__(self, answer: Answering, delay_s: float, remembers_keys: bool) -> None:
        self._answer = answer
        self._delay_s = delay_s
        self._remembers = remembers_keys
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self._batches = Batches(self._ask, delay_s)
        self._forget()

    def _forget(self) -> None:
        self._asked: list[Asked] = []
        self._prompts: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._known: dict[str, Reply] = {}
        self._in_flight = self._most = 0

    async def start(self, port: int) -> int:
        """Listen; the port."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        self._batches.add_routes(app)
        app.router.add_get("/asked", self._tell_asked)
        app.router.add_get("/in-flight", self._tell_in_flight)
        app.router.add_get("/most-in-flight", self._tell_most)
        app.router.add_get("/forget", self._forgets)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        assert self._runner is not None
        self._stopping.set()
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answered(request, chat=True)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._answered(request, chat=False)

    async def _answered(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            body = await request.json()
        except ValueError as error:
            return web.json_response(error_of(Reply(f"no JSON: {error}")), status=400)
        asked = self._counted(body, request.headers.get("Idempotency-Key", ""), dict(request.headers))
        self._in_flight += 1
        self._most = max(self._most, self._in_flight)
        try:
            return await self._replied(request, asked, self._reply(asked), chat=chat)
        finally:
            self._in_flight -= 1

    def _ask(self, body: Json, key: str) -> tuple[Asked, Reply]:
        asked = self._counted(body, key, {})
        return asked, self._reply(asked)

    def _counted(self, body: Json, key: str, headers: Mapping[str, str]) -> Asked:
        prompt = prompt_of(body)
        asked = Asked(len(self._asked), prompt, self._prompts[prompt], key, self._keys[key], body, headers)
        self._asked.append(asked)
        self._prompts[prompt] += 1
        self._keys[key] += 1
        return asked

    def _reply(self, asked: Asked) -> Reply:
        known = self._known.get(asked.key) if self._remembers and asked.key else None
        found = known or self._answer(asked)
        reply = Reply(found) if isinstance(found, str) else found
        if reply.status == 200 and reply.raw is None and not reply.hangs:
            asked.billed = known is None
            if self._remembers:
                self._known[asked.key] = reply
        return reply

    async def _replied(self, request: web.Request, asked: Asked, reply: Reply, *, chat: bool) -> web.StreamResponse:
        delay_s = self._delay_s if reply.delay_s is None else reply.delay_s
        if delay_s:
            await asyncio.sleep(delay_s)
        if reply.hangs:
            await self._stopping.wait()
            return _cut(request)
        if reply.cut_after == -1:
            return _cut(request)
        if reply.status != 200:
            text = json.dumps(error_of(reply)) if reply.raw is None else reply.raw
            return web.Response(text=text, status=reply.status, content_type="application/json", headers=reply.headers)
        if reply.raw is not None:
            body = reply.raw.encode("utf-8", "surrogateescape")  # so that it may hold bytes that are no text
            return web.Response(body=body, content_type="application/json", charset="utf-8", headers=reply.headers)
        if asked.body.get("stream"):
            return await self._streamed(request, asked, reply, chat=chat)
        whole = answer_of(asked.body, reply, chat=chat, number=asked.number)
        if reply.cut_after is not None:
            return await _half(request, json.dumps(whole))
        return web.json_response(whole, headers=reply.headers)

    async def _streamed(self, request: web.Request, asked: Asked, reply: Reply, *, chat: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"} | dict(reply.headers))
        await response.prepare(request)
        last = None if reply.cut_after is None else reply.cut_after + chat
        for index, piece in enumerate(pieces_of(asked.body, reply, chat=chat, number=asked.number)):
            if index == last:
                return _cut(request, response)
            await response.write(f"data: {json.dumps(piece)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    # What a test asks.

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    async def _tell_asked(self, request: web.Request) -> web.Response:
        return web.Response(body=pickle.dumps(self._asked))

    async def _tell_in_flight(self, request: web.Request) -> web.Response:
        return web.Response(text=str(self._in_flight))

    async def _tell_most(self, request: web.Request) -> web.Response:
        return web.Response(text=str(self._most))

    async def _forgets(self, request: web.Request) -> web.Response:
        self._forget()
        return web.Response()


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return response or web.Response()


async def _half(request: web.Request, text: str) -> web.StreamResponse:
    """It says how long it is, and breaks off before."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
    await response.prepare(request)
    await response.write(text[: len(text) // 2].encode())
    return _cut(request, response)


async def _live(settings: Json) -> None:
    server = Server(importable(str(settings["answer"])), cast(float, settings["delay_s"]), bool(settings["remembers"]))
    port = await server.start(cast(int, settings["port"]))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # its end is the parent's
    await server.stop()


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[2])
    asyncio.run(_live(json.loads(sys.argv[1])))
