"""Dask: places each attempt on one worker, for which Dask carries it there, its inputs, and what it made.

Rooms that Ray has too, of the same names:
    executor        the protocol's methods, in the caller's threads
    entry           an attempt between ``start`` and its report
    cluster         the connection
    reaching        whether anybody listens at an address
    quiet           what Dask logs of a cluster of our own
    values          what is held there
    actors          where each lives, and its calls
    worker          what a worker does
    worker_actors   what it does for actors

Dask's own, as the executor itself chooses workers (ADR 0020). On the client's loop:
    dispatcher      the loop: gives attempts to workers, takes what comes
    roster          which workers there are
    placing         who has room, and for which resources
    marks           what a process had begun when it died
    unplaceable     what nobody will ever have room for
    demand          what waits, shown to a cluster that scales
    stopping        cancels and timeouts
    ending          what became of an attempt, told once
With a worker:
    body            a body in its thread, and how it is stopped
    parcel          values as Dask keeps them
"""

from __future__ import annotations

from exoflow.errors import ExecutorError

try:
    import distributed  # noqa: F401 -- asked for here, so that whoever lacks it is told how to get it
except ImportError as error:
    raise ExecutorError("the executor 'dask' needs Dask: pip install 'exoflow[dask]'") from error

from exoflow.executors.dask.executor import DaskExecutor

__all__ = ["DaskExecutor"]
