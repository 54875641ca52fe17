"""The kernel has ordered an attempt: note, timer, child flow or task, each begins in its own way. Under the lock."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from functools import partial
from typing import TYPE_CHECKING

from exoflow import codec
from exoflow.attempts import is_async
from exoflow.driver import notes, undo
from exoflow.driver.async_body import AsyncBody
from exoflow.driver.attempt import attempt_of, executor_of, lost_state
from exoflow.driver.handle import Handle
from exoflow.driver.loops import background_loop, keep
from exoflow.driver.outcomes import take_outcome
from exoflow.driver.spec import pause_s
from exoflow.driver.strands import current
from exoflow.driver.sync_body import SyncBody
from exoflow.errors import ExecutorError
from exoflow.kernel import commands as do
from exoflow.kernel.call import State
from exoflow.model import Inline, Kind, Version
from exoflow.protocols import Computed, Vanished

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

_NONE = codec.to_bytes(codec.encode(None))


def run(execution: Execution, command: do.Run) -> None:
    """Begin an attempt, now or after its backoff; or leave it to the body that waits for it."""
    handle = execution.handles[command.call]
    if handle.spec.note.kind is Kind.NOTE:
        if handle.choose is not None:
            notes.take(execution, handle, handle.choose())
        else:
            handle.body.wake_for(handle)
        return
    handle.number = command.number
    if command.why != "first":
        handle.why = command.why
    if command.why == "retry":
        delay_s = pause_s(handle.spec.backoff, handle.call.tries, f"{execution.seed}/{handle.call.id}")
        if delay_s > 0:
            later = partial(_launch_later, execution, handle, command.version)
            execution.delayed[command.version] = execution.clock.call_at(execution.clock.now() + delay_s, later)
            return
    if handle.call.id in execution.offers:
        execution.stash[handle.call.id] = (handle, command.version)
        handle.body.wake_for(handle)
        return
    launch(execution, handle, command.version)


def stop(execution: Execution, command: do.Stop) -> None:
    """Have an attempt ended."""
    handle = execution.handles.get(command.call)
    if handle is None:
        return
    if _never_began(execution, handle, command.version):  # no executor knows of it, so none would report its end
        take_outcome(execution, handle, command.version, Vanished("stopped before it began"))
    elif (strand := execution.inner.pop(command.version, None)) is not None:
        strand.get_loop().call_soon_threadsafe(strand.cancel)
    else:
        executor_of(execution, handle.spec).cancel(command.version, execution.run_id)


def abandon(execution: Execution) -> None:
    """Have those attempts ended that an event loop of ours runs, or would: nobody hears of them any more, and what they
    wait for may cost something. A thread cannot be ended. Under the lock.
    """
    for handle in execution.handles.values():
        call, spec = handle.call, handle.spec
        if call.state is State.RUNNING and spec.note.kind is Kind.TASK and is_async(spec.function):
            executor = executor_of(execution, spec)
            if executor.name == "local":
                executor.cancel(call.attempt, execution.run_id)


def _never_began(execution: Execution, handle: Handle, version: Version) -> bool:
    """Take back an attempt that waits for its backoff, or for the body that is to run it."""
    if execution.forget_timer(version):
        return True
    if execution.stash.get(handle.call.id, (None, None))[1] == version:
        del execution.stash[handle.call.id]
        return True
    return False


def _launch_later(execution: Execution, handle: Handle, version: Version) -> None:
    with execution.lock:
        if execution.delayed.pop(version, None) is not None and execution.fatal is None:
            execution.event(launch, execution, handle, version)


def launch(execution: Execution, handle: Handle, version: Version) -> None:
    """Begin an attempt now. Under the lock."""
    kind = handle.spec.note.kind
    handle.started_s = execution.clock.now()
    if kind is Kind.FLOW:
        if execution.kernel.expects(handle.call, version):
            _launch_child(handle)
    elif kind is Kind.TIMER:
        _arm(execution, handle, version)
    elif kind is Kind.EVENT:
        execution.inbox.wait(handle, version)
    else:
        _launch_task(execution, handle, version)


def _launch_task(execution: Execution, handle: Handle, version: Version) -> None:
    spec = handle.spec
    if spec.note.rollback and execution.history.intents[handle.call.id].inputs is None:
        lost = undo.lost_input(execution, handle)
        take_outcome(execution, handle, version, Vanished("an input is lost", lost=lost))
        return
    if spec.actor is not None and not executor_of(execution, spec).has_actors:
        raise ExecutorError(
            f"the executor {executor_of(execution, spec).name!r} has no actors, and {handle.call.id} is one's: write "
            f"@exoflow.actor(executor='local'), 'processes', 'ray' or 'dask', and resume"
        )
    if spec.actor is not None and (ended := lost_state(execution, handle, version)) is not None:
        take_outcome(execution, handle, version, ended)
        return
    attempt = attempt_of(execution, handle, version)
    executor = executor_of(execution, spec)
    if execution.runtime_sources is not None:
        execution.runtime_sources(spec.code, getattr(spec.function, "function", spec.function))
    executor.start(attempt, partial(execution.report, handle, version))


def _arm(execution: Execution, handle: Handle, version: Version) -> None:
    ring = partial(_ring, execution, handle, version)
    execution.delayed[version] = execution.clock.call_at(notes.due_s(execution, handle), ring)


def _ring(execution: Execution, handle: Handle, version: Version) -> None:
    with execution.lock:
        if execution.delayed.pop(version, None) is not None:
            execution.report(handle, version, Computed(Inline(_NONE), 0.0))


def _launch_child(handle: Handle) -> None:
    """Begin the body of a child flow, in a thread or asyncio task of its own."""
    flow, parent = handle.flow, handle.body
    assert flow is not None
    path = f"{handle.call.id}/"
    if not flow.is_async:
        body = SyncBody(parent.execution, flow, path, handle)
        threading.Thread(target=body.run, name=f"exoflow-{handle.call.id}", daemon=True).start()
        return
    child = AsyncBody(parent.execution, flow, path, handle)
    if isinstance(parent, AsyncBody):
        loop = parent.loop or asyncio.get_running_loop()
        context = contextvars.copy_context()
        context.run(current.set, None)  # a child flow is no strand of its parent
        loop.call_soon_threadsafe(lambda: keep(loop.create_task(child.run())), context=context)
    else:
        asyncio.run_coroutine_threadsafe(child.run(), background_loop())
