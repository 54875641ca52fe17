"""What became of attempts: values and errors are put where they belong, and the kernel is told. Under the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exoflow import codec
from exoflow.attempts.actors import STATE
from exoflow.driver import dispatching
from exoflow.driver.damage import verify, verify_snapshot
from exoflow.driver.handle import Handle
from exoflow.driver.letting_go import let_go, note_end, note_refs, note_value
from exoflow.errors import TaskFailed
from exoflow.kernel.call import Call, State
from exoflow.model import CallId, Held, Inline, Stored, Value, Version
from exoflow.protocols import Computed, Outcome, Raised, Vanished

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution


def take_outcome(execution: Execution, handle: Handle, version: Version, outcome: Outcome) -> None:
    """An attempt has ended."""
    execution.values.take_back(version)
    _take_outcome(execution, execution.handles.get(handle.call.id, handle), version, outcome)  # made again, perhaps
    if handle.call.note.paid:
        dispatching.ended(execution, handle.call.id, version)


def _take_outcome(execution: Execution, handle: Handle, version: Version, outcome: Outcome) -> None:
    call = handle.call
    if not isinstance(outcome, Vanished) and outcome.bill is not None:
        handle.bill = outcome.bill if handle.bill is None else handle.bill + outcome.bill
    if call.note.actor:
        given_back = isinstance(outcome, Vanished) and outcome.state is not None
        execution.values.end_turn(version, given_back=given_back)
    if isinstance(outcome, Computed):
        if outcome.worker and call.attempt == version:
            handle.worker = outcome.worker
        take_value(execution, handle, version, outcome)
        if call.inputs or call.passes:
            note_end(execution, handle)
        if execution.unreferenced:
            let_go(execution)
        return
    if call.attempt == version:
        _timed(execution, handle, outcome.seconds)
    if isinstance(outcome, Raised):
        if outcome.worker and call.attempt == version:
            handle.worker = outcome.worker
        execution.values.errors[call.id] = outcome.error
        _take_error(execution, call, version, outcome)
    else:
        if call.attempt == version:
            execution.values.errors[call.id] = _vanished_error(handle, outcome.reason)
        for lost in outcome.lost:
            forget_value(execution, lost)
        if outcome.lost and not call.attached and call.attempt == version and call.state is State.RUNNING:
            call.state = State.IDLE  # it did not begin, and its body has been set aside: that makes the call again
        else:
            execution.kernel.vanished(call.id, version, began=outcome.state is None)


def _take_error(execution: Execution, call: Call, version: Version, outcome: Raised) -> None:
    kernel, values = execution.kernel, execution.values
    if not call.note.actor:
        kernel.failed(call.id, version, did_not_happen=outcome.did_not_happen)
        return
    state, snapshot = outcome.state is not None, outcome.snapshot is not None
    kernel.failed(call.id, version, did_not_happen=outcome.did_not_happen, state=state, snapshot=snapshot)
    if call.state is State.DONE and call.version == version:
        values.place_state(call.id, outcome.state, outcome.snapshot)
    else:
        values.release(outcome.state)  # it is tried again, from the state before


def forget_outcome(execution: Execution, version: Version, outcome: Outcome) -> None:
    """An attempt has ended after the run stopped here: nobody wants what it made, nor any more what it was given."""
    execution.values.take_back(version)
    if isinstance(outcome, Computed | Raised):
        execution.values.release(outcome.state)
    if isinstance(outcome, Computed):
        _release(execution, outcome)


def _release(execution: Execution, outcome: Computed) -> None:
    execution.values.release(outcome.value)
    for _, put in outcome.puts:
        execution.values.release(put)


def take_value(execution: Execution, handle: Handle, version: Version, outcome: Computed) -> None:
    """A call has a value, if the kernel says that it counts."""
    kernel, values = execution.kernel, execution.values
    call = handle.call
    value = outcome.value
    if call.attempt == version:
        _timed(execution, handle, outcome.seconds)
    held = type(value) is Held or any(type(put) is Held for _, put in outcome.puts)
    if held:
        kernel.seconds_per_byte = execution.rate.seconds_per_byte()
    counts = kernel.computed(
        call.id,
        version,
        size=_size_of(value) + sum(_size_of(put) for _, put in outcome.puts),
        inline=type(value) is Inline and not held,
        stored=isinstance(value, Stored) and not held,
        seconds=outcome.seconds,
        refs=_references(execution, call.id, outcome.refs) if outcome.refs else (),
        state=outcome.state is not None,
        snapshot=outcome.snapshot is not None,
    )
    if not counts:
        _release(execution, outcome)
        values.release(outcome.state)
        return
    values.place(call.id, value)
    if call.note.actor:
        values.place_state(call.id, outcome.state, outcome.snapshot)
    if outcome.refs or handle.rare:
        handle.ref_ids, handle.linked = outcome.refs, outcome.linked
        note_refs(execution, handle)
    if outcome.puts:
        handle.put_ids = tuple(id for id, _ in outcome.puts)
        for id, put in outcome.puts:
            values.place(id, put)
    if held:
        note_value(execution, handle)


def forget_value(execution: Execution, id: CallId) -> None:
    """A value could not be had: an executor has lost it; or is its object damaged?

    Raises:
        Corrupt: it is.
    """
    if id.endswith(STATE):
        _forget_state(execution, _owner(id))
    elif isinstance(execution.values.at.get(id), Held):
        execution.kernel.lost(_owner(id))
    else:
        execution.values.only_stored(id)
        verify(execution, id)


def _forget_state(execution: Execution, id: CallId) -> None:
    """The state that an actor's call has left could not be had: the live one is gone, or is its snapshot damaged?

    Raises:
        Corrupt: it is, and something released stands on what would have to be made again.
    """
    call = execution.kernel.calls[id]
    if call.snapshot and call.snapshot == call.version and not call.live and id not in execution.values.states:
        verify_snapshot(execution, call)
    execution.values.release(execution.values.states.pop(id, None))
    execution.kernel.state_lost(id)


def _size_of(value: Value) -> int:
    return len(value) if isinstance(value, Inline) else value.size


def _references(execution: Execution, id: CallId, refs: tuple[CallId, ...]) -> tuple[Call, ...]:
    return tuple(execution.kernel.reference(_owner(ref)) for ref in refs if _owner(ref) != id)


def _timed(execution: Execution, handle: Handle, seconds: float) -> None:
    """Note when the body began: an attempt may have waited for its executor long before that."""
    handle.seconds = seconds
    handle.started_s = execution.clock.now() - seconds


def _vanished_error(handle: Handle, reason: str) -> bytes:
    error: Exception = TaskFailed(f"{handle.call.id}: {reason}")
    if reason.startswith("timed out"):
        error = TimeoutError(f"{handle.call.id} {reason}")
    return codec.encode_error(error)


def _owner(ref: CallId) -> CallId:
    """Values that a task put belong to it: ``task#0!1`` is part of ``task#0``."""
    return CallId(ref.partition("!")[0])
