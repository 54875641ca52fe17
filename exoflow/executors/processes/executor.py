"""Worker processes of this machine. A worker that is killed costs its own attempt and nothing else."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import cast

import msgpack

from exoflow.attempts import raised
from exoflow.codec import Encoded, Live, as_encoded
from exoflow.errors import CodecError, ExecutorError, StorageError
from exoflow.executors.actors.lanes import Lanes
from exoflow.executors.actors.living import is_state
from exoflow.executors.ordering import Carrier, Elsewhere, Functions, Send, actor_order, carried, order_of
from exoflow.executors.processes.child import Worker, WorkerDied
from exoflow.executors.processes.spool import EXECUTOR, Spool, delete_spool, read_spool, write_spool
from exoflow.executors.reading import StoredValues
from exoflow.executors.threads import Take, Threads, run_all
from exoflow.executors.wire import ActorOrder, pack_order, pack_saving, unpack_outcome, unpack_saved
from exoflow.model import CallId, Held, RunId, Stored, Value, Version
from exoflow.protocols import Attempt, Outcome, Store, Vanished

_SAVERS = 2
_TIMED_OUT = "timed out after {} s; its worker was killed"
_STARTS = 3  # tries at starting a worker for one attempt
_CLOSE_TIMEOUT_S = 10.0
_Key = tuple[RunId, Version]


class _Entry:
    """An attempt between ``start`` and its report."""

    __slots__ = ("attempt", "key", "knows", "place", "reason", "report", "spooled", "worker")

    def __init__(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        self.attempt = attempt
        self.report = report
        self.key: _Key = (attempt.run_id, attempt.version)
        self.worker: Worker | None = None
        self.reason: str | None = None
        self.spooled: list[str] = []
        self.knows: set[bytes] = set()
        """Digests of the functions that its worker will know, once it has the order."""
        self.place = ""
        """Of an actor's attempt: the lane of its worker."""


