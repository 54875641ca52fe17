"""Durable Python workflows with no server: ``@flow`` and ``@task``. See ``docs/`` or ``exoflow --help``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # at run time each name is imported when it is first asked for: a script should start at once
    from exoflow.actors import actor as actor
    from exoflow.client import cancel as cancel, configure as configure, get as get, resume as resume, runs as runs
    from exoflow.context import (
        attempt as attempt,
        event as event,
        idempotency_key as idempotency_key,
        now as now,
        put as put,
        rng as rng,
        run_id as run_id,
        sleep as sleep,
        timer as timer,
        uuid4 as uuid4,
        wait_for as wait_for,
    )
    from exoflow.driver.spec import Backoff as Backoff
    from exoflow.errors import (
        AdapterError as AdapterError,
        BudgetExceeded as BudgetExceeded,
        Cancelled as Cancelled,
        CodecError as CodecError,
        Conflict as Conflict,
        ContextTooLong as ContextTooLong,
        Corrupt as Corrupt,
        DidNotHappen as DidNotHappen,
        ExecutorError as ExecutorError,
        ExoFlowError as ExoFlowError,
        Fenced as Fenced,
        InDoubt as InDoubt,
        Interruption as Interruption,
        LLMError as LLMError,
        NoConsensus as NoConsensus,
        NondeterministicFlow as NondeterministicFlow,
        OutOfPages as OutOfPages,
        RunCancelled as RunCancelled,
        RunError as RunError,
        RunIsLive as RunIsLive,
        RunMismatch as RunMismatch,
        RunNotFound as RunNotFound,
        StorageError as StorageError,
        Superseded as Superseded,
        TaskFailed as TaskFailed,
        UndoFailed as UndoFailed,
        UnsupportedStore as UnsupportedStore,
    )
    from exoflow.flows import AsyncFlow as AsyncFlow, Flow as Flow, flow as flow
    from exoflow.gathering import as_completed as as_completed, gather as gather
    from exoflow.model import Happened as Happened, Status as Status
    from exoflow.protocols import Executor as Executor, Store as Store
    from exoflow.refs import Ref as Ref, Refs as Refs
    from exoflow.running import Run as Run, RunEvent as RunEvent
    from exoflow.sending import resolve as resolve, send as send
    from exoflow.tasks import AsyncTask as AsyncTask, Task as Task, task as task
    from exoflow.transactions import connection as connection, transaction as transaction

_HOMES = {
    "actors": "actor",
    "client": "cancel configure get resume runs",
    "context": "attempt event idempotency_key now put rng run_id sleep timer uuid4 wait_for",
    "driver.spec": "Backoff",
    "errors": (
        "AdapterError BudgetExceeded Cancelled CodecError Conflict ContextTooLong Corrupt DidNotHappen "
        "ExecutorError ExoFlowError Fenced InDoubt Interruption LLMError NoConsensus NondeterministicFlow "
        "OutOfPages RunCancelled RunError RunIsLive RunMismatch RunNotFound StorageError Superseded TaskFailed "
        "UndoFailed UnsupportedStore"
    ),
    "flows": "AsyncFlow Flow flow",
    "gathering": "as_completed gather",
    "model": "Happened Status",
    "protocols": "Executor Store",
    "refs": "Ref Refs",
    "running": "Run RunEvent",
    "sending": "resolve send",
    "tasks": "AsyncTask Task task",
    "transactions": "connection transaction",
}
"""Which module a name comes from."""

_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = sorted(_HOME)  # noqa: PLE0605  # type checkers read the imports above


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'exoflow' has no attribute {name!r}")
    value: object = getattr(import_module(f"exoflow.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
