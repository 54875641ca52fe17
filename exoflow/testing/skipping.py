"""Time that a test skips: a flow that sleeps for a week ends in a millisecond."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from exoflow.driver.async_body import AsyncBody
from exoflow.driver.clock import SYSTEM_CLOCK, Timers, call, clock_in_use, use
from exoflow.driver.runtime import live_executions

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

LOOK_S = 0.001
"""How often the runs are looked at."""

_CYCLES = 32
"""So many turns of an event loop without news, and nothing is on its way through asyncio's own tasks and futures."""


class SkippedTime:
    """A clock that stands still, and jumps; what ``skipping_time`` gives.

    It jumps to the next timer, backoff or timeout of any run, once nothing else can bring the runs on, and only while
    somebody waits: for a run's result, or in ``advance``. It never jumps while a task runs.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self._begun = SYSTEM_CLOCK.now()
        self._timers = Timers()
        self._asked: list[_Advance] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="exoflow-skipping", daemon=True)

    def now(self) -> float:
        """Seconds since the epoch, as the runs see it."""
        return SYSTEM_CLOCK.now() if self._over.is_set() else self._now

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self._now - self._begun if self._over.is_set() else self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            if self._over.is_set():
                return SYSTEM_CLOCK.call_at(when, callback)
            entry = self._timers.add(when, callback)

        def forget() -> None:
            with self._lock:
                self._timers.forget(entry)

        return forget

    def advance(self, seconds: float) -> None:
        """Let time pass, up to whatever is due meanwhile, one after the other; then all runs wait again.

        Raises:
            RuntimeError: on a running event loop: ``await asyncio.to_thread(clock.advance, s)`` does not block it.
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"advance({seconds}): time does not go back")
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                f"clock.advance({seconds}) would block the event loop, which the flows may need: write "
                f"`await asyncio.to_thread(clock.advance, {seconds})`"
            )
        asked = _Advance(self._now + seconds)
        self._asked.append(asked)
        asked.done.wait()

    # -- its thread ----------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._over.wait(LOOK_S):
            asked = self._asked[0] if self._asked else None
            runs = [run for run in live_executions() if run.clock is self]
            if asked is None and not any(run.awaited for run in runs) or not _all_wait(runs):
                continue
            due = self._jump(None if asked is None else asked.until_s)
            if asked is not None and not due:
                self._asked.remove(asked)
                asked.done.set()
            for callback in due:
                call(callback)

    def _jump(self, until_s: float | None) -> list[Callable[[], None]]:
        """On to the next timer, but not beyond ``until_s``; what is due then."""
        with self._lock:
            next_s = self._timers.next_s()
            if next_s is None or until_s is not None and next_s > until_s:
                self._now = self._now if until_s is None else max(self._now, until_s)
                return []
            self._now = max(self._now, next_s)
            return list(iter(lambda: self._timers.due(self._now), None))

    def _end(self) -> None:
        with self._lock:
            self._over.set()
            while (when := self._timers.next_s()) is not None:
                callback = self._timers.due(when)
                assert callback is not None
                SYSTEM_CLOCK.call_at(when, callback)
        self._thread.join()
        for asked in self._asked:
            asked.done.set()


class _Advance:
    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.done = threading.Event()


def _all_wait(runs: list[Execution]) -> bool:
    before = [run.pauses() for run in runs]
    if None in before:
        return False
    bodies = [body for run in runs for body in list(run.bodies.values()) if isinstance(body, AsyncBody)]
    for loop in {body.loop for body in bodies if body.loop is not None}:
        _turn(loop)
    return [run.pauses() for run in runs] == before


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop go round, so that whoever was woken is where it waits again."""
    round_it = threading.Event()

    def cycle(left: int) -> None:
        if left:
            loop.call_soon(cycle, left - 1)
        else:
            round_it.set()

    try:
        loop.call_soon_threadsafe(cycle, _CYCLES)
    except RuntimeError:  # it is closed: its runs have no more say
        return
    while not round_it.wait(1.0) and loop.is_running():
        pass


@contextmanager
def skipping_time() -> Iterator[SkippedTime]:
    """In this block, time is skipped for the runs that begin in it: what they would wait for comes at once.

    For tests of flows with timers, deadlines and backoffs. Time stands still but for jumps: to the next timer, as often
    as every run only waits, while the test asks for a run's result; or by ``clock.advance(seconds)``. ``exoflow.now()``
    sees it. What is not exoflow's goes on in real time: ``time.sleep``, ``asyncio.sleep``, a task's ``timeout``.
    After the block, what has not ended goes on in real time.

    Raises:
        RuntimeError: time is being skipped already.
    """
    if clock_in_use() is not SYSTEM_CLOCK:
        raise RuntimeError("time is being skipped already: one block of skipping_time() at a time")
    clock = SkippedTime()
    use(clock)
    clock._thread.start()
    try:
        yield clock
    finally:
        use(SYSTEM_CLOCK)
        clock._end()


__all__ = ["SkippedTime", "skipping_time"]
