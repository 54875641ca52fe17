"""The connection of this process to Ray: made, shared by the executors of a process, watched, given up."""

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
from ray._private import auto_init_hook
from ray.exceptions import GetTimeoutError, RayError
from ray.util.client import ray as ray_client

from exoflow.errors import ExecutorError
from exoflow.executors.ray.resources import Placement
from exoflow.model import RunId

_WATCH_S = 1.0
_PROBE_TIMEOUT_S = 5.0
_LOOK_S = 5.0
_MISSES = 2
_MISSES_OF_GCS = 30
"""One that is made to survive failures starts again; Ray itself waits 60 s, and then ends the program."""

_lock = threading.Lock()
_users: set[Cluster] = set()
"""Who uses the connection that one of them has made. The last one to leave closes it; the program's own, nobody."""
_open: set[Cluster] = set()
_AUTO_CONNECTS: bool = auto_init_hook.enable_auto_connect
"""Any use of Ray without a connection starts a cluster. While one of us is open that is off: a thread that still meant
the cluster that has just gone would start one beside ours, which then looked like the program's.
"""


class Cluster:
    """A Ray cluster, as one executor uses it.

    Args:
        address: ``ray://host:port``; None: where the program is connected to, else what ``ray.init()`` finds or starts.
        workers: CPUs of a cluster that is started.
        lost: Called, from a thread of its own, when a session is over, with why, and after its end if it was ours.
    """

    def __init__(self, address: str | None, workers: int | None, lost: Callable[[int, str], None]) -> None:
        self._address = address
        self._workers = workers
        self._lost = lost
        self._connection: object = None
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
        with _lock:
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
        with _lock:
            if self not in _users and self._joined():  # else ours has gone this very moment
                self._guests.add(run)

    def _join(self, run: RunId, since: float) -> None:
        with _lock:
            _open.add(self)
            auto_init_hook.enable_auto_connect = False
            if self._joined():
                return
            if self._failure is not None and since < self._failed_at:
                raise self._failure
            if not ray.is_initialized():
                if run in self._guests:
                    raise ExecutorError(
                        "this program has left its Ray cluster (ray.shutdown()) in mid-run: connect again "
                        "by ray.init(...), and go on with exoflow.resume(run_id)"
                    )
                self._connect()
                _users.clear()
                _users.add(self)
            else:
                if not _is_ours():
                    _users.clear()
                self._check_theirs()
                if _users:
                    _users.add(self)
            self._guests.clear()
            self.session += 1
            self.placement = Placement(is_fixed=self in _users and _is_started_here())
            self._connection = _connection()
            self._node = _node_id()
            self._left.clear()
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
        return self._node is not None and self._connection is _connection()

    def leave(self) -> None:
        """Close the connection if it is ours alone; a cluster that was started with it ends."""
        self._left.set()
        with _lock:
            self._node = None
            if self in _users:
                ours = _is_ours()
                _users.discard(self)
                if not _users and ours:
                    ray.shutdown()
            _open.discard(self)
            if not _open:
                auto_init_hook.enable_auto_connect = _AUTO_CONNECTS

    def _connect(self) -> None:
        try:
            ray.init(self._address, num_cpus=self._workers)
        except (RayError, ImportError, OSError, ValueError, RuntimeError) as error:
            where = self._address or "on this machine"
            self._failure = ExecutorError(f"cannot connect to a Ray cluster ({where}): {error}")
            self._failed_at = monotonic()
            raise self._failure from error

    def _check_theirs(self) -> None:
        if self._dead is not None and self._dead == _node_id():
            raise ExecutorError(
                "the Ray cluster that this program is connected to has died: connect to another one, by ray.shutdown() "
                "and ray.init(...) or in a new process, and go on with exoflow.resume(run_id)"
            )
        if not _users and self._workers is not None:
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

    def _places(self) -> Iterator[tuple[str, tuple[str, int], int]]:
        """What has to answer, where, and how often it may fail to."""
        if is_client():  # it watches its server itself
            return
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        yield "head (the GCS)", (host, int(port)), _MISSES if self in _users else _MISSES_OF_GCS
        for node in ray.nodes():  # type: ignore[no-untyped-call]  # Ray's
            if node["NodeID"] == self._node:
                yield "node of this process", (node["NodeManagerAddress"], node["NodeManagerPort"]), _MISSES

    def _lose(self, node: str | None, why: str) -> None:
        """``node``: of the connection that is meant; while this waits for the lock, another may come instead."""
        with _lock:
            if node is None or node != self._node:
                return
            session, self._dead, self._node = self.session, self._node, None
            if self in _users:  # what is left of it ends, and the next attempt starts another
                ours = _is_ours()
                _users.clear()
                if ours:
                    ray.shutdown()
        self._lost(session, why)


def is_client() -> bool:
    """Whether this process reaches the cluster through the Ray Client: a driver there does what is asked for here."""
    return bool(ray_client.is_connected())  # type: ignore[no-untyped-call]  # Ray's


def _connection() -> object:
    """What stands for the connection that there is: another one after each ``ray.init``; None: there is none."""
    if is_client():
        context: Any = ray_client.get_context()  # type: ignore[no-untyped-call]  # Ray's
        return context.client_worker
    return ray._private.worker._global_node


def _is_ours() -> bool:
    """Whether one of the users has made the connection that there is."""
    return any(user._connection is _connection() for user in _users)


def _is_started_here() -> bool:
    """Whether ``ray.init`` has started the cluster, not found it: it has one node then, and gets no other."""
    node: Any = ray._private.worker._global_node
    return node is not None and node.is_head()


def _node_id() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def _answers(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True
