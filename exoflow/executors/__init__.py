"""Executors: who runs attempts, and keeps what they made. ``open_executor`` turns a spec into one."""

from __future__ import annotations

from exoflow.errors import ExecutorError
from exoflow.executors.local import LocalExecutor
from exoflow.executors.ordering import Elsewhere
from exoflow.protocols import Executor, Store

__all__ = ["LocalExecutor", "open_executor"]

_KINDS = ("local", "processes", "ray", "dask")
_CLUSTERS = {"ray": "ray", "tcp": "dask", "tls": "dask"}
"""By the scheme of an address."""


def open_executor(spec: str | Executor, *, store: Store | None = None, elsewhere: Elsewhere | None = None) -> Executor:
    """The executor that a spec names; an Executor is returned as it is. No process starts before the first attempt.

    Args:
        spec: ``"local"`` (threads), ``"processes"``, ``"ray"`` and ``"dask"`` (the cluster that this process is
            connected to, else one on this machine), each with ``":8"`` for eight workers; ``"ray://host:10001"``,
            ``"tcp://scheduler:8786"``.
        store: Where values are saved to and read from; one executor works for one store.
        elsewhere: Gets a value that another executor holds.

    Raises:
        ExecutorError: there is no such executor, or what it needs is not installed.
    """
    if not isinstance(spec, str):
        return spec
    scheme, _, address = spec.partition("://")
    if address and scheme in _CLUSTERS:
        return _opened(_CLUSTERS[scheme], spec, None, store, elsewhere)
    kind, colon, number = spec.partition(":")
    if kind in _KINDS and (not colon or (number.isdecimal() and int(number) > 0)):
        return _opened(kind, None, int(number) if number else None, store, elsewhere)
    raise ExecutorError(
        f"there is no executor {spec!r}: write 'local' (threads), 'processes', 'ray' or 'dask', with ':8' for eight "
        "workers; the address of a cluster, as 'ray://host:10001' or 'tcp://scheduler:8786'; or pass an object that "
        "passes exoflow.testing.executors.ExecutorConformance"
    )


def _opened(
    kind: str, address: str | None, workers: int | None, store: Store | None, elsewhere: Elsewhere | None
) -> Executor:
    match kind:
        case "local":
            return LocalExecutor(workers, store=store, elsewhere=elsewhere)
        case "processes":
            from exoflow.executors.processes import ProcessExecutor

            return ProcessExecutor(workers, store=store, elsewhere=elsewhere)
        case "ray":
            from exoflow.executors.ray import RayExecutor

            return RayExecutor(address, workers, store=store, elsewhere=elsewhere)
        case _:
            from exoflow.executors.dask import DaskExecutor

            return DaskExecutor(address, workers, store=store, elsewhere=elsewhere)
