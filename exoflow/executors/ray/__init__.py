"""Ray: attempts are Ray tasks, which Ray never runs again by itself, and their values stay in its object stores.

Rooms that Dask has too, of the same names:
    executor        the protocol's methods; starts Ray tasks, and reports what became of them
    entry           an attempt between ``start`` and its report
    cluster         the connection, as an executor uses it
    values          what is held there
    actors          where each lives, and its calls
    worker          what a worker does
    worker_actors   what it does for actors

Ray's own, as Ray chooses workers (ADR 0019):
    batching        short attempts that share a Ray task
    connection      what Ray says of it: one a process
    resources       the words for what a task needs
    savers          the processes that write values to the store
"""

from __future__ import annotations

from exoflow.errors import ExecutorError

try:
    import ray  # noqa: F401 -- asked for here, so that whoever lacks it is told how to get it
except ImportError as error:
    raise ExecutorError("the executor 'ray' needs Ray: pip install 'exoflow[ray]'") from error

from exoflow.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
