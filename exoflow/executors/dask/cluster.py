"""The cluster: that of an address, of a client, of this process, or one of our own on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from distributed import Client, LocalCluster, default_client, get_worker
from distributed.core import Status
from distributed.security import Security

from exoflow.errors import ExecutorError
from exoflow.executors.dask import quiet
from exoflow.executors.dask.reaching import patience_s, reach


class Connection:
    """A client of our own, so that nobody else's is disturbed, and the cluster, where it is ours, too.

    Args:
        cluster: An address or a client; None: the cluster that this process is connected to, else one of our own.
        workers: Processes of a cluster of our own; one a core if None.
        again: Whether it is for a run that was on a cluster of others: that was chosen, and none of our own can stand
            for it.

    Raises:
        ExecutorError: it cannot be reached, does not start, or is not to be started.
    """

    def __init__(self, cluster: str | Client | None, workers: int | None, *, again: bool = False) -> None:
        found = cluster if cluster is not None or workers is not None else _current()
        if found is None and workers is None and again:
            raise ExecutorError(f"the Dask cluster that this program was connected to is gone in mid-run: {_GO_ON}")
        self.client: Client
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
                place = _place_of(found)
            if isinstance(place, str):
                reach(place)
            self.client = _Client(place, security=security, set_as_default=False, name="exoflow", timeout=patience_s())
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            self.close()
            cause = f"{type(error).__name__}: {error}"
            raise ExecutorError(_own_failed(cause) if found is None else _unreachable(found, cause, again)) from error

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


class _Client(Client):  # type: ignore[misc]  # Dask has no types
    """One that is closed when its scheduler is gone: whatever comes back in its place knows nothing of us."""

    async def _reconnect(self) -> None:
        await self._close()


def _current() -> Client | str | None:
    try:
        return str(get_worker().scheduler.address)
    except ValueError:
        pass
    try:
        return default_client()
    except ValueError:
        return None


def _place_of(client: Client) -> Any:
    """Its cluster, on whose loop ours then runs, beside the scheduler: two would wait for each other's interpreter.

    Not where that is a loop of the program's, which ends when it likes: then, its address.

    Raises:
        ConnectionError: it is closed.
    """
    cluster = client.cluster
    if client.scheduler is None or cluster is not None and cluster.status == Status.closed:
        raise ConnectionError("it was closed")
    of_program = client._asynchronous  # ``asynchronous`` is whether the thread that asks runs the loop
    return client.scheduler.address if cluster is None or of_program else cluster


def _own_failed(cause: str) -> str:
    return (
        "cannot start a Dask cluster on this machine (a script that starts processes keeps what it does "
        f'behind `if __name__ == "__main__":`): {cause}'
    )


def _unreachable(found: Client | str, cause: str, again: bool) -> str:
    where = f"at {found}"
    if isinstance(found, Client):
        where = "of this program's client" if found.scheduler is None else f"at {found.scheduler.address}"
    what_to_do = f"The run was on that cluster, and it is gone: {_GO_ON}" if again else _START
    return f"cannot connect to Dask's scheduler {where}: {cause}. {what_to_do}"


_START = (
    "`dask scheduler` starts one and prints its address, which executor= takes; that is not the address of the "
    "dashboard"
)
_GO_ON = "connect to another one, and go on with exoflow.resume(run_id)"
