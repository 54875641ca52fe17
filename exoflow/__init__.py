"""Durable Python workflows with no server: ``@flow`` and ``@task``. See ``docs/`` or ``exoflow --help``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # at run time each name is imported when it is first asked for: a script should start at once
    from exoflow.client import cancel as cancel
    from exoflow.client import configure as configure
    from exoflow.client import get as get
    from exoflow.client import resume as resume
    from exoflow.client import runs as runs
    from exoflow.context import (
        attempt as attempt,
    )
    from exoflow.context import (
        idempotency_key as idempotency_key,
    )
    from exoflow.context import (
        now as now,
    )
    from exoflow.context import (
        put as put,
    )
    from exoflow.context import (
        rng as rng,
    )
    from exoflow.context import (
        run_id as run_id,
    )
    from exoflow.context import (
        sleep as sleep,
    )
    from exoflow.context import (
        timer as timer,
    )
    from exoflow.context import (
        uuid4 as uuid4,
    )
    from exoflow.driver.spec import Backoff as Backoff
    from exoflow.errors import (
        AdapterError as AdapterError,
    )
    from exoflow.errors import (
        BudgetExceeded as BudgetExceeded,
    )
    from exoflow.errors import (
        Cancelled as Cancelled,
    )
    from exoflow.errors import (
        CodecError as CodecError,
    )
    from exoflow.errors import (
        Conflict as Conflict,
    )
    from exoflow.errors import (
        ContextTooLong as ContextTooLong,
    )
    from exoflow.errors import (
        Corrupt as Corrupt,
    )
    from exoflow.errors import (
        DidNotHappen as DidNotHappen,
    )
    from exoflow.errors import (
        ExecutorError as ExecutorError,
    )
    from exoflow.errors import (
        ExoFlowError as ExoFlowError,
    )
    from exoflow.errors import (
        Fenced as Fenced,
    )
    from exoflow.errors import (
        InDoubt as InDoubt,
    )
    from exoflow.errors import (
        Interruption as Interruption,
    )
    from exoflow.errors import (
        LLMError as LLMError,
    )
    from exoflow.errors import (
        NoConsensus as NoConsensus,
    )
    from exoflow.errors import (
        NondeterministicFlow as NondeterministicFlow,
    )
    from exoflow.errors import (
        OutOfPages as OutOfPages,
    )
    from exoflow.errors import (
        RunCancelled as RunCancelled,
    )
    from exoflow.errors import (
        RunError as RunError,
    )
    from exoflow.errors import (
        RunIsLive as RunIsLive,
    )
    from exoflow.errors import (
        RunMismatch as RunMismatch,
    )
    from exoflow.errors import (
        RunNotFound as RunNotFound,
    )
    from exoflow.errors import (
        StorageError as StorageError,
    )
    from exoflow.errors import (
        Superseded as Superseded,
    )
    from exoflow.errors import (
        TaskFailed as TaskFailed,
    )
    from exoflow.errors import (
        UnsupportedStore as UnsupportedStore,
    )
    from exoflow.flows import AsyncFlow as AsyncFlow
    from exoflow.flows import Flow as Flow
    from exoflow.flows import flow as flow
    from exoflow.gathering import as_completed as as_completed
    from exoflow.gathering import gather as gather
    from exoflow.model import Happened as Happened
    from exoflow.model import Status as Status
    from exoflow.protocols import Executor as Executor
    from exoflow.protocols import Store as Store
    from exoflow.refs import Ref as Ref
    from exoflow.refs import Refs as Refs
    from exoflow.running import Run as Run
    from exoflow.running import RunEvent as RunEvent
    from exoflow.tasks import AsyncTask as AsyncTask
    from exoflow.tasks import Task as Task
    from exoflow.tasks import task as task

_HOMES = {
    "client": "cancel configure get resume runs",
    "context": "attempt idempotency_key now put rng run_id sleep timer uuid4",
    "driver.spec": "Backoff",
    "errors": (
        "AdapterError BudgetExceeded Cancelled CodecError Conflict ContextTooLong Corrupt DidNotHappen "
        "ExecutorError ExoFlowError Fenced InDoubt Interruption LLMError NoConsensus NondeterministicFlow "
        "OutOfPages RunCancelled RunError RunIsLive RunMismatch RunNotFound StorageError Superseded TaskFailed "
        "UnsupportedStore"
    ),
    "flows": "AsyncFlow Flow flow",
    "gathering": "as_completed gather",
    "model": "Happened Status",
    "protocols": "Executor Store",
    "refs": "Ref Refs",
    "running": "Run RunEvent",
    "tasks": "AsyncTask Task task",
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
