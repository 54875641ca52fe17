"""Large values that can be made again are let go while the run goes on: a cluster need not have room for all of them.

A deterministic value that is nowhere but in memory stays while somebody has a Ref to it, or is to take it (V9). Then it
is dropped, as if its executor had lost it; should somebody need it all the same, it is made again (V5, V6).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from exoflow.driver.handle import Handle
from exoflow.kernel.call import Call, State
from exoflow.model import CallId, Kind

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution


def note_value(execution: Execution, handle: Handle) -> None:
    """A call has a value that an executor holds."""
    note = handle.call.note
    if not handle.call.is_choice and note.kind is Kind.TASK and not (note.actor or note.rollback or note.effect):
        handle.may_go = True
        if not handle.refs:
            execution.unreferenced.append(handle)


def note_refs(execution: Execution, handle: Handle) -> None:
    """A call's value refers to others: whoever is given it wants them, too."""
    for owner in _referred(execution, handle):
        owner.refs += 1


def _referred(execution: Execution, handle: Handle) -> list[Handle]:
    owners = {ref.partition("!")[0] for ref in handle.ref_ids} - {handle.call.id}
    found = (execution.handles.get(CallId(owner)) for owner in owners)
    return [owner for owner in found if owner is not None]


def note_passes(execution: Execution, handle: Handle) -> None:
    """A call is passed Refs, which it may return."""
    handle.passing = True
    for call in handle.call.passes:
        if (owner := execution.handles.get(call.id)) is not None:
            owner.refs += 1


def _unpinned(execution: Execution, owners: Iterable[Handle]) -> None:
    for owner in owners:
        owner.refs -= 1
        if not owner.refs and owner.may_go:
            execution.unreferenced.append(owner)


def note_end(execution: Execution, handle: Handle) -> None:
    """A call has ended: it may have been the last one that took its inputs."""
    owners = execution.handles
    for source in handle.call.inputs:
        owner = owners.get(source.id)
        if owner is not None and owner.may_go and not owner.refs:
            execution.unreferenced.append(owner)
    if handle.passing:
        handle.passing = False
        _unpinned(execution, [owners[call.id] for call in handle.call.passes if call.id in owners])


def let_go(execution: Execution) -> None:
    """Drop what nobody needs any more. Under the lock."""
    while execution.unreferenced:
        handle = execution.unreferenced.popleft()
        call = handle.call
        if handle.refs or execution.handles.get(call.id) is not handle or is_needed(call):
            continue  # when the last one that takes it has ended, it is looked at again
        handle.may_go = False
        execution.kernel.lost(call.id)
        call.why = "let go"
        for id in (call.id, *handle.put_ids):
            execution.values.release(execution.values.at.get(id))
        _unpinned(execution, _referred(execution, handle))


def is_needed(call: Call) -> bool:
    """Whether the value is still to be used, or is not in memory alone."""
    if call.state is not State.DONE or not call.held or call.saved or call.failed or not call.attached:
        return True
    if call.wanted or call.forced or call.upload or call.waiters:
        return True
    return any(taker.state is not State.DONE for taker in (*call.takers, *call.late_takers))
