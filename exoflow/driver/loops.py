"""Event loops: the one for async flows that are started from sync code, and the way into a loop from other threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import wait
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from exoflow.driver.signals import at_a_time
from exoflow.driver.strands import hook
from exoflow.inlet import Inlet

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None

T = TypeVar("T")
Waiting = asyncio.Future[None]


def background_loop() -> asyncio.AbstractEventLoop:
    """One loop, in a thread of its own, for the whole process."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="exoflow-loop", daemon=True).start()
        return _loop


def waited(work: Coroutine[Any, Any, T]) -> T:
    """What comes of it on that loop; what interrupts this thread meanwhile ends it there."""
    future = asyncio.run_coroutine_threadsafe(work, background_loop())
    try:
        while not future.done():
            wait((future,), at_a_time(None))
        return future.result()
    except BaseException:
        future.cancel()
        raise


class Mailbox:
    """Futures of one loop that are to be resolved."""

    __slots__ = ("_inlet", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._inlet = Inlet(loop, _resolve)

    def post(self, futures: Iterable[Waiting]) -> None:
        """Resolve the futures, from any thread; nothing happens where their loop is closed."""
        loop = asyncio._get_running_loop()
        if loop is not None and loop is self._loop():
            resolve(futures)
        else:
            self._inlet.put(futures)


def resolve(futures: Iterable[Waiting]) -> None:
    """Let those go on who wait, in the loop's own thread."""
    for future in futures:
        _resolve(future)


def _resolve(future: Waiting) -> None:
    if not future.done():
        future.set_result(None)


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox] = WeakKeyDictionary()


def mailbox(loop: asyncio.AbstractEventLoop) -> Mailbox:
    """The mailbox of a loop; to be asked in its thread. From then on the loop names the strands of flow bodies."""
    found = _mailboxes.get(loop)
    if found is None:
        hook(loop)
        found = _mailboxes[loop] = Mailbox(loop)
    return found


_tasks: set[asyncio.Task[None]] = set()
_discard = _tasks.discard


def keep(task: asyncio.Task[None]) -> None:
    """Hold a task until it has ended: its loop itself holds it weakly."""
    _tasks.add(task)
    task.add_done_callback(_discard, context=contextvars.Context())  # else one that holds whose flow began it
