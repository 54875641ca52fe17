"""The thread of an actor, beside Dask's, so that it waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from distributed import Worker
from distributed.worker import _worker_cvar

from exoflow.executors.living import WorkerActors
from exoflow.executors.threads import Threads, run_all
from exoflow.model import Held
from exoflow.protocols import Attempt

R = TypeVar("R")


class Lane:
    """One actor's, so that what a library keeps by thread is found again."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._threads: Threads[Callable[[], None]] = Threads(1, run_all, "exoflow-dask-actor")

    def run(self, work: Callable[[], R]) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def there() -> None:
            _worker_cvar.set(self._worker)  # by which get_worker() and get_client() find it, as in a task
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 -- whoever awaits it gets it
                loop.call_soon_threadsafe(_settle, future, future.set_exception, error)
            else:
                loop.call_soon_threadsafe(_settle, future, future.set_result, result)

        self._threads.put(there)
        return future

    def close(self) -> None:
        self._threads.close()


class Leaving(WorkerActors):
    """The actors of a seat, as one body has them: it ends before it leaves its state."""

    def __init__(self, actors: WorkerActors, end: Callable[[], None]) -> None:
        self.__dict__.update(actors.__dict__)
        self._end = end

    def keep(self, actor: object, attempt: Attempt) -> Held:
        self._end()
        return super().keep(actor, attempt)


def _settle(future: asyncio.Future[Any], how: Callable[[Any], None], what: object) -> None:
    if not future.done():  # nobody awaits it any more
        how(what)
