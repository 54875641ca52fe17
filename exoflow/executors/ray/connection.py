"""What Ray says of this process's connection to it, of which there is one at most."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import ray
from ray._private import auto_init_hook, services
from ray._private.worker import logger as ray_log
from ray.util.client import ray as ray_client

if TYPE_CHECKING:
    from exoflow.executors.ray.cluster import Cluster

Place = tuple[str, int]

_AUTO_CONNECTS: bool = auto_init_hook.enable_auto_connect


class Connection:
    """The connection to Ray, and who of this process uses it. Another one than Ray's is for tests."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Held while it is made or closed."""
        self.users: set[Cluster] = set()
        """Who uses the connection that one of them has made. The last to leave closes it; the program's own, nobody."""
        self.open: set[Cluster] = set()

    def current(self) -> object:
        """What stands for the connection that there is: another one after each ``make``; None: there is none."""
        if is_client():
            context: Any = ray_client.get_context()  # type: ignore[no-untyped-call]  # Ray's
            return context.client_worker
        return ray._private.worker._global_node

    def is_made(self) -> bool:
        return ray.is_initialized()

    def meant(self, address: str | None) -> Place | None:
        """Where the cluster is that ``make`` would connect to; None: it starts one, or only Ray knows.

        Raises:
            OSError, ValueError: there is no such host, or this is no address.
        """
        found = address or services.get_ray_address_from_environment(None, None)  # type: ignore[arg-type]  # may be None
        if found is None or found == "local":
            return None
        scheme, _, rest = found.rpartition("://")
        host, _, port = rest.rpartition(":")
        host = host.strip("[]")  # of IPv6
        if scheme not in ("", "ray") or not host or not port.isdecimal():
            return None
        return host if scheme else services.resolve_ip_for_localhost(host), int(port)

    def make(self, address: str | None, workers: int | None) -> None:
        ray_log.addFilter(_is_news)
        try:
            ray.init(address, num_cpus=workers)
        finally:
            ray_log.removeFilter(_is_news)

    def close(self) -> None:
        """A cluster that was started with it ends."""
        ray.shutdown()

    def node(self) -> str:
        """Id of the node that this process is connected to."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def is_started_here(self) -> bool:
        """Whether ``make`` has started the cluster, not found it: it has one node then, and gets no other."""
        node: Any = ray._private.worker._global_node
        return node is not None and node.is_head()

    def head(self) -> Place | None:
        """Where the GCS listens; None: a client's server watches that itself."""
        if is_client():
            return None
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        return host, int(port)

    def raylet(self, id: str | None) -> Place | None:
        """Where that node listens; None: the same, or it is not known."""
        for node in () if is_client() else ray.nodes():  # type: ignore[no-untyped-call]  # Ray's
            if node["NodeID"] == id:
                return node["NodeManagerAddress"], node["NodeManagerPort"]
        return None

    def connects_by_itself(self, allowed: bool) -> None:
        """Whether any use of Ray without a connection starts a cluster, if Ray was set so.

        While one of us is open it is off: a thread that still meant the cluster that has just gone would start one
        beside ours, which then looked like the program's.
        """
        auto_init_hook.enable_auto_connect = allowed and _AUTO_CONNECTS


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a thread of ours takes no signals: nobody is to do anything about that."""
    return "SIGTERM handler is not set" not in record.getMessage()


OF_THIS_PROCESS = Connection()


def is_client() -> bool:
    """Whether this process reaches the cluster through the Ray Client: a driver there does what is asked for here."""
    return bool(ray_client.is_connected())  # type: ignore[no-untyped-call]  # Ray's
