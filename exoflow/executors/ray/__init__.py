"""Ray: attempts are Ray tasks, which Ray never runs again by itself, and their values stay in its object stores."""

from __future__ import annotations

from exoflow.errors import ExecutorError

try:
    import ray  # noqa: F401 -- asked for here, so that whoever lacks it is told how to get it
except ImportError as error:
    raise ExecutorError("the executor 'ray' needs Ray: pip install 'exoflow[ray]'") from error

from exoflow.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
