"""Ray: attempts are Ray tasks, and their values stay in Ray's object stores (ADR 0019)."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, cast

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError, RayError, RayTaskError
from ray.experimental import internal_kv

from exoflow.attempts import raised
from exoflow.attempts.actors import STATE
from exoflow.codec import Encoded, Live
from exoflow.errors import ExecutorError
from exoflow.executors.actors.living import is_state
from exoflow.executors.ordering import Carrier, Elsewhere
from exoflow.executors.ray.actors import Home, Homes
from exoflow.executors.ray.batching import Batches
from exoflow.executors.ray.cluster import Cluster
from exoflow.executors.ray.entry import Entry, Key
from exoflow.executors.ray.resources import options_of
from exoflow.executors.ray.values import RayHandle, Values, summary
from exoflow.executors.ray.worker import NAMESPACE, message_of, perform
from exoflow.executors.threads import Threads, run_all
from exoflow.executors.wire import unpack_outcome
from exoflow.model import CallId, Held, RunId, Stored, Version
from exoflow.protocols import Attempt, Outcome, Store, Vanished

_CARRIERS = 4
_LOOK_S = 1.0
_CLOSE_TIMEOUT_S = 10.0

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
    has_actors = True

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
        self._homes = Homes(self.name, self._cluster, self._values.setup)
        self._tasks: dict[tuple[str, frozenset[tuple[str, float]] | None], Any] = {}
        # One thread alone starts tasks and reports them: of two, each waits for the interpreter that the other holds.
        self._threads: Threads[Callable[[], None]] = Threads(1, run_all, "exoflow-ray")
        self._carriers: Threads[Callable[[], None]] = Threads(_CARRIERS, run_all, "exoflow-carry")
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
            kill=self._kill,
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
            entry.report(Vanished("cancelled", state=entry.attempt.state))
        elif entry.batch is not None:
            self._batches.cancel(entry)
        elif (answer := entry.answer) is not None:
            self._kill(answer, entry.home)

    def fetch(self, value: Held) -> Encoded | Live:
        return self._values.fetch(value)

    def save(self, value: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        if is_state(value):
            self._threads.put(lambda: self._save_state(value, name, report))
        else:
            self.save_together([value], name, lambda saved: report(saved[0] if isinstance(saved, Sequence) else saved))

    def save_together(
        self, values: Sequence[Held], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        self._carriers.put(lambda: report(self._values.save(values, name)))

    def release(self, value: Held) -> None:
        if not is_state(value):
            cast(RayHandle, value.handle).ref = None
        elif (home := self._homes.take(value)) is not None:
            self._carriers.put(functools.partial(self._homes.kill, home))

    def drop(self, value: Held) -> None:
        self.release(value)

    def close(self) -> None:
        """Attempts that still run are killed and not reported any more. A cluster that was started here ends."""
        with self._lock:
            self._closed = True
            running = {entry.answer: entry.home for entry in self._live.values() if entry.answer is not None}
            self._live.clear()
        self._batches.close()
        self._threads.close()
        self._carriers.close()
        if running and self._cluster.has(self._cluster.session):
            for answer, home in running.items():
                self._kill(answer, home)
            answers = list(running)
            ray.wait(answers, num_returns=len(answers), timeout=_CLOSE_TIMEOUT_S, fetch_local=False)
            for home in running.values():
                if home is not None:
                    self._homes.end(home)
        self._carriers.join(_CLOSE_TIMEOUT_S)
        self._values.close()
        self._homes.close()
        self._cluster.leave()

    def _save_state(self, state: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        answer = self._homes.save(state, name)  # in the thread that sends attempts: behind them
        self._carriers.put(lambda: report(self._values.saved_state(answer)))

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
        while self._claim(entry):
            entry.session = None
            try:
                self._cluster.join(entry.attempt.run_id, entry.started)
                entry.session = self._cluster.session
                order, boxes = self._values.order(entry.attempt, entry.lenders)
                answer, entry.values = self._sent(entry, message_of(self._values.setup, order, entry.deadline), boxes)
            except KeyError as error:
                self._settle(entry, _without(entry, CallId(str(error.args[0]))))
                return
            except Exception as error:  # noqa: BLE001 -- of a cluster that goes meanwhile Ray says anything
                if entry.session is not None and not self._cluster.has(entry.session) and self._unclaim(entry):
                    continue
                self._settle(entry, replace(raised(error, 0.0), state=entry.attempt.state))
                return
            self._sent_off(entry, answer)
            return

    def _sent_off(self, entry: Entry, answer: ObjectRef[Any]) -> None:
        with self._lock:
            entry.answer = answer
            unwanted = entry.reason is not None or self._live.get(entry.key) is not entry
        if unwanted:
            self._kill(answer, entry.home)
        answer._on_completed(functools.partial(self._completed, entry))

    def _sent(self, entry: Entry, message: bytes, boxes: list[ObjectRef[Any]]) -> tuple[ObjectRef[Any], ...]:
        """The answer and the values to be.

        Raises:
            KeyError: the state is lost.
        """
        attempt = entry.attempt
        if attempt.actor is None:
            sent: tuple[ObjectRef[Any], ...] = self._task(attempt.task, attempt.resources).remote(message, *boxes)
            return sent
        entry.home = self._homes.of(attempt)
        return entry.home.perform(attempt.task, message, boxes)

    def _completed(self, entry: Entry, answer: object) -> None:
        """In a thread of Ray's, which must not wait for anything."""
        self._threads.put(functools.partial(self._answered, entry, answer))

    def _answered(self, entry: Entry, answer: object) -> None:
        if entry.reason is None and isinstance(answer, bytes):
            self._settle(entry, self._values.named(unpack_outcome(answer), entry.values))
        elif entry.home is None:
            self._settle(entry, self._failed(entry, answer))
        else:
            self._carriers.put(functools.partial(self._failed_at_home, entry, entry.home, answer))

    def _failed_at_home(self, entry: Entry, home: Home, answer: object) -> None:
        outcome = self._failed(entry, answer)
        if entry.reason is None and isinstance(answer, RayTaskError):  # it could not be given what it needs
            outcome = replace(outcome, state=entry.attempt.state)
        else:
            self._homes.end(home)
        self._settle(entry, outcome)

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        with self._lock:
            if self._live.get(entry.key) is not entry:  # the executor was closed
                return
            del self._live[entry.key]
        entry.answer = entry.values = None
        if entry.home is not None:
            self._homes.left(entry.home, outcome.state)
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
        self._tasks.clear()  # another cluster may have other nodes
        if lost:
            _log.warning("the Ray cluster is gone (%s), and %d attempts with it", why, len(lost))
        for entry in lost:
            seconds = monotonic() - entry.started
            entry.report(Vanished(entry.reason or f"the Ray cluster is gone: {why}", seconds))

    def _failed(self, entry: Entry, error: object) -> Outcome:
        """What became of an attempt whose worker has not answered, or was not to."""
        seconds = monotonic() - entry.started
        if entry.reason is not None:  # Ray kills the children of a body before it, which may then answer nonsense
            return Vanished(entry.reason, seconds)
        assert isinstance(error, BaseException)
        with self._cluster.kept(entry.session) as there_is:
            for ref in (entry.answer, entry.values) if there_is else ():  # Ray logs an error that nobody looks at
                with contextlib.suppress(RayError):
                    ray.get(cast(ObjectRef[Any], ref), timeout=_LOOK_S)
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

    def _kill(self, answer: ObjectRef[Any], home: Home | None) -> None:
        if home is not None:
            self._homes.kill(home)
            return
        with contextlib.suppress(RayError, ConnectionError):  # the cluster is gone, and the worker with it
            ray.cancel(answer, force=True)

    def _task(self, name: str, resources: Mapping[str, float]) -> Any:
        key = (name, frozenset(resources.items()) if resources else None)
        task = self._tasks.get(key)
        if task is None:
            self._cluster.placement.check(name, resources)
            # Ray is not to run an attempt again, nor the one that made a lost input: that is the kernel's to say (V11).
            remote = ray.remote(max_retries=0, num_returns=2, **options_of(resources))(perform)
            task = self._tasks[key] = remote.options(name=name)
        return task


def _without(entry: Entry, call: CallId) -> Vanished:
    """What becomes of an attempt for which something is lost."""
    if call.endswith(STATE):
        return Vanished("the state of its actor is lost: the process has died", lost=(call,))
    return Vanished(f"its input {call} is lost", lost=(call,), state=entry.attempt.state)


def _take_key(key: bytes) -> bool:
    """Whether a worker has left the key before it ended itself."""
    found: bool = internal_kv._internal_kv_exists(key, namespace=NAMESPACE)
    if found:
        internal_kv._internal_kv_del(key, namespace=NAMESPACE)
    return found
