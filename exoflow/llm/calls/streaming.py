"""An answer that is read as it comes, outside of a flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from exoflow.driver.loops import waited
from exoflow.llm.calls.answer import Answer
from exoflow.llm.calls.how import Listener
from exoflow.llm.calls.question import Question
from exoflow.llm.calls.recorded import asked, unrecorded

if TYPE_CHECKING:
    from exoflow.llm.calls.llm import LLM


class Stream:
    """Pieces of text, to be iterated once, with ``for`` or ``async for``. Who stops before the end ends the call.

    Raises, while it is iterated:
        CallFailed: there is no answer, or only half of one.
        BudgetExceeded, Overloaded: the scheduler refuses it.
    """

    def __init__(self, llm: LLM, question: Question) -> None:
        self._llm = llm
        self._question = question
        self._begun = False
        self._answer: Answer | None = None

    @property
    def answer(self) -> Answer:
        """All of it, and what it cost.

        Raises:
            RuntimeError: it has not been read to its end.
        """
        if self._answer is None:
            raise RuntimeError("the answer is there when the stream has been read to its end")
        return self._answer

    async def __aiter__(self) -> AsyncIterator[str]:
        if self._begun:
            raise RuntimeError("a stream is read once: llm.stream(...) asks again")
        self._begun = True
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        loop, told = asyncio.get_running_loop(), 0

        def tell(so_far: str) -> None:  # an engine's thread tells it, too
            loop.call_soon_threadsafe(pieces.put_nowait, so_far)

        listener = Listener(tell, begins_anew=False)
        llm = self._llm._with(replace(self._llm.call, on_text=listener))
        call = asyncio.ensure_future(asked(llm, self._question, unrecorded()))
        call.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (so_far := await pieces.get()) is not None:
                if len(so_far) > told:
                    piece, told = so_far[told:], len(so_far)
                    yield piece
            self._answer = call.result()
        finally:
            if not call.done():
                call.cancel()

    def __iter__(self) -> Iterator[str]:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("on an event loop: `async for piece in llm.stream(...)`")
        pieces = cast("AsyncGenerator[str, None]", aiter(self))
        one_at_once = asyncio.Lock()  # what Ctrl-C has interrupted here still ends there

        async def next_piece() -> str | None:
            async with one_at_once:
                return await anext(pieces, None)

        async def close() -> None:
            async with one_at_once:
                await pieces.aclose()

        try:
            while (piece := waited(next_piece())) is not None:
                yield piece
        finally:
            waited(close())
