"""The process: it listens, logs, and stops in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from types import FrameType
from typing import Any

import uvicorn

from exoflow.web.app import Service, application

logger = logging.getLogger(__name__)
access = logging.getLogger("exoflow.web.access")

_BACKLOG = 2048
_LATE_S = 5.0
"""After the flows have been stopped, for answers that are still on their way."""

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def access_log(app: App) -> App:
    """One line a request, at INFO; the path as it was sent, so that no letter in it can end the line."""

    async def logged(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, told)
        finally:
            path = (scope.get("raw_path") or b"").decode("latin-1")
            took_ms = 1000 * (time.perf_counter() - begun)
            access.info("%s %s %d %.1f ms", scope["method"], path, status or 499, took_ms)

    return logged


class Server(uvicorn.Server):
    """Stops at the first signal as the gateway does; the second one ends the process at once."""

    def __init__(self, service: Service, *, grace_s: float, tell: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            access_log(application(service)),
            log_config=None, access_log=False, server_header=False, lifespan="on",
            timeout_graceful_shutdown=int(grace_s + _LATE_S),
        )  # fmt: skip
        super().__init__(config)
        self._gateway = service.gateway
        self._grace_s = grace_s
        self._tell = tell

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._tell(f"stopping: flows have {self._grace_s:g} s to end; again to stop at once")
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self._gateway.drain(self._grace_s))
        await super().shutdown(sockets)
        await draining


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises:
        OSError: the address is taken, or is none of this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)  # whoever is told the address may come at once
    except BaseException:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound
