"""The process: it listens, logs, and stops in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

import uvicorn

access = logging.getLogger("exoflow.http.access")

_BACKLOG = 2048
_LATE_S = 5.0
"""After what is under way has been stopped, for answers that are still being sent."""

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
    """Stops in good order at the first signal; the second one ends the process at once.

    Args:
        app: of ASGI.
        drain: lets what is under way end, and stops it after so many seconds.
        what: is under way, in words for whoever stops it.
        grace_s: those seconds.
        tell: says a line to him.
        ready: Called when signals are heard: who is told only now that it serves may stop it at once.
    """

    def __init__(
        self, app: App, drain: Callable[[float], Coroutine[Any, Any, None]], what: str, *, grace_s: float,
        tell: Callable[[str], None], ready: Callable[[], None] = lambda: None,
        lifespan: Literal["on", "off"] = "off",
    ) -> None:  # fmt: skip
        config = uvicorn.Config(
            access_log(app),
            log_config=None, access_log=False, server_header=False, lifespan=lifespan,
            timeout_graceful_shutdown=int(grace_s + _LATE_S),
        )  # fmt: skip
        super().__init__(config)
        self._drain = drain
        self._what = what
        self._grace_s = grace_s
        self._tell = tell
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            self._ready()
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._tell(f"stopping: {self._what} have {self._grace_s:g} s to end; again to stop at once")
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self._drain(self._grace_s))
        await super().shutdown(sockets)
        await draining


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that nobody listens at yet; port 0 takes a free one.

    Raises:
        OSError: the address is taken, or is none of this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound


def listen(bound: socket.socket) -> str:
    """Whoever is told the address that this returns may come at once.

    Raises:
        OSError: another process has begun to listen there.
    """
    bound.listen(_BACKLOG)
    address = bound.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{shown}:{address[1]}"
