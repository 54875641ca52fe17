"""Threads of this process, and one event loop for ``async def`` tasks."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from exoflow.attempts import is_async, raised, run_attempt, run_attempt_async
from exoflow.attempts.actors import run_actor, run_actor_async, snapshot_of
from exoflow.codec import Encoded, Live
from exoflow.errors import CodecError, ExecutorError, Interruption, StorageError
from exoflow.executors.actors.living import LiveActor, LocalActors
from exoflow.executors.ordering import Elsewhere
from exoflow.executors.reading import StoredValues
from exoflow.executors.threads import Deadlines, Take, Threads, run_all
from exoflow.inlet import Inlet
from exoflow.model import Held, RunId, Stored, Value, Version
from exoflow.protocols import Attempt, Outcome, Store, Vanished

GRACE_S = 5.0
"""How long a cancelled coroutine may take to end before it is reported all the same."""

_SAVERS = 2
_STARTS = 16
"""Coroutines that begin in one turn of the loop: of thousands, the first ones wait for the net while others begin."""
_Key = tuple[RunId, Version]


class LocalHandle:
    """A value in this process; freed when the last Held that has it is gone, or it is released."""

    __slots__ = ("made",)

    def __init__(self, made: Encoded | Live) -> None:
        self.made: Encoded | Live | None = made


class _Entry:
    """An attempt between ``start`` and its report."""

    __slots__ = ("attempt", "key", "reason", "report", "running", "task", "timer")

    def __init__(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        self.attempt = attempt
        self.report = report
        self.key: _Key = (attempt.run_id, attempt.version)
        self.running = False
        self.task: asyncio.Future[Outcome] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.reason: str | None = None


class LocalExecutor:
    """Runs attempts in threads. A thread cannot be ended: one that timed out or was cancelled runs on, unheard.

    Args:
        max_workers: Threads; ``min(32, cores + 4)`` if None. Coroutines are not limited.
        store: Where values are saved to and read from.
        elsewhere: Reads what other executors hold.
    """

    name = "local"
    remote = False
    has_actors = True

    def __init__(
        self, max_workers: int | None = None, *, store: Store | None = None, elsewhere: Elsewhere | None = None
    ) -> None:
        self._stored = StoredValues(store)
        self._actors = LocalActors(self.name, self._stored)
        self._elsewhere = elsewhere
        limit = max_workers or min(32, (os.cpu_count() or 1) + 4)
        self._threads: Threads[_Entry] = Threads(limit, self._serve, "exoflow-local")
        self._savers: Threads[Callable[[], None]] = Threads(_SAVERS, run_all, "exoflow-save")
        self._deadlines: Deadlines[_Entry] = Deadlines(self._time_out, self._is_live, "exoflow-deadlines")
        self._live: dict[_Key, _Entry] = {}
        """An undo has the key of the attempt that it undoes, whose thread may still run: ask which entry is there."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inlet: Inlet[_Entry] | None = None
        self._closed = False

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        if self._closed:
            raise ExecutorError("the executor is closed")
        entry = _Entry(attempt, report)
        if is_async(attempt.function):
            coroutines = self._coroutines()  # there is a loop before somebody can cancel it
            self._live[entry.key] = entry
            coroutines.put((entry,))
        else:
            self._live[entry.key] = entry
            self._threads.put(entry)

    def run(self, attempt: Attempt) -> Outcome:
        """Run an attempt in the calling thread: for a plain call, whose caller would only wait."""
        return run_attempt(attempt, self._fetch, self._keep)

    def run_async(self, attempt: Attempt) -> Coroutine[Any, Any, Outcome]:
        """Run an ``async def`` attempt in the asyncio task that awaits it."""
        return run_attempt_async(attempt, self._fetch, self._keep)

    def cancel(self, version: Version, run_id: RunId) -> None:
        entry = self._live.get((run_id, version))
        if entry is not None:
            self._stop(entry, "cancelled")

    def fetch(self, value: Held) -> Encoded | Live:
        if isinstance(value.handle, LiveActor):
            return snapshot_of(self._actors.look_at(value))
        made = cast(LocalHandle, value.handle).made
        if made is None:
            raise KeyError("the value was released or lost")
        return made

    def save(self, value: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        self.save_together([value], name, lambda saved: report(saved[0] if isinstance(saved, Sequence) else saved))

    def save_together(
        self, values: Sequence[Held], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        def write() -> None:
            try:
                found = [self.fetch(value) for value in values]
                saved: Sequence[Stored] | BaseException = self._stored.write_together(found, name)
            except (CodecError, StorageError, ExecutorError, KeyError) as error:
                saved = error
            report(saved)

        self._savers.put(write)

    def release(self, value: Held) -> None:
        if isinstance(value.handle, LiveActor):
            value.handle.actor = None
        else:
            cast(LocalHandle, value.handle).made = None

    def drop(self, value: Held) -> None:
        self.release(value)

    def close(self) -> None:
        """Attempts that still run are not reported any more."""
        self._closed = True
        self._live.clear()
        self._threads.close()
        self._savers.close()
        self._deadlines.close()
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _serve(self, take: Take[_Entry]) -> None:
        while (entry := take()) is not None:
            with self._lock:
                if self._live.get(entry.key) is not entry:  # cancelled while it waited
                    continue
                entry.running = True
            if entry.attempt.timeout_s is not None:
                self._deadlines.add(entry.attempt.timeout_s, entry)
            try:
                outcome = self._perform(entry.attempt)
            except Interruption as error:
                outcome = Vanished(f"its body ended with {type(error).__name__}")
            if not self._ends(entry):
                return  # it was given up, and another thread has this one's place
            with self._threads.spare():
                entry.report(outcome)
            del entry, outcome  # an idle thread must not keep a value alive

    def _perform(self, attempt: Attempt) -> Outcome:
        if attempt.actor is not None:
            return run_actor(attempt, self._fetch, self._keep, self._actors)
        return run_attempt(attempt, self._fetch, self._keep)

    def _perform_async(self, attempt: Attempt) -> Coroutine[Any, Any, Outcome]:
        if attempt.actor is not None:
            return run_actor_async(attempt, self._fetch, self._keep, self._actors)
        return run_attempt_async(attempt, self._fetch, self._keep)

    def _is_live(self, entry: _Entry) -> bool:
        return self._live.get(entry.key) is entry

    def _ends(self, entry: _Entry) -> bool:
        """Take an attempt off the live ones; False: it was given up, and its place may be that of its undo."""
        with self._lock:
            if self._live.get(entry.key) is not entry:
                return False
            del self._live[entry.key]
            return True

    def _time_out(self, entry: _Entry) -> None:
        self._stop(entry, f"timed out after {entry.attempt.timeout_s} s; its thread cannot be ended and may still run")

    def _stop(self, entry: _Entry, reason: str) -> None:
        with self._lock:
            if self._live.get(entry.key) is not entry:
                return
            if is_async(entry.attempt.function):
                if self._loop is not None:  # else it was closed meanwhile, and nobody hears of it any more
                    self._loop.call_soon_threadsafe(self._cancel_task, entry, reason)
                return
            del self._live[entry.key]
            running = entry.running
        if running:
            self._threads.replace_one()
        entry.report(Vanished(reason))

    def _fetch(self, value: Value) -> Encoded | Live:
        if isinstance(value, Stored):
            return self._stored.read(value)
        assert isinstance(value, Held)
        if value.executor == self.name:
            return self.fetch(value)
        if self._elsewhere is None:
            raise KeyError(f"the value lies with the executor {value.executor!r}")
        found = self._elsewhere(value, None)
        assert not isinstance(found, Stored), "it was not to be saved"
        return found

    def _keep(self, made: Sequence[Encoded | Live], name: str | None) -> list[Value]:
        return self._stored.kept(made, name, self._hold)

    def _hold(self, made: Encoded | Live) -> Held:
        return Held(self.name, LocalHandle(made), made.size)

    def _coroutines(self) -> Inlet[_Entry]:
        """The way of coroutines into their loop. A task is no part of the flow that calls it, here as in a thread."""
        with self._lock:
            if self._inlet is None:
                loop = self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=(loop,), name="exoflow-loop", daemon=True).start()
                self._inlet = Inlet(loop, self._start_coroutine, _STARTS)
            return self._inlet

    def _start_coroutine(self, entry: _Entry) -> None:
        loop = asyncio.get_running_loop()
        if entry.reason is not None:  # cancelled before it began
            self._settle(entry, Vanished(entry.reason))
            return
        entry.task = loop.create_task(self._perform_async(entry.attempt))
        entry.task.add_done_callback(functools.partial(self._ended, entry))
        if entry.attempt.timeout_s is not None:
            reason = f"timed out after {entry.attempt.timeout_s} s"
            entry.timer = loop.call_later(entry.attempt.timeout_s, self._cancel_task, entry, reason)

    def _cancel_task(self, entry: _Entry, reason: str) -> None:
        if entry.reason is None:
            entry.reason = reason
            if entry.task is not None:
                entry.task.cancel()
                late = Vanished(f"{reason}; its body does not end")
                entry.timer = asyncio.get_running_loop().call_later(GRACE_S, self._settle, entry, late)

    def _ended(self, entry: _Entry, task: asyncio.Future[Outcome]) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        if entry.reason is not None:
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain of it
            self._settle(entry, Vanished(entry.reason))
        elif task.cancelled():
            self._settle(entry, raised(asyncio.CancelledError("the body cancelled itself"), 0.0))
        elif (error := task.exception()) is not None:
            self._settle(entry, Vanished(f"its body ended with {type(error).__name__}"))
        else:
            self._settle(entry, task.result())

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        if self._ends(entry):
            entry.report(outcome)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=GRACE_S))
    finally:
        loop.close()