class _Saving:
    """A state that is to be saved by the worker that has it."""

    __slots__ = ("name", "report", "state")

    def __init__(self, state: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        self.state = state
        self.name = name
        self.report = report


class ProcessExecutor:
    """Runs attempts in worker processes. What has timed out or is cancelled is killed, and then reported.

    Args:
        max_workers: Processes; one a core if None. They start when they are needed.
        store: Where values are saved to and read from. Workers open it themselves if it is ``shared``.
        elsewhere: Reads what other executors hold; KeyError where it is lost.
        inherit: File descriptors that a new worker gets, such as the lock of the journal.
    """

    name = EXECUTOR
    remote = False
    has_actors = True

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        store: Store | None = None,
        elsewhere: Elsewhere | None = None,
        inherit: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        self._stored = StoredValues(store)
        self._carrier = Carrier(self.name, store, elsewhere)
        self._functions = Functions()
        self._inherit = inherit
        limit = max_workers or os.cpu_count() or 1
        self._threads: Threads[_Entry | _Saving] = Threads(limit, partial(self._serve, ""), "exoflow-processes")
        self._lanes: Lanes[_Entry | _Saving] = Lanes(self._serve, "exoflow-processes")
        self._savers: Threads[Callable[[], None]] = Threads(_SAVERS, run_all, "exoflow-save")
        self._live: dict[_Key, _Entry] = {}
        self._workers: set[Worker] = set()
        self._lock = threading.Lock()
        self._spool: Spool | None = None
        self._closed = False

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        if self._closed:
            raise ExecutorError("the executor is closed")
        entry = _Entry(attempt, report)
        self._live[entry.key] = entry
        if attempt.actor is None:
            self._threads.put(entry)
        else:
            self._lanes.put(attempt.actor, entry)

    def cancel(self, version: Version, run_id: RunId) -> None:
        with self._lock:
            entry = self._live.get((run_id, version))
            if entry is None:
                return
            entry.reason = "cancelled"
            if entry.worker is not None:
                entry.worker.kill()  # under the lock: later it may be at work on another attempt
                return
            del self._live[entry.key]
        entry.report(Vanished("cancelled"))

    def fetch(self, value: Held) -> Encoded:
        if is_state(value):
            raise KeyError("the state of an actor is in its worker: it can be saved")
        try:
            return read_spool(cast(str, value.handle))
        except FileNotFoundError as error:
            raise KeyError(f"{value.handle}: the value was released or lost") from error

    def save(self, value: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        if is_state(value):
            if not self._lanes.put_behind(value, _Saving(value, name, report)):
                self._savers.put(lambda: report(KeyError(f"{value.handle}: its worker is gone")))
            return
        self.save_together([value], name, lambda saved: report(saved[0] if isinstance(saved, Sequence) else saved))

    def save_together(
        self, values: Sequence[Held], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        def write() -> None:
            try:
                found = [self.fetch(value) for value in values]
                saved: Sequence[Stored] | BaseException = self._stored.write_together(found, name)
            except (StorageError, ExecutorError, KeyError) as error:
                saved = error
            report(saved)

        self._savers.put(write)

    def release(self, value: Held) -> None:
        if is_state(value):
            self._lanes.release(value)
        else:
            delete_spool(cast(str, value.handle))

    def drop(self, value: Held) -> None:
        self.release(value)

    def close(self) -> None:
        """Attempts that still run are killed and not reported any more."""
        with self._lock:
            self._closed = True
            self._live.clear()
            for worker in self._workers:
                worker.kill()
        self._threads.close()
        self._savers.close()
        self._threads.join(_CLOSE_TIMEOUT_S)
        self._savers.join(_CLOSE_TIMEOUT_S)
        self._lanes.close(_CLOSE_TIMEOUT_S)
        with self._lock:
            spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _serve(self, place: str, take: Take[_Entry | _Saving]) -> None:
        """The life of a thread: it owns one worker, which the kernel ends if this thread should."""
        worker: Worker | None = None
        while (entry := take()) is not None:
            if isinstance(entry, _Saving):
                self._save_state(entry, worker)
            else:
                entry.place = place
                worker = self._serve_one(entry, worker)
            del entry
        if worker is not None:
            self._end(worker)

    def _serve_one(self, entry: _Entry, worker: Worker | None) -> Worker | None:
        """Run one attempt; the worker for the next one, if there still is one."""
        try:
            for _ in range(_STARTS):
                if self._live.get(entry.key) is not entry:  # a new worker would be for nothing
                    return worker
                if worker is None or worker.is_dead():
                    worker = self._replaced(worker, entry.place)
                if worker is None:
                    continue
                order = self._order(entry, worker)
                if not self._begin(entry, worker):
                    return worker
                outcome, worker = self._outcome(entry, worker, order)
                if outcome is not None:
                    self._settle(entry, outcome)
                    return worker
            self._settle(entry, Vanished(f"no worker process could be started ({_STARTS} tries)"))
        except KeyError as error:
            call = CallId(str(error.args[0]))
            self._settle(entry, Vanished(f"its input {call} is lost", lost=(call,), state=entry.attempt.state))
        except (CodecError, StorageError, OSError) as error:  # its arguments cannot be sent
            self._settle(entry, replace(raised(error, 0.0), state=entry.attempt.state))
        finally:
            for path in entry.spooled:
                delete_spool(path)
        return worker

    def _begin(self, entry: _Entry, worker: Worker) -> bool:
        """Give the attempt to the worker, unless it was cancelled while it waited, or the executor is closed."""
        with self._lock:
            if self._live.get(entry.key) is not entry:
                return False
            entry.worker = worker
            return True

    def _outcome(self, entry: _Entry, worker: Worker, order: bytes) -> tuple[Outcome | None, Worker | None]:
        """What became of the attempt (None: the worker died before it had the order), and the worker if it lives."""
        timeout_s = entry.attempt.timeout_s
        started = monotonic()
        reply, sent, died = None, False, False
        try:
            worker.send(order)
            worker.known = entry.knows
            sent = True
            reply = worker.receive(timeout_s)
        except WorkerDied:
            died = True
        with self._lock:
            entry.worker = None  # from here on no cancel kills it
            reason = entry.reason
        if reply is not None and reason is None:
            return unpack_outcome(reply), worker
        how = self._end(worker)
        if reply is not None:  # it was killed in the moment of its answer
            return unpack_outcome(reply), None
        if reason is None and not sent:
            return None, None
        if reason is None:
            reason = f"its worker (process {worker.pid}) died: {how}" if died else _TIMED_OUT.format(timeout_s)
        return Vanished(reason, monotonic() - started), None

    def _settle(self, entry: _Entry, outcome: Outcome) -> None:
        with self._lock:
            is_live = self._live.get(entry.key) is entry  # else cancelled; an undo has the key of what it undoes
            if is_live:
                del self._live[entry.key]
        if entry.place:
            self._lanes.left(entry.place, outcome.state if is_live else None)
        if is_live:
            entry.report(outcome)

    def _save_state(self, saving: _Saving, worker: Worker | None) -> None:
        saved: Stored | BaseException = KeyError(f"{saving.state.handle}: its worker has died")
        if worker is not None:
            try:
                worker.send(pack_saving(saving.state, saving.name))
                reply = worker.receive(None)
                assert reply is not None
                saved = unpack_saved(reply)
            except WorkerDied:
                pass
        saving.report(saved)

    def _replaced(self, worker: Worker | None, place: str) -> Worker | None:
        """A new worker in the place of a dead one or none; None: it does not start, or the executor is closed."""
        if worker is not None:
            self._end(worker)
        setup = msgpack.packb((sys.argv, self._folders(), self._carrier.store_code, place))
        fresh = Worker(setup, self._inherit())
        with self._lock:
            self._workers.add(fresh)
            closed = self._closed
        if closed or not fresh.ready:
            self._end(fresh)
            return None
        return fresh

    def _end(self, worker: Worker) -> str:
        with self._lock:
            self._workers.discard(worker)
        return worker.end()

    def _folders(self) -> list[str]:
        with self._lock:
            if self._spool is None:
                self._spool = Spool()
            return self._spool.folders

    def _order(self, entry: _Entry, worker: Worker) -> bytes:
        attempt = entry.attempt

        def send(found: Encoded | Live) -> Held:
            encoded = as_encoded(found)
            path = write_spool(self._folders(), encoded)
            entry.spooled.append(path)  # it lives as long as the attempt
            return Held(self.name, path, encoded.size)

        known = entry.knows = set(worker.known)
        digest, code = self._functions.code_of(attempt)
        inputs = {call: self._input(attempt, call, value, send) for call, value in attempt.inputs.items()}
        sent = digest, None if digest in known else code
        known.add(digest)
        actor: ActorOrder | None = None
        if attempt.actor is not None:
            readable = partial(self._input, attempt, attempt.call, send=send)
            actor = actor_order(attempt, self._functions, known, send, readable)
        order = order_of(attempt, sent, inputs, send, actor)
        return pack_order(order)

    def _input(self, attempt: Attempt, call: CallId, value: Value, send: Send) -> Value:
        if isinstance(value, Stored) and not self._carrier.workers_read_store:
            return carried(self._stored.read(value), send)
        return self._carrier.input(attempt, call, value, send)
