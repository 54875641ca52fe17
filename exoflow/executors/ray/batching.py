"""Several short attempts in one Ray task, where many wait: what a task costs is paid once for all (ADR 0019)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError

from exoflow.errors import CodecError, ExecutorError, StorageError
from exoflow.executors.pace import Pace
from exoflow.executors.ray.cluster import Cluster
from exoflow.executors.ray.entry import Entry
from exoflow.executors.ray.values import Values
from exoflow.executors.ray.worker import message_for_all, perform_all
from exoflow.executors.threads import Deadlines, Threads
from exoflow.executors.wire import unpack_outcome
from exoflow.model import INLINE_MAX_BYTES, Held
from exoflow.protocols import Attempt, Computed, Outcome, Vanished

WORK_S = 0.06
"""What the attempts of a Ray task are expected to take together: so much later may the first of them be told."""
COUNT_MAX = 32
AHEAD = 2
"""Batches that Ray is given for each CPU of the cluster, so that none idles."""
GRACE_S = 1.0
"""A cancelled attempt whose Ray task has not ended by then is killed, with the others in there."""

_LOOK_S = 5.0
_decode = msgspec.msgpack.Decoder().decode


class Batches:
    """The attempts that may share a Ray task. All but ``put``, ``cancel`` and ``forget`` happens in one thread.

    Args:
        cluster: Where they run.
        values: Of the executor.
        threads: The one thread that starts attempts and reports them.
        background: Others.
        claim: Whether the attempt is still wanted; from then on a cancel concerns its Ray task.
        unclaim: Whether it is, after it has turned out that it did not begin.
        alone: Sends one by itself.
        settle: Reports one.
        failed: What became of one, by the error that Ray has for its task.
        kill: Ends a Ray task.
    """

    def __init__(
        self,
        cluster: Cluster,
        values: Values,
        threads: Threads[Callable[[], None]],
        background: Threads[Callable[[], None]],
        *,
        claim: Callable[[Entry], bool],
        unclaim: Callable[[Entry], bool],
        alone: Callable[[Entry], None],
        settle: Callable[[Entry, Outcome], None],
        failed: Callable[[Entry, object], Outcome],
        kill: Callable[[ray.ObjectRef[Any], None], None],
    ) -> None:
        self._cluster = cluster
        self._values = values
        self._threads, self._background = threads, background
        self._claim, self._unclaim, self._alone = claim, unclaim, alone
        self._settle, self._failed, self._kill = settle, failed, kill
        self._overdue: Deadlines[list[Entry]] = Deadlines(self._end, _is_live, "exoflow-ray-cancel")
        self._lines: dict[Any, deque[Entry]] = {}
        """What waits, by its function."""
        self._lock = threading.Lock()
        self._asked = False
        self._pace = Pace()
        self._large: set[str] = set()
        self._under_way: set[int] = set()
        self._serials = itertools.count()
        self._tasks: dict[str, Any] = {}
        self._cpus = 1
        self._look_at = 0.0

    def take(self, attempt: Attempt) -> bool:
        """Whether it may share a Ray task, by what is known of it now."""
        return (
            attempt.batchable
            and not attempt.resources
            and attempt.task not in self._large
            and not any(isinstance(value, Held) for value in attempt.inputs.values())
        )

    def put(self, entry: Entry) -> None:
        with self._lock:
            self._lines.setdefault(entry.attempt.function, deque()).append(entry)
        self._ask()

    def learn(self, attempt: Attempt, outcome: Outcome) -> None:
        """What became of an attempt tells what the next ones will be like."""
        if isinstance(outcome, Computed):
            self._pace.took(attempt.task, outcome.seconds)
            if isinstance(outcome.value, Held) or outcome.puts:
                self._large.add(attempt.task)

    def cancel(self, entry: Entry) -> None:
        """End one that was sent with others: soon, as they are short; else by force, when nobody else is harmed."""
        batch = entry.batch
        assert batch is not None
        if all(other.reason is not None for other in batch):
            self._end(batch)
        else:
            self._overdue.add(GRACE_S, batch)

    def forget(self) -> None:
        """What was under way is gone with its cluster."""
        self._under_way.clear()
        self._ask()

    def close(self) -> None:
        self._overdue.close()

    def _ask(self) -> None:
        with self._lock:
            if self._asked or not self._lines:
                return
            self._asked = True
        self._threads.put(self._send)

    def _send(self) -> None:
        with self._lock:
            self._asked = False
            line, count = self._next()
        if count == 0:
            return
        if count == 1 and not self._is_short(line[0]):
            self._alone(line.popleft())
        else:
            self._submit(line, count)
        self._ask()  # behind the answers that have come meanwhile: they tell the pace, and that there is room

    def _next(self) -> tuple[deque[Entry], int]:
        """From where how many are to be sent together; 0: all wait for what is under way."""
        for function, line in list(self._lines.items()):
            if not line:
                del self._lines[function]
            elif not self._is_short(line[0]):
                return line, 1
            elif len(self._under_way) < (room := self._room()):
                expected_s = self._pace.of(line[0].attempt.task)
                return line, min(COUNT_MAX, int(WORK_S / max(expected_s, 1e-6)), -(-len(line) // room))
        return deque(), 0

    def _is_short(self, entry: Entry) -> bool:
        return self._pace.of(entry.attempt.task) <= WORK_S / 2

    def _room(self) -> int:
        """How many batches may be under way: what waits beyond them grows into larger ones."""
        if monotonic() > self._look_at:
            self._look_at = monotonic() + _LOOK_S
            self._background.put(self._look)
        return AHEAD * self._cpus

    def _look(self) -> None:
        """Where it may take its time: a cluster that has died lets one wait."""
        with contextlib.suppress(RayError):
            resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
            self._cpus = max(1, int(resources.get("CPU", 1)))

    def _submit(self, line: deque[Entry], count: int) -> None:
        batch: list[Entry] = []
        orders: list[bytes] = []
        size = 0
        while line and len(batch) < count and size < INLINE_MAX_BYTES:
            entry = line.popleft()
            order = self._order(entry)
            if order is not None:
                batch.append(entry)
                orders.append(order)
                size += len(order)
        if not batch:
            return
        try:
            answer, values = self._task(batch[0].attempt.task).remote(message_for_all(self._values.setup, orders))
        except Exception:  # noqa: BLE001 -- of a cluster that goes meanwhile Ray says anything
            for entry in batch:
                self._alone(entry)  # meets it again, and tells it
            return
        serial = next(self._serials)
        self._under_way.add(serial)
        for entry in batch:
            entry.batch, entry.answer, entry.values = batch, answer, values
        answer._on_completed(functools.partial(self._completed, serial, batch))
        unwanted = next((entry for entry in batch if entry.reason is not None), None)
        if unwanted is not None:
            self.cancel(unwanted)

    def _order(self, entry: Entry) -> bytes | None:
        """As its worker gets it; None: it cannot go with others, or is not wanted any more."""
        if not self._claim(entry):
            return None
        try:
            self._cluster.join(entry.attempt.run_id, entry.started)
            order, boxes = self._values.order(entry.attempt, entry.lenders)
        except (CodecError, StorageError, ExecutorError, OSError, RayError, ValueError):
            self._alone(entry)  # meets it again, and tells it
            return None
        if boxes:
            self._alone(entry)
            return None
        entry.session = self._cluster.session
        return order

    def _completed(self, serial: int, batch: list[Entry], answer: object) -> None:
        """In a thread of Ray's, which must not wait for anything."""
        self._threads.put(functools.partial(self._answered, serial, batch, answer))

    def _answered(self, serial: int, batch: list[Entry], answer: object) -> None:
        self._under_way.discard(serial)
        self._send()  # a worker waits
        if not isinstance(answer, bytes):
            for entry in batch:
                self._settle(entry, self._failed(entry, answer))
            return
        outcomes: list[bytes] = _decode(answer)
        for entry, packed in zip(batch, outcomes, strict=False):
            self._settle(entry, self._outcome(entry, packed))
        for entry in batch[len(outcomes) :]:
            if self._unclaim(entry):
                self.put(entry)
            else:
                self._settle(entry, Vanished("cancelled"))

    def _outcome(self, entry: Entry, packed: bytes) -> Outcome:
        if entry.reason is not None:
            return Vanished(entry.reason, monotonic() - entry.started)
        return self._values.named(unpack_outcome(packed), entry.values)

    def _end(self, batch: list[Entry]) -> None:
        answer = next((entry.answer for entry in batch if entry.answer is not None), None)
        if answer is not None:
            self._kill(answer, None)

    def _task(self, name: str) -> Any:
        task = self._tasks.get(name)
        if task is None:
            remote = ray.remote(max_retries=0, num_returns=2)(perform_all)
            task = self._tasks[name] = remote.options(name=name)
        return task


def _is_live(batch: list[Entry]) -> bool:
    return any(entry.answer is not None for entry in batch)
