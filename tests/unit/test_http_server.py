"""A server as a process: when it hears signals."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import pytest

from exoflow.http.server import Message, Server, bind, listen

SIGNALS = [signal.SIGINT, signal.SIGTERM]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    raise AssertionError("nobody asks")


async def drain(grace_s: float) -> None:
    """Nothing is under way."""


@pytest.mark.parametrize("number", SIGNALS)
async def test_who_is_told_that_it_serves_can_stop_it_at_once(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    told: list[str] = []
    with bind("127.0.0.1", 0) as bound:
        listen(bound)
        server = Server(app, drain, "answers", grace_s=1, tell=told.append, ready=lambda: signal.raise_signal(number))
        await server.serve([bound])
    assert told == ["stopping: answers have 1 s to end; again to stop at once"]
    assert [signal.getsignal(each) for each in SIGNALS] == before
