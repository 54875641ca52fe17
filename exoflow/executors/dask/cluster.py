"""The cluster: that of an address, of a client, of this process, or one of our own on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from distributed import Client, LocalCluster, default_client, get_worker
from distributed.security import Security

from exoflow.errors import ExecutorError


class Connection:
    """A client of our own, so that nobody else's is disturbed, and the cluster, where it is ours, too.

    Args:
        cluster: An address or a client; None: the cluster that this process is connected to, else one of our own.
        workers: Processes of a cluster of our own; one a core if None.

    Raises:
        ExecutorError: it cannot be reached, or does not start.
    """

    def __init__(self, cluster: str | Client | None, workers: int | None) -> None:
        found = cluster if cluster is not None or workers is not None else _current()
        self.cluster: LocalCluster | None = None
        place: Any = found
        security: Security | dict[str, Any] | None = None
        try:
            if found is None:
                # Nobody else's: one thread a worker, so that what has to be killed runs alone there.
                self.cluster = LocalCluster(
                    n_workers=workers or os.cpu_count() or 1, threads_per_worker=1, dashboard_address=":0"
                )
                place = self.cluster
            elif isinstance(found, Client):
                security = found.security
                # By the cluster, if it can be: a client that knows it does not try to reach one that was closed.
                is_known = found.cluster is not None and not found.asynchronous
                place = found.cluster if is_known else found.scheduler.address
            self.client = Client(place, security=security, set_as_default=False, name="exoflow")
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            self.close()
            raise ExecutorError(f"cannot {_what(found)}: {type(error).__name__}: {error}") from error

    @property
    def is_own(self) -> bool:
        """Whether nobody else uses the cluster, so that we may kill its workers. It is on this machine."""
        return self.cluster is not None

    def keep_workers(self) -> None:
        """Have a cluster of our own start again what it gave up.

        It closes, for good, a worker that is not there 15 seconds after it died: one that died again, or starts slowly.
        """
        cluster = self.cluster
        if cluster is not None and len(cluster.workers) < len(cluster.worker_spec):
            cluster.scale(len(cluster.worker_spec))

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if self.cluster is not None:
            for nanny in self.cluster.workers.values():  # a body that still runs would be waited for
                nanny.auto_restart = False
                if nanny.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
            self.cluster.close()


def _current() -> Client | str | None:
    try:
        return str(get_worker().scheduler.address)
    except ValueError:
        pass
    try:
        return default_client()
    except ValueError:
        return None


def _what(found: Client | str | None) -> str:
    if found is None:
        return (
            "start a Dask cluster on this machine (a script that starts processes keeps what it does "
            'behind `if __name__ == "__main__":`)'
        )
    return f"connect to Dask's scheduler {found if isinstance(found, str) else found.scheduler.address}"
