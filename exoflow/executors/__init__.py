"""Executors: who runs attempts, and keeps what they made. ``open_executor`` turns a spec into one."""

from __future__ import annotations

from collections.abc import Callable

from exoflow.codec import Encoded
from exoflow.errors import ExecutorError
from exoflow.executors.local import LocalExecutor
from exoflow.model import Held
from exoflow.protocols import Executor, Store

__all__ = ["LocalExecutor", "open_executor"]


def open_executor(
    spec: str | Executor, *, store: Store | None = None, elsewhere: Callable[[Held], Encoded] | None = None
) -> Executor:
    """The executor that ``"local"`` (threads) or ``"processes"`` names; an Executor is returned as it is.

    Args:
        spec: Also ``"local:8"`` and ``"processes:8"``, with the number of workers.
        store: Where values are saved to and read from; one executor works for one store.
        elsewhere: Reads a value that another executor holds.

    Raises:
        ExecutorError: this version has no such executor.
    """
    if not isinstance(spec, str):
        return spec
    kind, _, number = spec.partition(":")
    if kind in ("local", "processes") and (not number or (number.isdecimal() and int(number) > 0)):
        workers = int(number) if number else None
        if kind == "local":
            return LocalExecutor(workers, store=store, elsewhere=elsewhere)
        from exoflow.executors.processes import ProcessExecutor

        return ProcessExecutor(workers, store=store, elsewhere=elsewhere)
    raise ExecutorError(
        f"there is no executor {spec!r} in this version: write 'local' (threads) or 'processes', with ':8' for eight "
        "workers, or pass an object that passes exoflow.testing.executors.ExecutorConformance"
    )
