"""Runs in this process: adopted, at work in the calling thread or task, and stopped by Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from exoflow import settings
from exoflow.driver.runtime import Runtime
from exoflow.driver.spec import FlowSpec
from exoflow.errors import Fenced, StorageError

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution
    from exoflow.driver.records import Start

_BODIES = {
    ("exoflow.attempts.running", "run_attempt"),
    ("exoflow.driver.sync_body", "run"),
    ("exoflow.driver.loops", "waited"),
}
"""The functions that call into the user's code, or wait for a call that nobody records, as a task's of a model: where
that is interrupted, no state of ours is."""


def adopt(
    run_id: str,
    code_of: Callable[[Start], FlowSpec],
    store: settings.StoreSpec | None = None,
    executor: settings.ExecutorSpec | None = None,
    *,
    takeover: bool = False,
    accept: tuple[str, ...] = (),
) -> Execution:
    """Take a run over, to go on with it here.

    Raises:
        RunNotFound, RunIsLive: as it says.
    """
    opened = settings.store_of(store)
    executors = settings.executors_of(opened)

    def code(start: Start) -> FlowSpec:
        if start.cwd and start.cwd != os.getcwd():
            warnings.warn(
                f"the run {run_id} began in {start.cwd}, and goes on in {os.getcwd()}: relative paths differ",
                RuntimeWarning,
                stacklevel=6,
            )
        return code_of(start)

    return Runtime.of(opened).adopt(
        run_id,
        code,
        executor=None if executor is None else executors(executor),
        executors=executors,
        takeover=takeover,
        accept=accept,
    )


def run_here(execution: Execution) -> object:
    """Run a sync flow's body in this thread, or wait for the thread that does."""
    if not is_first(execution):
        return execution.result()
    try:
        if threading.current_thread() is not threading.main_thread():
            return execution.run()
        with _stopped_by_ctrl_c(execution):
            return execution.run()
    except BaseException:
        _flush_if_stopped(execution)
        raise


def run_beside(execution: Execution) -> object:
    """Have an async flow's body run on the background's event loop, and wait for it in this thread."""
    if is_first(execution):
        execution.start()
    try:
        if threading.current_thread() is not threading.main_thread():
            return execution.result()
        with _stopped_by_ctrl_c(execution):
            return execution.result()
    except BaseException:
        _flush_if_stopped(execution)
        raise


async def run_here_async(execution: Execution) -> object:
    """Run an async flow's body in this asyncio task; cancelling that stops the run, which can be resumed."""
    if not is_first(execution):
        return await execution.result_async()
    try:
        return await execution.run_async()
    except BaseException:
        _flush_if_stopped(execution)
        raise


_lock = threading.Lock()


def is_first(execution: Execution) -> bool:
    """Whether nobody runs its body yet: a run can be joined before it is under way."""
    with _lock:
        first, execution.taken = not execution.taken, True
        return first


def _flush_if_stopped(execution: Execution) -> None:
    """Whoever is told that the run was stopped finds it at once: all that it recorded is durable by then."""
    if execution.fatal is not None:
        with suppress(Fenced, StorageError):  # the journal is over: what it has not acknowledged is lost
            Runtime.of(execution.values.store).journal.flush()


@contextmanager
def _stopped_by_ctrl_c(execution: Execution) -> Iterator[None]:
    """While a run is in the main thread, this one, Ctrl-C stops it, and says how to go on.

    A program's own handler of SIGINT stays as it is; so does another thread's run.

    Raises:
        KeyboardInterrupt: the run was stopped, and can be resumed.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    told = KeyboardInterrupt(f"the run was stopped; go on with it by: exoflow resume {execution.run_id}")

    def interrupt(_: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not here: this thread may be in the middle of a step, holding the run's lock.
        threading.Thread(target=execution.stop, args=(told,), name="exoflow-stop", daemon=True).start()
        if in_users_code(frame):
            raise told

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        execution.stop(told)
        raise told from (None if error is told else error)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def in_users_code(frame: FrameType | None) -> bool:
    """Whether the nearest frame of ours has called into a task's or a flow's body."""
    innermost = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "exoflow" or name.startswith("exoflow."):
            return frame is not innermost and (name, frame.f_code.co_name) in _BODIES
        frame = frame.f_back
    return False
