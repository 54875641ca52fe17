"""Group commit: records of all runs in one durable order, as few durable writes as there are waiters to satisfy.

A thread that waits writes all that is queued itself, and whoever waits with it is covered: a lone waiter costs one
durable write and no thread switch. So does an event loop that has asked to be told, where a write is short. A
background thread serves all other callbacks, and flushes what nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from weakref import WeakSet

from exoflow.errors import ExoFlowError, Fenced, Interruption, StorageError
from exoflow.hooks import reach
from exoflow.journal.frames import NOWHERE, Entry
from exoflow.journal.living import living
from exoflow.journal.records import OWNERSHIP, Kind, encode, encoder
from exoflow.journal.slots import Slots
from exoflow.protocols import Record, Store

URGENT_BYTES = 64 * 1024
LINGER_S = 0.005
_IDLE_TICKS = 20
_SHORT_S = 0.002
_SHARE = 100
"""An event loop writes itself where that takes less than ``_SHORT_S`` on the average, or a hundredth of its time."""
_CHANGES_OWNER = tuple(kind in OWNERSHIP for kind in range(max(Kind) + 1))  # an IntEnum's hash is Python, and slow

_log = logging.getLogger(__name__)

Callback = Callable[[BaseException | None], None]


class Rested(StorageError):
    """A journal in a bucket that had nothing to do, and has ended: the process begins another."""


class GroupCommit:
    """A ``protocols.Log`` over slots. Positions begin at 1.

    Args:
        linger_s: how long a record may wait for company that nobody waits for; None: no background thread, so
            ``notify`` is served by whoever waits.
        beat_s: how long the journal may stay silent before its Seal; None: its slots are locked, so it may.
        rest_s: for how long it beats without a run before it ends of itself: then nobody has to ask whether it lives.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        slots: Slots,
        *,
        linger_s: float | None = LINGER_S,
        beat_s: float | None = None,
        rest_s: float = math.inf,
    ) -> None:
        self.store = store
        self.name = name
        self._slots = slots
        self._linger_s = linger_s
        self._beat_s = beat_s
        self._rest_s = rest_s
        self._lock = threading.Lock()
        """Guards the queue: held for microseconds, never during I/O."""
        self._io = threading.Lock()
        """Held by whoever writes. Taken before ``_lock``."""
        self._encode = encoder()
        self._queue: list[Entry] = []
        self._queued_bytes = 0
        self._last = 0
        self._durable = 0
        self._failure: BaseException | None = None
        self._leader: threading.Lock | None = None
        self._followers: list[tuple[int, threading.Lock]] = []
        self._watchers: list[tuple[int, int, bool, Callback]] = []
        """Their positions, their order, and whether they wait for a loop: else for the background thread, which looks
        after the others when they have waited for a tick."""
        self._hasty = 0
        """So many wait for the background thread."""
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        """Those that will write in a turn to come."""
        self._loop_takes_s = 0.0
        self._loops_rest_until_s = 0.0
        self._order = itertools.count()
        self._wake = threading.Lock()
        self._wake.acquire()
        self._parked = True
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wrote_s = 0.0
        self._recorded_s = 0.0
        """As ``_wrote_s``, beats not counted."""
        self._claimed_runs: set[int] = set()
        self._open_runs: set[int] = set()
        living.add(self)

    def append(self, record: Record) -> int:
        kind = record[0]
        with self._lock:
            if self._failure is not None:
                raise again(self._failure)
            data = self._encode(record)
            self._queue.append((data, record[1], kind))
            self._queued_bytes += len(data)
            self._last = position = self._last + 1
            if _CHANGES_OWNER[kind]:
                self._note_owner(kind, record[1])
            if self._parked or self._queued_bytes > URGENT_BYTES:
                self._stir()
        return position

    @property
    def durable(self) -> int:
        return self._durable

    def wait(self, position: int) -> None:
        assert position <= self._last, f"position {position} was never given out; the last one is {self._last}"
        if self._durable >= position:
            return
        self._follow_or_lead(position)
        if self._linger_s is None:
            self._call_back()

    def flush(self) -> None:
        """Make durable what was appended until now.

        Raises:
            Fenced, StorageError: as ``append``.
        """
        self.wait(self._last)

    def _follow_or_lead(self, position: int) -> None:
        """Whoever waits first writes for all; then the first one that it did not cover writes for the rest."""
        turn = threading.Lock()
        turn.acquire()
        with self._lock:
            if self._leader is None:
                self._leader = turn
                turn.release()
            else:
                self._followers.append((position, turn))
        try:
            turn.acquire()
            if self._durable < position:
                with self._io:
                    if self._durable < position:
                        self._flush()
        except BaseException:  # an interrupt while it waits among them
            with self._lock:
                self._followers = [each for each in self._followers if each[1] is not turn]
            raise
        finally:
            if self._leader is turn:
                self._pass_on()

    def _pass_on(self) -> None:
        """Wake those that are covered, and the one that is to write next: it first, so that the disk is never idle."""
        with self._lock:
            everybody = self._failure is not None
            covered = [turn for at, turn in self._followers if everybody or at <= self._durable]
            rest = [] if everybody else [each for each in self._followers if each[0] > self._durable]
            self._leader = rest.pop(0)[1] if rest else None
            self._followers = rest
            if self._leader is not None:
                self._leader.release()
        for turn in covered:
            turn.release()

    def notify(self, position: int, callback: Callback) -> None:
        """See ``protocols.Log``. Never calls back from inside ``append``, ``wait`` or ``notify`` of any thread."""
        assert position <= self._last, f"position {position} was never given out; the last one is {self._last}"
        loop = self._loop_that_writes()
        with self._lock:
            heapq.heappush(self._watchers, (position, next(self._order), loop is not None, callback))
            if loop is None:
                self._hasty += 1
                self._stir()
                return
            called = loop in self._loops
            self._loops.add(loop)
        if not called:
            nowhere = contextvars.Context()  # else one that holds whose flow waits; two loops cannot share one
            loop.call_soon(partial(loop.call_soon, self._serve_in, loop, context=nowhere), context=nowhere)

    def _loop_that_writes(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of this thread, if it may write: to wake another thread takes longer than a short write."""
        loop = asyncio._get_running_loop()
        if loop is None or not self._slots.are_short or time.monotonic() < self._loops_rest_until_s:
            return None
        return loop

    def _serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the turn of that loop after the next, in its thread: write for all that both have brought."""
        with self._lock:
            self._loops.discard(loop)
        begun = time.monotonic()
        self._flush_quietly()
        ended = time.monotonic()
        self._loop_takes_s += (ended - begun - self._loop_takes_s) / 8
        if self._loop_takes_s > _SHORT_S:
            self._loops_rest_until_s = ended + self._loop_takes_s * _SHARE
        self._call_back()

    def _note_owner(self, kind: int, run: int) -> None:
        self._claimed_runs.discard(run)
        if kind in (Kind.START, Kind.ADOPTED):
            self._open_runs.add(run)
        else:
            self._open_runs.discard(run)

    def _flush(self) -> None:
        """Write all that is queued. ``_io`` is held."""
        with self._lock:
            if self._failure is not None:
                raise again(self._failure)
            queue, self._queue, self._queued_bytes = self._queue, [], 0
            last = self._last
        if not queue:
            return
        try:
            self._slots.write(queue, last - len(queue) + 1)
            self._wrote_s = self._recorded_s = time.monotonic()
        except (StorageError, Fenced) as failure:
            self._stop(failure)
            raise
        except BaseException:  # Ctrl-C, say, in the thread that writes for all: whoever comes next writes it again
            with self._lock:
                self._queue[:0] = queue
            raise
        self._durable = last
        reach("journal.acknowledged")
        if self._hasty and self._watchers and self._watchers[0][0] <= last:
            with self._lock:
                self._stir()

    def _stop(self, failure: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = failure
            if self._thread is not None or self._watchers:
                self._stir()

    def _open(self) -> None:
        """Make the first slot, if there is none yet: from then on others can see whether we live."""
        with self._io:
            if self._slots.number < 0:
                with self._lock:
                    if self._failure is not None:
                        raise again(self._failure)
                try:
                    self._slots.write((), NOWHERE)
                    self._wrote_s = self._recorded_s = time.monotonic()
                except (StorageError, Fenced) as failure:
                    self._stop(failure)
                    raise
                with self._lock:
                    self._stir()

    def close(self, release: bool = True) -> None:
        """Write what is queued, Released for each open run and a Seal (unless ``release`` is False), and let go.

        Raises:
            StorageError: what was queued could not be written.
        """
        try:
            with self._io:
                if not self._closed and self._failure is None:
                    self._finish(release)
        finally:
            self._closed = True
            self._stop(StorageError("this journal is closed"))
            self._slots.close()
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join()

    def _finish(self, release: bool) -> None:
        with self._lock:
            if release:
                for run in sorted(self._open_runs):
                    self._queue.append((encode((Kind.RELEASED, run)), run, Kind.RELEASED))
                    self._last += 1
        try:
            self._flush()
            if release and self._slots.number >= 0:
                reach("journal.seal.before")
                self._write_seal()
        except Fenced:
            pass  # whoever took over has sealed it

    def _write_seal(self) -> None:
        """Say that nothing more comes. ``_io`` is held, and nothing is queued: a store that is gone has lost nothing.

        Raises:
            Fenced: as ``append``.
        """
        try:
            self._slots.write([(encode((Kind.SEAL, 0)), 0, Kind.SEAL)], NOWHERE)
        except StorageError as failure:  # silent from now on, so it counts as dead all the same
            _log.debug("the journal of %s ended without a seal: %s", self.store.url, failure)

    def _stir(self) -> None:
        """Wake the background thread; start it first, if need be. ``_lock`` is held."""
        if self._linger_s is None:
            return
        self._parked = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="exoflow-journal", daemon=True)
            self._thread.start()
        if self._wake.locked():
            self._wake.release()

    def _serve(self) -> None:
        """The background thread: ticks while records come, sleeps when none do."""
        assert self._linger_s is not None
        idle_ticks, seen = 0, 0
        while True:
            timeout = -1.0 if idle_ticks > _IDLE_TICKS else self._linger_s
            if timeout < 0 and self._beat_s is not None:
                timeout = self._until_beat_s()
            woken = self._wake.acquire(timeout=timeout)
            with self._lock:
                pending, failed = len(self._queue), self._failure is not None
                urgent = self._hasty > 0 or self._queued_bytes > URGENT_BYTES
                oldest = self._last - pending + 1
                if pending or woken:
                    idle_ticks = 0
                else:
                    idle_ticks += 1
                    self._parked = idle_ticks > _IDLE_TICKS
            if pending and not failed and (urgent or oldest == seen):
                self._flush_quietly()
            elif self._beat_s is not None and not failed and self._until_beat_s() == 0 and not self._rest():
                self._beat()
            seen = oldest if pending else 0
            self._call_back()
            if self._closed:
                return

    def _flush_quietly(self) -> None:
        try:
            self.wait(self._last)
        except (ExoFlowError, Interruption):
            pass  # whoever waits or appends next is told
        except Exception as error:  # noqa: BLE001  a mistake of ours, or no memory: who waits must hear of it, not hang
            failure = StorageError(f"the journal cannot be written: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._stop(failure)

    def _until_beat_s(self) -> float:
        """How long the journal may still be silent."""
        assert self._beat_s is not None
        if self._slots.number < 0 or self._failure is not None:
            return self._beat_s
        return max(0.0, self._wrote_s + self._beat_s - time.monotonic())

    def _beat(self) -> None:
        self._wrote_s = time.monotonic()  # also if it fails: the next one is due a beat later
        try:
            with self._io:
                self._slots.write([(encode((Kind.BEAT, 0)), 0, Kind.BEAT)], NOWHERE)
        except StorageError as failure:
            _log.warning("the journal of %s could not say that it lives, and tries again: %s", self.store.url, failure)
        except Fenced as failure:
            self._stop(failure)

    def _rest(self) -> bool:
        """End the journal if it has had no run for long; whether it did."""
        with self._io:
            with self._lock:
                busy = self._open_runs or self._claimed_runs or self._queue or self._watchers
                if busy or time.monotonic() < self._recorded_s + self._rest_s or self._failure is not None:
                    return False
                self._failure = Rested(f"{self.store.url}: the journal {self.name} had nothing to do, and has ended")
            with contextlib.suppress(Fenced):
                self._write_seal()
        self._closed = True
        return True

    def _call_back(self) -> None:
        ready: list[tuple[Callback, BaseException | None]] = []
        with self._lock:
            watchers, durable, failure = self._watchers, self._durable, self._failure
            while watchers and (watchers[0][0] <= durable or failure is not None):
                position, _, by_loop, callback = heapq.heappop(watchers)
                self._hasty -= not by_loop
                ready.append((callback, None if position <= durable else failure))
        for callback, why in ready:
            try:
                callback(None if why is None else again(why))
            except Exception:  # noqa: BLE001  one run's mistake must not stop all others' writes
                _log.exception("a callback of the journal failed")

    def can_write(self) -> bool:
        """Whether it is neither closed nor stopped."""
        return not self._closed and self._failure is None

    def after_fork(self) -> None:
        """A child must not write: it has the parent's queue and its lock."""
        self._lock, self._io, self._wake = threading.Lock(), threading.Lock(), threading.Lock()
        self._thread, self._linger_s, self._watchers, self._followers = None, None, [], []
        self._hasty, self._loops = 0, WeakSet()
        self._leader = None
        self._failure = StorageError(f"process {os.getpid()} was forked from the journal's owner: open the store anew")


def again(failure: BaseException) -> BaseException:
    """The same error for another thread: one exception raised twice would gather both tracebacks."""
    copy = type(failure)(*failure.args)
    copy.__cause__ = failure
    return copy
