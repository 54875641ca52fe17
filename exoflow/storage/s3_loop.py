"""The event loop on which this process talks to S3, in a thread of its own.

Not the one of fsspec: the last batches of a process are written while the interpreter ends, and by then Python lets no
executor of its own begin anything, which a loop needs to look a host's name up.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: tuple[int, asyncio.AbstractEventLoop] | None = None


class _Threads(ThreadPoolExecutor):
    """A thread for each call, at any time."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  whoever waits for the call gets it
                future.set_exception(error)

        threading.Thread(target=call, name="exoflow-s3-call", daemon=True).start()
        return future


def loop() -> asyncio.AbstractEventLoop:
    """This process's loop; a forked child gets its own."""
    global _loop
    with _lock:
        if _loop is None or _loop[0] != os.getpid():
            new = asyncio.new_event_loop()
            new.set_default_executor(_Threads(max_workers=1))
            threading.Thread(target=new.run_forever, name="exoflow-s3", daemon=True).start()
            _loop = os.getpid(), new
        return _loop[1]


def begin(request: Coroutine[Any, Any, T]) -> Future[T]:
    """What the request will return or raise. Who is interrupted while he waits leaves it to go on by itself."""
    return asyncio.run_coroutine_threadsafe(request, loop())


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
