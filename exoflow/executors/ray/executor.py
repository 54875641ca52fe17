"""Ray: attempts are Ray tasks, and their values stay in Ray's object stores (ADR 0019)."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, cast

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError, RayError, RayTaskError
from ray.experimental import internal_kv

from exoflow.attempts import raised
from exoflow.codec import Encoded, Live
from exoflow.errors import CodecError, ExecutorError, StorageError
from exoflow.executors.ordering import Carrier, Elsewhere
from exoflow.executors.ray.batching import Batches
from exoflow.executors.ray.cluster import Cluster
from exoflow.executors.ray.entry import Entry, Key
from exoflow.executors.ray.tasks import NAMESPACE, message_of, perform
from exoflow.executors.ray.values import RayHandle, Values, summary
from exoflow.executors.threads import Take, Threads
from exoflow.executors.wire import unpack_outcome
from exoflow.model import CallId, Held, RunId, Stored, Version
from exoflow.protocols import Attempt, Outcome, Store, Vanished

_CARRIERS = 4
_CLOSE_TIMEOUT_S = 10.0
_OPTIONS = ("num_cpus", "num_gpus", "memory")
"""The resources that Ray has options for; the others are the user's own."""

_log = logging.getLogger(__name__)


class RayExecutor:
    """Runs attempts as Ray tasks that Ray never runs again by itself. What is cancelled or late is killed.

    Uses the cluster that this process is connected to; else connects to one, and leaves it when it is closed.

    Args:
        address: ``ray://host:port``; None: what ``ray.init()`` finds, or starts on this machine.
        workers: CPUs of a cluster that is started.
        store: Where values are saved to and read from. Workers open it themselves.
        elsewhere: Gets what other executors hold.
    """

    remote = True
    has_actors = False

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        *,
        store: Store | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.name = address or ("ray" if workers is None else f"ray:{workers}")
        self._cluster = Cluster(address, workers, self._lose)
        self._values = Values(self.name, self._cluster, Carrier(self.name, store, elsewhere))
        self._tasks: dict[tuple[str, frozenset[tuple[str, float]] | None], Any] = {}
        # One thread alone starts tasks and reports them: of two, each waits for the interpreter that the other holds.
        self._threads: Threads[Callable[[], None]] = Threads(1, _run_all, "exoflow-ray")
        self._carriers: Threads[Callable[[], None]] = Threads(_CARRIERS, _run_all, "exoflow-carry")
        self._live: dict[Key, Entry] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._batches = Batches(
            self._cluster,
            self._values,
            self._threads,
            self._carriers,
            claim=self._claim,
            unclaim=self._unclaim,
            alone=self._submit,
            settle=self._settle,
            failed=self._failed,
            kill=_kill,
        )

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        if self._closed:
            raise ExecutorError("the executor is closed")
        entry = Entry(attempt, report)
        self._live[entry.key] = entry
        if self._values.must_be_carried(attempt):
            self._carriers.put(functools.partial(self._submit, entry))
        elif self._batches.take(attempt):
            self._batches.put(entry)
        else:
            self._threads.put(functools.partial(self._submit, entry))

    def cancel(self, version: Version, run_id: RunId) -> None:
        with self._lock:
            entry = self._live.get((run_id, version))
            if entry is None:
                return
            entry.reason = "cancelled"
            if not entry.submitted:
                del self._live[entry.key]
        if not entry.submitted:
            entry.report(Vanished("cancelled"))
        elif entry.batch is not None:
            self._batches.cancel(entry)
        elif (answer := entry.answer) is not None:
            _kill(answer)

    def fetch(self, value: Held) -> Encoded | Live:
        return self._values.fetch(value)

    def save(self, value: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        self._carriers.put(lambda: report(self._values.save(value, name)))

    def release(self, value: Held) -> None:
        cast(RayHandle, value.handle).ref = None

    def drop(self, value: Held) -> None:
        self.release(value)

    def close(self) -> None:
        """Attempts that still run are killed and not reported any more. A cluster that was started here ends."""
        with self._lock:
            self._closed = True
            answers = list({entry.answer for entry in self._live.values() if entry.answer is not None})
            self._live.clear()
        self._batches.close()
        self._threads.close()
        self._carriers.close()
        if answers and self._cluster.has(self._cluster.session):
            for answer in answers:
                _kill(answer)
            ray.wait(answers, num_returns=len(answers), timeout=_CLOSE_TIMEOUT_S, fetch_local=False)
        self._carriers.join(_CLOSE_TIMEOUT_S)
        self._cluster.leave()

    def _claim(self, entry: Entry) -> bool:
        """Whether it is still wanted, and not cancelled while it waited; it counts as submitted from now on."""
        with self._lock:
            entry.submitted = self._live.get(entry.key) is entry
            return entry.submitted

    def _unclaim(self, entry: Entry) -> bool:
        """Whether it is wanted, though it did not begin; it waits again, then."""
        with self._lock:
            if entry.reason is not None:
                return False
            entry.submitted = False
            entry.batch = entry.answer = entry.values = None
            return True

    def _submit(self, entry: Entry) -> None:
        if not self._claim(entry):
            return
        try:
            if entry.attempt.actor is not None:
                raise ExecutorError(f"{entry.attempt.task}: actors do not run on Ray: give theirs executor='processes'")
            self._cluster.join()
            entry.session = self._cluster.session
            order, boxes = self._values.order(entry.attempt, entry.lenders)
            task = self._task(entry.attempt.task, entry.attempt.resources)
            answer, entry.values = task.remote(message_of(self._values.setup, order, entry.deadline), *boxes)
        except KeyError as error:
            call = CallId(str(error.args[0]))
            self._settle(entry, Vanished(f"its input {call} is lost", lost=(call,)))
            return
        except (CodecError, StorageError, ExecutorError, OSError, RayError, ValueError) as error:
            self._settle(entry, raised(error, 0.0))
            return
        with self._lock:
            entry.answer = answer
            unwanted = entry.reason is not None or self._live.get(entry.key) is not entry
        if unwanted:
            _kill(answer)
        answer._on_completed(functools.partial(self._completed, entry))

    def _completed(self, entry: Entry, answer: object) -> None:
        """In a thread of Ray's, which must not wait for anything."""
        self._threads.put(functools.partial(self._answered, entry, answer))

    def _answered(self, entry: Entry, answer: object) -> None:
        if entry.reason is not None:  # Ray kills the children of a body before it, which may then answer nonsense
            self._settle(entry, Vanished(entry.reason, monotonic() - entry.started))
        elif isinstance(answer, bytes):
            self._settle(entry, self._values.named(unpack_outcome(answer), entry.values))
        else:
            assert isinstance(answer, BaseException)
            self._settle(entry, self._failed(entry, answer))

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        with self._lock:
            if self._live.get(entry.key) is not entry:  # the executor was closed
                return
            del self._live[entry.key]
        entry.answer = entry.values = None
        if entry.attempt.batchable:
            self._batches.learn(entry.attempt, outcome)
        with self._threads.spare():
            entry.report(outcome)

    def _lose(self, session: int, why: str) -> None:
        """A cluster is gone, and with it whatever ran there."""
        with self._lock:
            lost = [entry for entry in self._live.values() if entry.session == session]
            for entry in lost:
                del self._live[entry.key]
        self._batches.forget()
        if lost:
            _log.warning("the Ray cluster is gone (%s), and %d attempts with it", why, len(lost))
        for entry in lost:
            seconds = monotonic() - entry.started
            entry.report(Vanished(entry.reason or f"the Ray cluster is gone: {why}", seconds))

    def _failed(self, entry: Entry, error: BaseException) -> Outcome:
        """What became of an attempt whose worker has not answered."""
        seconds = monotonic() - entry.started
        for ref in (entry.answer, entry.values):  # Ray logs an error that nobody looks at
            with contextlib.suppress(RayError):
                ray.get(cast(ObjectRef[Any], ref))
        if entry.reason is not None:
            return Vanished(entry.reason, seconds)
        cause = error.cause if isinstance(error, RayTaskError) else None
        if isinstance(cause, ObjectLostError):
            lost = entry.lenders.get(cause.object_ref_hex)
            calls = tuple(entry.lenders.values()) if lost is None else (lost,)
            return Vanished(f"its input {calls[0]} is lost: {summary(cause)}", seconds, calls)
        if cause is not None:
            return raised(cause, seconds)
        if entry.deadline is not None and _take_key(entry.deadline[1]):
            return Vanished(f"timed out after {entry.attempt.timeout_s} s; its worker was killed", seconds)
        return Vanished(f"its worker died: {summary(error)}", seconds)

    def _task(self, name: str, resources: Mapping[str, float]) -> Any:
        key = (name, frozenset(resources.items()) if resources else None)
        task = self._tasks.get(key)
        if task is None:
            self._cluster.check(name, resources)
            options: dict[str, Any] = {kind: resources[kind] for kind in _OPTIONS if kind in resources}
            own = {kind: amount for kind, amount in resources.items() if kind not in _OPTIONS}
            # Ray is not to run an attempt again, nor the one that made a lost input: that is the kernel's to say (V11).
            remote = ray.remote(max_retries=0, num_returns=2, resources=own, **options)(perform)
            task = self._tasks[key] = remote.options(name=name)
        return task


def _run_all(take: Take[Callable[[], None]]) -> None:
    while (work := take()) is not None:
        work()
        del work  # an idle thread must not keep a value alive


def _kill(answer: ObjectRef[Any]) -> None:
    with contextlib.suppress(RayError, ConnectionError):  # the cluster is gone, and the worker with it
        ray.cancel(answer, force=True)


def _take_key(key: bytes) -> bool:
    """Whether a worker has left the key before it ended itself."""
    found: bool = internal_kv._internal_kv_exists(key, namespace=NAMESPACE)
    if found:
        internal_kv._internal_kv_del(key, namespace=NAMESPACE)
    return found
