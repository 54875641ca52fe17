"""The engines of this process, by what was written down of them: each is started once, and shared."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from exoflow.executors import open_executor
from exoflow.llm.durable.host import Answer, Host, Named, Prompted, Question, named_as_asked
from exoflow.llm.durable.remote import RemoteEngine
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.request import Overloaded

if TYPE_CHECKING:
    from exoflow.llm.durable.spec import Setup
    from exoflow.llm.engine.engine import Engine


BUSY_S = 0.05
"""Until an engine that lets too many wait already is asked again."""


class Asked(Protocol):
    """An engine, here or elsewhere."""

    @property
    def is_dead(self) -> bool:
        """Whether it answers nothing any more, and another one is to be started."""
        ...

    async def answer(self, question: Question) -> Answer: ...

    def close(self) -> None: ...


class EngineHere:
    """An engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._host = Host(engine)

    @property
    def is_dead(self) -> bool:
        return self._host.engine.error is not None

    async def answer(self, question: Question) -> Answer:
        if isinstance(question, Named):
            return await asyncio.to_thread(self._host.look_up, question)
        generation = await asyncio.to_thread(self._host.submit, question)  # an adapter may have to be read
        try:
            return named_as_asked(await generation.ended(), question)
        finally:
            self._host.engine.abort(generation)

    def close(self) -> None:
        self._host.engine.close()


class Room:
    """How many requests an engine has at once: the others wait here, in their order, instead of being refused there."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def held(self, count: int) -> AsyncIterator[None]:
        """A block that has so many of its places."""
        count = min(count, self._size)
        await self._take(count)
        try:
            yield
        finally:
            self._give(count)

    async def _take(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if not self._waiting and self._free >= count:
                self._free -= count
                return
            turn = loop.create_future()
            self._waiting.append((count, loop, turn))
        try:
            await turn
        except asyncio.CancelledError:
            with self._lock:
                was_waiting = (count, loop, turn) in self._waiting
                if was_waiting:
                    self._waiting.remove((count, loop, turn))
            self._give(0 if was_waiting else count)
            raise

    def _give(self, count: int) -> None:
        with self._lock:
            self._free += count
            while self._waiting and self._free >= self._waiting[0][0]:
                taken, loop, turn = self._waiting.popleft()
                self._free -= taken
                with contextlib.suppress(RuntimeError):  # its loop is closed: its places are lost with it
                    loop.call_soon_threadsafe(_wake, turn)


class Seat:
    """An engine, and the room in front of it."""

    def __init__(self, engine: Asked, size: int) -> None:
        self.engine = engine
        self._room = Room(size)

    async def answer(self, question: Question) -> Answer:
        count = question.params.n if isinstance(question, Prompted) else 0
        async with self._room.held(count):
            while True:
                try:
                    return await self.engine.answer(question)
                except Overloaded:  # by others, who did not come through this room
                    await asyncio.sleep(BUSY_S)


_seats: dict[Setup, Future[Seat]] = {}
_lock = threading.Lock()


async def seat_of(setup: Setup) -> Seat:
    """The engine of this description; started if there is none."""
    if setup.engine is not None:
        found_here: Seat = vars(setup.engine).setdefault("seat", _seat(setup))
        return found_here
    with _lock:
        found = _seats.get(setup)
        if found is None or _is_over(found):
            found = _seats[setup] = Future()
            threading.Thread(target=_open, args=(setup, found), name="exoflow-llm-start", daemon=True).start()
    return await asyncio.shield(asyncio.wrap_future(found))


def starting() -> list[str]:
    """The models of engines that start in this moment: weights take their time."""
    return [setup.model for setup, found in list(_seats.items()) if not found.done()]


def close_seat(setup: Setup) -> None:
    """End the engine of this description, if there is one; who waits for it is told. The next call starts another."""
    with _lock:
        found = _seats.pop(setup, None)
    if found is not None and found.exception() is None:
        found.result().engine.close()


def _is_over(found: Future[Seat]) -> bool:
    return found.done() and (found.exception() is not None or found.result().engine.is_dead)


def _open(setup: Setup, found: Future[Seat]) -> None:
    try:
        found.set_result(_seat(setup))
    except BaseException as error:  # noqa: BLE001 -- whatever it is, those who wait must hear of it
        found.set_exception(error)


def _seat(setup: Setup) -> Seat:
    config = EngineConfig(**dict(setup.settings)) if setup.engine is None else setup.engine.config  # type: ignore[arg-type]
    return Seat(_engine(setup), config.max_waiting)


def _engine(setup: Setup) -> Asked:
    if setup.engine is not None:
        return EngineHere(setup.engine)
    if setup.executor is not None and setup.executor != "local":
        arguments = (setup.model, dict(setup.settings), setup.queue)
        return RemoteEngine(open_executor(setup.executor), arguments, dict(setup.resources))
    from exoflow.llm import Engine  # torch: not before it is wanted

    return EngineHere(Engine(setup.model, queue=setup.queue() if setup.queue else None, **dict(setup.settings)))


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


@atexit.register
def _close() -> None:
    for setup, found in list(_seats.items()):
        if found.done():
            close_seat(setup)
