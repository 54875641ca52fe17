"""From generations to an answer over HTTP: whole or in pieces, and no longer than somebody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from exoflow.errors import LLMError
from exoflow.llm.engine.generation import Generation
from exoflow.llm.engine.request import Event, Output
from exoflow.llm.server.answers import Form, Json
from exoflow.llm.server.refusals import GONE, Refusal, refusal_of

T = TypeVar("T")
LATE = "it could not be answered in time: ask again later"


async def whole(form: Form, generations: Sequence[Generation], n: int) -> Json:
    """All answers at once.

    Raises:
        Refusal: they cannot be had, and why.
    """
    async for _ in _events(generations, n):
        pass
    found = _outputs(generations)
    if any(output.finish_reason == "abort" for output in found):
        raise Refusal(503, LATE, code="deadline", wait_s=1)
    return form.whole(found)


async def pieces(form: Form, generations: Sequence[Generation], n: int) -> AsyncGenerator[Json]:
    """The answers' events as they come, whichever prompt they belong to.

    Raises:
        Refusal: they cannot be had, and why.
    """
    begun: set[int] = set()
    async with aclosing(_events(generations, n)) as events:
        async for number, event in events:
            if number not in begun:
                if event.finish_reason == "abort":
                    raise Refusal(503, LATE, code="deadline", wait_s=1)
                begun.add(number)
                if first := form.first_piece(number):
                    yield first
            if piece := form.piece(number, event):
                yield piece
    if form.with_usage:
        yield form.last_piece(_outputs(generations))


async def _events(generations: Sequence[Generation], n: int) -> AsyncGenerator[tuple[int, Event]]:
    """Of all, each with the number of its answer over all prompts."""
    arrived: asyncio.Queue[tuple[int, Event] | Exception | None] = asyncio.Queue()

    async def follow(place: int, generation: Generation) -> None:
        try:
            async for event in generation:
                arrived.put_nowait((place * n + event.index, event))
        except LLMError as error:
            arrived.put_nowait(refusal_of(error))
        finally:
            arrived.put_nowait(None)

    following = [asyncio.create_task(follow(*each)) for each in enumerate(generations)]
    try:
        left = len(following)
        while left:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in following:
            task.cancel()
        await asyncio.wait(following)


def _outputs(generations: Sequence[Generation]) -> list[Output]:
    return [output for generation in generations for output in generation.outputs()]


async def unless_gone(request: Request, answering: Coroutine[Any, Any, T]) -> T:
    """What ``answering`` returns. A client that goes away ends it.

    Raises:
        Refusal: it is gone.
    """
    task, watching = asyncio.create_task(answering), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, watching), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(GONE, "the client has gone")
        return task.result()
    finally:
        watching.cancel()
        if task.cancel():
            await asyncio.wait((task,))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events. An error in the middle is one of them, since the status is gone.

    Args:
        ended: called when the last was sent, or the client is gone.
    """

    def __init__(self, first: Json, rest: AsyncGenerator[Json], ended: Callable[[], None]) -> None:
        self._lines, self._ended = _lines(first, rest), ended
        super().__init__(
            self._lines, media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
            await self._lines.aclose()


async def _lines(first: Json, rest: AsyncGenerator[Json]) -> AsyncGenerator[bytes]:
    yield _line(first)
    async with aclosing(rest):
        try:
            async for piece in rest:
                yield _line(piece)
        except Refusal as refusal:
            yield _line(refusal.content())
    yield b"data: [DONE]\n\n"


def _line(content: Json) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"
