"""Threads that find the connection gone at the same moment. Ray's side is played, so that they meet where they must."""

import socket
import threading
from collections.abc import Callable

import pytest

from exoflow.errors import ExecutorError
from exoflow.executors.ray.cluster import Cluster
from exoflow.executors.ray.connection import Connection, Place


class PlayedConnection(Connection):
    """Made and closed as Ray's is. ``meanwhile`` happens once, while a thread looks which connection there is."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.meanwhile: Callable[[], None] | None = None
        self.may_be_watched = threading.Event()
        self.place: Place | None = None
        """Where it says that the cluster is."""
        self.is_making = threading.Event()
        self.may_be_made = threading.Event()
        self.may_be_made.set()
        self._made = 0
        self._current: str | None = None

    def current(self) -> object:
        found, meanwhile, self.meanwhile = self._current, self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found

    def is_made(self) -> bool:
        return self._current is not None

    def meant(self, address: str | None) -> Place | None:
        return self.place

    def make(self, address: str | None, workers: int | None) -> None:
        self.is_making.set()
        self.may_be_made.wait()
        self._made += 1
        self._current = f"connection {self._made}"
        self.said.append(f"{self._current} is made")

    def close(self) -> None:
        self.said.append(f"{self._current} is closed")
        self._current = None

    def dies(self) -> None:
        self._current = None

    def node(self) -> str:
        return f"node of {self._current}"

    def is_started_here(self) -> bool:
        return True

    def head(self) -> None:
        self.may_be_watched.wait()

    def raylet(self, id: str | None) -> None: ...

    def connects_by_itself(self, allowed: bool) -> None: ...


@pytest.fixture
def connection():
    connection = PlayedConnection()
    yield connection
    connection.may_be_watched.set()


def in_another_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_a_thread_that_finds_the_connection_gone_keeps_what_another_has_made_meanwhile(connection):
    lost = []
    cluster = Cluster(None, None, lambda session, why: lost.append(session), connection)

    def joins() -> None:
        cluster.join("run", 0.0)

    joins()
    connection.dies()
    connection.meanwhile = lambda: in_another_thread(joins)
    joins()
    assert connection.said == ["connection 1 is made", "connection 2 is made"]
    assert cluster.has(2)
    assert lost == [1]
    cluster.leave()
    assert connection.said[2:] == ["connection 2 is closed"]


def test_a_thread_that_waits_for_the_one_that_connects_joins_what_that_makes(connection):
    """It was about to connect itself: the other has lost the connection, and has not made one yet."""
    lost, waiting = [], []

    def loses(session: int, why: str) -> None:
        lost.append(session)
        in_another_thread(joins)  # before this thread connects

    def joins() -> None:
        cluster.join("run", 0.0)
        waiting.append(cluster.session)

    cluster = Cluster(None, None, loses, connection)
    joins()
    connection.dies()
    joins()
    assert connection.said == ["connection 1 is made", "connection 2 is made"]
    assert waiting == [1, 2, 2]
    assert lost == [1]
    cluster.leave()


def test_two_executors_that_lose_the_connection_share_the_next_one(connection):
    def joins(cluster: Cluster) -> None:
        cluster.join("run", 0.0)

    one, other = (Cluster(None, None, lambda session, why: None, connection) for _ in range(2))
    joins(one)
    joins(other)
    connection.dies()
    connection.meanwhile = lambda: in_another_thread(lambda: joins(other))
    joins(one)
    assert connection.said == ["connection 1 is made", "connection 2 is made"]
    one.leave()
    assert connection.said[2:] == []
    other.leave()
    assert connection.said[2:] == ["connection 2 is closed"]


def test_where_nobody_listens_ray_is_not_asked(connection):
    """It would try for a quarter of an hour."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        connection.place = free.getsockname()
        cluster = Cluster(None, None, lambda session, why: None, connection, patience_s=0.0)
        with pytest.raises(ExecutorError, match=r"nobody listens at 127\.0\.0\.1:\d+\. Start one there"):
            cluster.join("run", 0.0)
    assert connection.said == []
    cluster.leave()


def test_who_waits_for_somebody_to_listen_gives_up_when_it_leaves(connection):
    refused = []

    def joins() -> None:
        with pytest.raises(ExecutorError) as info:
            cluster.join("run", 0.0)
        refused.append(str(info.value))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        connection.place = free.getsockname()
        cluster = Cluster(None, None, lambda session, why: None, connection, patience_s=1e9)
        thread = threading.Thread(target=joins)
        thread.start()
        cluster.leave()
        thread.join()
    assert len(refused) == 1
    assert connection.said == []


def test_leaving_does_not_wait_for_a_thread_that_hangs_while_it_connects(connection):
    """What comes of that is closed by the thread, if it comes back."""

    def joins() -> None:
        with pytest.raises(ExecutorError, match="closed"):
            cluster.join("run", 0.0)

    cluster = Cluster(None, None, lambda session, why: None, connection)
    connection.may_be_made.clear()
    thread = threading.Thread(target=joins)
    thread.start()
    connection.is_making.wait()
    cluster.leave()
    assert connection.said == []
    connection.may_be_made.set()
    thread.join()
    assert connection.said == ["connection 1 is made", "connection 1 is closed"]
