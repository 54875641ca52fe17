"""The cluster: that of an address, of a client, of this process, or one of our own on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from distributed import Client, LocalCluster, default_client, get_worker
from distributed.security import Security

from exoflow.errors import ExecutorError
from exoflow.executors.dask import quiet
from exoflow.executors.dask.reaching import patience_s, reach


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
                quiet.begin()
            elif isinstance(found, Client):
                security = found.security
                # By the cluster, if it can be: a client that knows it does not try to reach one that was closed.
                is_known = found.cluster is not None and not found.asynchronous
                place = found.cluster if is_known else found.scheduler.address
            if isinstance(place, str):
                reach(place)
            self.client = Client(place, security=security, set_as_default=False, name="exoflow", timeout=patience_s())
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            self.close()
            cause = f"{type(error).__name__}: {error}"
            raise ExecutorError(_own_failed(cause) if found is None else _unreachable(found, cause)) from error

    @property
    def is_own(self) -> bool:
        """Whether nobody else uses the cluster, so that we may kill its workers. It is on this machine."""
        return self.cluster is not None

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler is gone, as far as this process knows."""
        comm = self.client.scheduler_comm
        return self.client.status != "running" or comm is None or comm.closed()

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
            quiet.end()


def _current() -> Client | str | None:
    try:
        return str(get_worker().scheduler.address)
    except ValueError:
        pass
    try:
        return default_client()
    except ValueError:
        return None


def _own_failed(cause: str) -> str:
    return (
        "cannot start a Dask cluster on this machine (a script that starts processes keeps what it does "
        f'behind `if __name__ == "__main__":`): {cause}'
    )


def _unreachable(found: Client | str, cause: str) -> str:
    address = found if isinstance(found, str) else found.scheduler_info().get("address", "of a client that is closed")
    return (
        f"cannot connect to Dask's scheduler at {address}: {cause}. `dask scheduler` starts one and prints its "
        "address, which executor= takes; that is not the address of the dashboard"
    )
