"""A Ray cluster: joined, shared by the executors of a process, watched, given up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from math import inf
from time import monotonic
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import GetTimeoutError, RayError

from exoflow.errors import ExecutorError
from exoflow.executors.ray.connection import OF_THIS_PROCESS, Connection, Place
from exoflow.executors.ray.resources import Placement
from exoflow.model import RunId

_WATCH_S = 1.0
_PROBE_TIMEOUT_S = 5.0
_KNOCK_S = 0.2
_LEAVE_TIMEOUT_S = 1.0
_LOOK_S = 5.0
_CLOSED = "the executor is closed"
_MISSES = 2
_MISSES_OF_GCS = 30
"""One that is made to survive failures starts again; Ray itself waits 60 s, and then ends the program."""


class Cluster:
    """A Ray cluster, as one executor uses it.

    Args:
        address: ``ray://host:port``; None: where the program is connected to, else what ``ray.init()`` finds or starts.
        workers: CPUs of a cluster that is started.
        lost: Called, from a thread of its own, when a session is over, with why, and after its end if it was ours.
        connection: That of this process, which clusters share.
        patience_s: How long to wait for a cluster at an address where nobody listens. Ray waits a quarter of an hour.
    """

    def __init__(
        self,
        address: str | None,
        workers: int | None,
        lost: Callable[[int, str], None],
        connection: Connection = OF_THIS_PROCESS,
        patience_s: float = 10.0,
    ) -> None:
        self._address = address
        self._workers = workers
        self._lost = lost
        self._connection = connection
        self._patience_s = patience_s
        self._joined_by: object = None
        """What stood for the connection when this joined."""
        self._node: str | None = None
        self._dead: str | None = None
        self._left = threading.Event()
        self._failure: ExecutorError | None = None
        self._failed_at = -inf
        self._guests: set[RunId] = set()
        """Runs that were on a cluster of the program's: it was chosen, and none of ours can stand for it."""
        self.placement = Placement(is_fixed=False)
        self.session = 0
        """Which connection this is; what was in a cluster is gone with it."""

    def has(self, session: int) -> bool:
        """Whether this is still the cluster of that connection."""
        return self._joined() and session == self.session

    @contextlib.contextmanager
    def kept(self, session: int | None) -> Iterator[bool]:
        """A block in which that connection is not closed here; whether there is one: where not, Ray would make one."""
        with self._connection.lock:
            yield session is not None and self.has(session)

    def join(self, run: RunId, since: float) -> None:
        """Connect to the cluster, unless that is done, for an attempt of this run that waits since then.

        What waited while that failed fails with it: each try may take half a minute.

        Raises:
            ExecutorError: that is impossible, or not what the program wants.
        """
        node = self._node
        if not self._joined():
            self._lose(node, "this process has left it")
            self._join(run, since)
        with self._connection.lock:
            if self not in self._connection.users and self._joined():  # else ours has gone this very moment
                self._guests.add(run)

    def _join(self, run: RunId, since: float) -> None:
        connection = self._connection
        with connection.lock:
            connection.open.add(self)
            connection.connects_by_itself(False)
            if self._joined():
                return
            if self._left.is_set():
                raise ExecutorError(_CLOSED)
            if self._failure is not None and since < self._failed_at:
                raise self._failure
            if not connection.is_made():
                if run in self._guests:
                    raise ExecutorError(
                        "this program has left its Ray cluster (ray.shutdown()) in mid-run: connect again "
                        "by ray.init(...), and go on with exoflow.resume(run_id)"
                    )
                self._connect()
                connection.users.clear()
                connection.users.add(self)
            else:
                if not self._is_ours():
                    connection.users.clear()
                self._check_theirs()
                if connection.users:
                    connection.users.add(self)
            self._guests.clear()
            self.session += 1
            self.placement = Placement(is_fixed=self in connection.users and connection.is_started_here())
            self._joined_by = connection.current()
            self._node = connection.node()
        if self._left.is_set():
            self.leave()
            raise ExecutorError(_CLOSED)
        threading.Thread(target=self._watch, name="exoflow-ray-watch", daemon=True).start()

    def get(self, ref: ObjectRef[Any]) -> Any:
        """``ray.get`` that ends when the cluster does.

        Raises:
            RayError: as that.
        """
        session = self.session
        while True:
            try:
                return ray.get(ref, timeout=_LOOK_S)
            except GetTimeoutError:
                if not self.has(session):
                    raise

    def _joined(self) -> bool:
        """The program may have left it, and even joined another, a moment ago."""
        return self._node is not None and self._joined_by is self._connection.current()

    def leave(self) -> None:
        """Close the connection if it is ours alone; a cluster that was started with it ends.

        What a thread is about to make, it closes itself: it may hang in that for minutes, and a process that ends does
        not wait for it.
        """
        connection = self._connection
        self._left.set()
        if not connection.lock.acquire(timeout=_LEAVE_TIMEOUT_S):
            return
        try:
            self._node = None
            if self in connection.users:
                ours = self._is_ours()
                connection.users.discard(self)
                if not connection.users and ours:
                    connection.close()
            connection.open.discard(self)
            if not connection.open:
                connection.connects_by_itself(True)
        finally:
            connection.lock.release()

    def _connect(self) -> None:
        try:
            self._knock()
            self._connection.make(self._address, self._workers)
        except (RayError, ImportError, OSError, ValueError, RuntimeError) as error:
            where = f" ({self._address})" if self._address else ""
            self._failure = ExecutorError(f"cannot connect to a Ray cluster{where}: {error}")
            self._failed_at = monotonic()
            raise self._failure from error

    def _knock(self) -> None:
        """Wait until somebody listens where the cluster should be.

        Raises:
            ConnectionError: nobody does.
        """
        place = None if self._workers is not None else self._connection.meant(self._address)
        deadline = monotonic() + self._patience_s
        while place is not None and not _answers(place):
            if monotonic() >= deadline or self._left.wait(_KNOCK_S):
                host, port = place
                raise ConnectionError(
                    f"nobody listens at {host}:{port}. Start one there, or correct the address: of executor=, else "
                    "RAY_ADDRESS, else that of the last `ray start` on this machine"
                )

    def _check_theirs(self) -> None:
        if self._dead is not None and self._dead == self._connection.node():
            raise ExecutorError(
                "the Ray cluster that this program is connected to has died: connect to another one, by ray.shutdown() "
                "and ray.init(...) or in a new process, and go on with exoflow.resume(run_id)"
            )
        if not self._connection.users and self._workers is not None:
            raise ExecutorError(
                f"executor='ray:{self._workers}' would start a Ray cluster, and this program is connected to one "
                "already: write executor='ray'"
            )

    def _watch(self) -> None:
        node, misses = self._node, 0
        places = list(self._places())
        while not self._left.wait(_WATCH_S):
            if self._node != node:
                return
            silent = next(((what, limit) for what, place, limit in places if not _answers(place)), None)
            misses = misses + 1 if silent else 0
            if not self._joined():
                self._lose(node, "this process has left it")
            elif silent and misses >= silent[1]:
                self._lose(node, f"its {silent[0]} does not answer")

    def _places(self) -> Iterator[tuple[str, Place, int]]:
        """What has to answer, where, and how often it may fail to."""
        connection = self._connection
        if (head := connection.head()) is not None:
            yield "head (the GCS)", head, _MISSES if self in connection.users else _MISSES_OF_GCS
        if (raylet := connection.raylet(self._node)) is not None:
            yield "node of this process", raylet, _MISSES

    def _lose(self, node: str | None, why: str) -> None:
        """``node``: of the connection that is meant; while this waits for the lock, another may come instead."""
        connection = self._connection
        with connection.lock:
            if node is None or node != self._node:
                return
            session, self._dead, self._node = self.session, self._node, None
            if self in connection.users:  # what is left of it ends, and the next attempt starts another
                ours = self._is_ours()
                connection.users.clear()
                if ours:
                    connection.close()
        self._lost(session, why)

    def _is_ours(self) -> bool:
        """Whether one of the users has made the connection that there is."""
        return any(user._joined_by is self._connection.current() for user in self._connection.users)


def _answers(place: Place) -> bool:
    try:
        socket.create_connection(place, timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True
