"""Dask: places each attempt on one worker, for which Dask carries it there, its inputs, and what it made."""

from __future__ import annotations

from exoflow.errors import ExecutorError

try:
    import distributed  # noqa: F401 -- asked for here, so that whoever lacks it is told how to get it
except ImportError as error:
    raise ExecutorError("the executor 'dask' needs Dask: pip install 'exoflow[dask]'") from error

from exoflow.executors.dask.executor import DaskExecutor

__all__ = ["DaskExecutor"]
