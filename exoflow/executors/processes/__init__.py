"""Worker processes of this machine.

Rooms:
    executor        the protocol's methods; a thread for each worker
    child           a worker, seen from there
    worker          what it does
    spool           large values, between the two
"""

from __future__ import annotations

from exoflow.executors.processes.executor import ProcessExecutor

__all__ = ["ProcessExecutor"]
