"""Runs by their ids: go on with one, list them, look at one, cancel it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from exoflow.attempts import current_attempt
from exoflow.catalogue import Catalogue
from exoflow.codec.mainfile import find_in_file
from exoflow.driver.body import current_body
from exoflow.driver.records import Start
from exoflow.driver.runtime import Runtime
from exoflow.driver.spec import FlowSpec
from exoflow.errors import RunError
from exoflow.flows import AnyFlow, defined
from exoflow.hosting import adopt, run_here
from exoflow.model import Status
from exoflow.running import Run, RunEvent
from exoflow.settings import ExecutorSpec, StoreSpec, configure, store_of

__all__ = ["Run", "RunEvent", "cancel", "configure", "get", "resume", "runs"]


def resume(
    run_id: str,
    *,
    store: StoreSpec | None = None,
    executor: ExecutorSpec | None = None,
    takeover: bool = False,
    accept: Sequence[str] = (),
) -> object:
    """Go on with a run that broke off, failed or is in doubt, in this process; the result of one that is done.

    Its code is found by the flow's name among those defined here, else by the module or file that the run recorded.

    Args:
        run_id: Of the run.
        store: Where it is; the default one if None.
        executor: Instead of the one that it had.
        takeover: Take it from a process that lives: that one can record nothing more.
        accept: Ids of calls whose recorded results are used although their code has changed.

    Raises:
        RunNotFound: there is none; the message names the nearest id.
        RunIsLive: another process has it.
        RunMismatch: code has changed whose recorded result would be used.
        RunCancelled: it was cancelled.
        InDoubt: nobody knows whether an irrevocable effect happened.
        RunError: its code cannot be found, or a call to accept has no result.
        RuntimeError: in a flow or a task.
        Exception: the flow's own error.
    """
    if current_body() is not None or current_attempt() is not None:
        raise RuntimeError(f"exoflow.resume({run_id!r}) in a flow or a task: resume runs from outside")
    execution = adopt(run_id, code_of, store, executor, takeover=takeover, accept=tuple(accept))
    if not execution.flow.is_async:
        return run_here(execution)
    starter = threading.Thread(target=execution.start)  # not on a loop that this thread runs, and blocks
    starter.start()
    starter.join()
    return execution.result()


def runs(
    *,
    store: StoreSpec | None = None,
    status: Status | str | None = None,
    flow: str | None = None,
    labels: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> list[Run[object]]:
    """The runs of a store, the newest first.

    Args:
        store: The default one if None.
        status: Only those that stand so, as ``"failed"``.
        flow: Only those of this flow.
        labels: Only those that have all of these.
        limit: At most so many.

    Raises:
        ValueError: there is no such status.
    """
    opened = store_of(store)
    wanted = None if status is None else Status(status)
    with Catalogue(opened) as catalogue:
        catalogue.refresh()
        found = catalogue.runs(status=wanted, flow=flow, labels=labels, limit=limit)
    live = Runtime.of(opened).executions
    return [Run(each.run_id, opened, live.get(each.run_id), each) for each in found]


def get(run_id: str, *, store: StoreSpec | None = None) -> Run[object]:
    """One run.

    Raises:
        RunNotFound: there is none; the message names the nearest id.
    """
    opened = store_of(store)
    execution = Runtime.of(opened).executions.get(run_id)
    if execution is not None:
        return Run(run_id, opened, execution)
    with Catalogue(opened) as catalogue:
        catalogue.refresh()
        return Run(run_id, opened, None, catalogue.run(run_id))


def cancel(run_id: str, *, store: StoreSpec | None = None) -> None:
    """Cancel a run, whichever process it is in. Durable when it returns; of one that broke off, ``resume`` undoes.

    Raises:
        RunNotFound: there is none; the message names the nearest id.
        InDoubt: it stopped so, and nobody has said yet what happened.
    """
    get(run_id, store=store).cancel()


def code_of(start: Start) -> FlowSpec:
    """The flow that a run recorded.

    Raises:
        RunError: it is not to be found.
    """
    spec = defined.get(start.flow)
    if spec is None:
        found = _load(start)
        spec = defined.get(start.flow)
        if spec is None and isinstance(found, AnyFlow):
            spec = found._spec
    if spec is None:
        raise _not_found(start)
    return spec


def _load(start: Start) -> object:
    """Import what the run recorded: that defines the flow."""
    if start.file is None or "<locals>" in start.qualname:
        if start.module:
            importlib.import_module(start.module)
        return None
    if start.module and _origin(start.module) == start.file:
        importlib.import_module(start.module)
        return None
    folder = os.path.dirname(start.file)
    if not start.module and folder not in sys.path:
        sys.path.insert(0, folder)  # as it was when the file was a script: its neighbours are imported by name
    try:
        return find_in_file(start.file, start.qualname, start.module or None, 0)
    except Exception as error:
        raise _not_found(start, f": {error}") from error


def _origin(module: str) -> str | None:
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            return os.path.realpath(spec.origin)
    return None


def _not_found(start: Start, why: str = "") -> RunError:
    where = start.file or start.module
    place = f"nor in {where} as {start.qualname}{why}" if where else "and was in no file (`python -c`, or typed in)"
    error = RunError(
        f"the code of {start.flow} is not in this process, {place}. Import it before "
        f"exoflow.resume({start.run_id!r}), or call resume on the flow itself"
    )
    error.run_id = start.run_id
    return error
