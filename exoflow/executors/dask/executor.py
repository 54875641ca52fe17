"""Attempts on a Dask cluster."""

from __future__ import annotations

import atexit
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from math import inf
from time import monotonic

from distributed import Client

from exoflow.attempts import raised
from exoflow.codec import Encoded, Live, as_encoded
from exoflow.errors import ExecutorError, StorageError
from exoflow.executors.actors.living import is_state
from exoflow.executors.dask.cluster import Connection
from exoflow.executors.dask.dispatcher import Dispatcher
from exoflow.executors.dask.entry import Entry, Key
from exoflow.executors.dask.parcel import FUTURES
from exoflow.executors.ordering import Carrier, Elsewhere, Functions, actor_order, carried, order_of
from exoflow.executors.reading import StoredValues
from exoflow.executors.threads import Take, Threads, run_all
from exoflow.executors.wire import ActorOrder, pack_order
from exoflow.model import CallId, Held, RunId, Stored, Value, Version
from exoflow.protocols import Attempt, Outcome, Store, Vanished

_PREPARERS = 2  # one may wait for what another executor holds
_SAVERS = 2


class DaskExecutor:
    """Runs attempts in the threads of Dask's workers, each on one worker and never again by Dask itself.

    What timed out or is cancelled gets ``errors.Interruption`` thrown into it. A body that does not end for that costs
    its worker, in a cluster of this executor's own; in another's it is reported, and may still run.

    Args:
        cluster: The scheduler's address, or a client, whose cluster is used and never shut down; None: the cluster that
            this process is connected to, else one of its own on this machine, closed with the executor.
        workers: Processes of a cluster of its own.
        store: Where values are saved to and read from.
        elsewhere: Gets what other executors hold.
    """

    remote = True
    has_actors = True

    def __init__(
        self,
        cluster: str | Client | None = None,
        workers: int | None = None,
        *,
        store: Store | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.name = cluster if isinstance(cluster, str) else "dask"
        self._cluster = cluster
        self._workers = workers
        self._carrier = Carrier(self.name, store, elsewhere)
        self._stored = StoredValues(store)
        self._functions = Functions()
        self._preparers: Threads[Entry] = Threads(_PREPARERS, self._prepare_all, "exoflow-dask-prepare")
        self._reporters: Threads[Sequence[tuple[Entry, Outcome]]] = Threads(1, self._report_all, "exoflow-dask-report")
        self._savers: Threads[Callable[[], None]] = Threads(_SAVERS, run_all, "exoflow-save")
        self._live: dict[Key, Entry] = {}
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._dispatcher: Dispatcher | None = None
        self._failure: ExecutorError | None = None
        self._failed_at = -inf
        self._guests: set[RunId] = set()
        """Runs that are on a cluster of others."""
        self._closed = False
        _open.add(self)

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        if self._closed:
            raise ExecutorError("the executor is closed")
        entry = Entry(attempt, report)
        self._live[entry.key] = entry
        self._preparers.put(entry)

    def cancel(self, version: Version, run_id: RunId) -> None:
        with self._lock:
            entry = self._live.get((run_id, version))
            if entry is None:
                return
            entry.reason = "cancelled"
            dispatcher = self._dispatcher if entry.order else None
        if dispatcher is not None:
            dispatcher.cancel(entry, "cancelled")
        else:
            self._settle(entry, Vanished("cancelled", state=entry.state))

    def fetch(self, value: Held) -> Encoded | Live:
        if is_state(value):
            raise KeyError("the state of an actor is in its worker: it can be saved")
        holder = self._holder(value)
        try:
            found: Encoded | Live = holder.wait_for(holder.holdings.fetch(str(value.handle)))
        except CancelledError:
            raise KeyError(f"{value.handle}: the value was lost with its cluster") from None
        return found

    def save(self, value: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        if is_state(value):
            self._save_state(value, name, report)
        else:
            self.save_together([value], name, lambda saved: report(saved[0] if isinstance(saved, Sequence) else saved))

    def save_together(
        self, values: Sequence[Held], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        try:
            holders = [self._holder(value) for value in values]
        except KeyError as error:
            report(error)
            return
        code = self._carrier.store_code
        if code is not None:

            def done(saved: list[Stored] | BaseException) -> None:  # on the loop, which the report must not hold up
                self._savers.put(lambda: report(saved))

            holders[0].begin(holders[0].holdings.save([str(value.handle) for value in values], code, name, done))
        else:
            self._savers.put(lambda: report(self._written_here(values, name)))

    def _written_here(self, values: Sequence[Held], name: str) -> Sequence[Stored] | BaseException:
        try:
            found = [self.fetch(value) for value in values]
            return self._stored.write_together(found, name)
        except (StorageError, ExecutorError, KeyError) as error:
            return error

    def release(self, value: Held) -> None:
        dispatcher = self._dispatcher
        if dispatcher is not None and is_state(value):
            dispatcher.actors.release(value)
        elif dispatcher is not None:
            dispatcher.holdings.release(str(value.handle))

    def drop(self, value: Held) -> None:
        self.release(value)

    def close(self) -> None:
        """Attempts that still run are not reported any more; those in a cluster of its own are killed."""
        with self._lock:
            self._closed = True
            self._live.clear()
        for pool in (self._preparers, self._reporters, self._savers):
            pool.close()
        with self._connecting:
            dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            dispatcher.close()

    def _save_state(self, state: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        def done(saved: Stored | Encoded | BaseException) -> None:  # on the loop
            self._savers.put(lambda: report(self._written(saved, name) if isinstance(saved, Encoded) else saved))

        dispatcher = self._dispatcher
        if dispatcher is None:
            done(KeyError(f"{state.handle}: the state was lost"))
        else:
            dispatcher.begin(dispatcher.actors.save(state, name, done))

    def _written(self, made: Encoded | Live, name: str) -> Stored | BaseException:
        try:
            return self._stored.write(made, name)
        except (StorageError, ExecutorError, KeyError) as error:
            return error

    def _holder(self, value: Held) -> Dispatcher:
        dispatcher = self._dispatcher
        if dispatcher is None or not dispatcher.holdings.has(str(value.handle)):
            raise KeyError(f"{value.handle}: the value was released or lost")
        return dispatcher

    def _connected(self, entry: Entry) -> Dispatcher:
        """To a cluster, for this entry. What waited while that failed fails with it: each try may take long.

        Raises:
            ExecutorError: that is impossible.
        """
        run = entry.attempt.run_id
        with self._connecting:
            dispatcher = self._dispatcher
            if dispatcher is not None and dispatcher.is_over:
                dispatcher.close()
                dispatcher = self._dispatcher = None
            if self._closed:
                raise ExecutorError("the executor is closed")
            if self._failure is not None and entry.started < self._failed_at:
                raise self._failure
            if dispatcher is None:
                dispatcher = self._dispatcher = self._connect(again=run in self._guests)
                self._guests.clear()
            if not dispatcher.is_own:
                self._guests.add(run)
            return dispatcher

    def _connect(self, *, again: bool) -> Dispatcher:
        try:
            connection = Connection(self._cluster, self._workers, again=again)
        except ExecutorError as error:
            self._failure, self._failed_at = error, monotonic()
            raise
        return Dispatcher(connection, self.name, self._carrier.store_code, self._reporters.put, self._again)

    def _prepare_all(self, take: Take[Entry]) -> None:
        while (entry := take()) is not None:
            try:
                dispatcher = self._connected(entry)
                order = self._order(entry)
            except KeyError as error:
                call = CallId(str(error.args[0]))
                self._settle(entry, Vanished(f"its input {call} is lost", lost=(call,), state=entry.state))
            except Exception as error:  # noqa: BLE001 -- of a cluster that goes meanwhile Dask says anything
                outcome = raised(error, 0.0, rolled_back=True)  # it did not begin
                self._settle(entry, replace(outcome, state=entry.state))
            else:
                with self._lock:
                    wanted = self._live.get(entry.key) is entry and entry.reason is None
                    entry.order = order
                if wanted:
                    self._put(entry, dispatcher)
            del entry

    def _put(self, entry: Entry, dispatcher: Dispatcher) -> None:
        with self._connecting:  # so that it is not closed meanwhile
            is_current = self._dispatcher is dispatcher
            if is_current:
                dispatcher.put(entry)
        if not is_current:
            self._again([entry])

    def _again(self, entries: Sequence[Entry]) -> None:
        """Attempts that have not begun on a cluster that is gone: there may be another by now."""
        for old in entries:
            new = Entry(old.attempt, old.report)
            with self._lock:
                wanted = not old.settled and self._live.get(old.key) is old
                old.settled = True
                if wanted and old.reason is None:
                    self._live[new.key] = new
            if wanted and old.reason is None:
                self._preparers.put(new)
            elif wanted:
                self._settle(old, Vanished(old.reason or "", state=old.state))

    def _order(self, entry: Entry) -> bytes:
        attempt = entry.attempt

        def send(found: Encoded | Live) -> Held:
            encoded = as_encoded(found)
            key = f"exoflow-sent-{uuid.uuid4().hex}"
            entry.sent[key] = encoded
            return Held(self.name, key, encoded.size)

        def readable(value: Value, call: CallId = attempt.call) -> Value:
            if isinstance(value, Stored) and not self._carrier.workers_read_store:
                return carried(self._stored.read(value), send)
            return self._carrier.input(attempt, call, value, send)

        inputs: dict[CallId, Value] = {}
        for call, value in attempt.inputs.items():
            inputs[call] = readable(value, call)
            if isinstance(value, Held) and value.executor == self.name and not str(value.handle).startswith(FUTURES):
                entry.held[str(value.handle)] = value.size
        actor: ActorOrder | None = None
        if attempt.actor is not None:
            actor = actor_order(attempt, self._functions, set(), send, readable)
        return pack_order(order_of(attempt, self._functions.code_of(attempt), inputs, send, actor))

    def _report_all(self, take: Take[Sequence[tuple[Entry, Outcome]]]) -> None:
        while (told := take()) is not None:
            for entry, outcome in told:
                self._settle(entry, outcome)
            del told

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        with self._lock:
            if self._live.get(entry.key) is not entry:  # an undo has the key of the attempt that it undoes
                return
            del self._live[entry.key]
        entry.report(outcome)


_open: weakref.WeakSet[DaskExecutor] = weakref.WeakSet()


@atexit.register  # behind Dask's own, and so before it: that closes the clusters that hold our values
def _close() -> None:
    for executor in list(_open):
        executor.close()
