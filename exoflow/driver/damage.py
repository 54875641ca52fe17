"""Recorded values that the store has lost or damaged: absent, unless something released stands on them (L10)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from exoflow.driver import records
from exoflow.errors import Corrupt
from exoflow.journal.records import Kind as Code
from exoflow.kernel.state import Call, Scope, State
from exoflow.model import CallId, Kind, Stored, Version

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution
    from exoflow.kernel.kernel import Kernel

logger = logging.getLogger(__name__)


def verify(execution: Execution, id: CallId) -> None:
    """Look whether a value that somebody could not read lies whole in the store; if not, ``forsake`` it.

    Raises:
        Corrupt: as ``forsake``.
    """
    value = execution.values.at.get(id)
    if not isinstance(value, Stored):
        return
    try:
        checksums = execution.values.fetch(value).checksums
        if checksums is not None:
            checksums.verify()
    except Corrupt as error:
        forsake(execution, id, error)


def forsake(execution: Execution, id: CallId, why: Corrupt) -> None:
    """From now on the result counts as absent: it is made again, and so is what was derived from it. Under the lock.

    Raises:
        Corrupt: it had an effect, or an effect may stand on it. Nothing is recorded or run: the object can be put back.
    """
    kernel = execution.kernel
    call = kernel.calls[CallId(id.partition("!")[0])]
    version = call.version
    refusal = _released(execution, call)
    if refusal is None:
        call.held = call.saved = call.committed = False
        call.why = "damaged"
        if call.is_choice and call.attached:
            try:
                kernel._retire_derived(call)
            except Corrupt:
                refusal = "for an effect stands on it"
    if refusal is not None:
        raise Corrupt(
            f"the result of {call.id} cannot be read: {why}. It is not run again, {refusal}: put the object "
            f"back from a copy of the store and resume, or start a new run"
        ) from why
    logger.warning(
        "the result of %s cannot be read: %s. It counts as absent, and is made again with what stands on it",
        call.id, why, extra={"run": execution.run_id, "call": call.id, "version": version},
    )  # fmt: skip
    execution.log.append(_without_value(execution, call, version))
    execution.log.append((Code.NOTE, execution.index, records.ABSENT, [call.id]))
    execution.history.absent.add(call.id)
    execution.values.at.pop(call.id, None)
    kernel.damaged = True
    if call.is_choice:
        _begin_anew(kernel, call)
    else:
        kernel.lost(call.id)  # what was derived from it stays true (V5)


def made_again(execution: Execution, id: CallId) -> None:
    """There is a newer record of the call: nothing hangs on what was damaged any more."""
    history = execution.history
    if id in history.absent:
        history.absent.discard(id)
        execution.kernel.damaged = history.damaged or bool(history.absent)


def _released(execution: Execution, call: Call) -> str | None:
    """Why the call must not be made again, if there is a reason."""
    kernel = execution.kernel
    if call.note.effect is not None or call.intent:
        return "for it had an effect"
    if kernel.cancelling:
        return "for the run is being cancelled"
    if not call.is_choice:
        return None
    undoable = 0
    for other in kernel.calls.values():
        if other.note.effect is None and not other.intent or not _may_stand_on(other, call):
            continue
        if other.note.effect is not None:
            return f"for {other.id} may have had an effect, and may stand on it"
        undoable += 1
    # A crash in between would leave several to be undone, and nothing that says in which order.
    return "for several calls with a rollback may stand on it" if undoable > 1 else None


def _may_stand_on(other: Call, call: Call) -> bool:
    """Whether a call that has begun was made from the result of another, as far as is known before its body asks."""
    if max(other.version, other.intent, other.attempt) < call.version or other.propagated:
        return False
    return not other.attached or not call.attached or call in _lineage(other)


def _lineage(call: Call) -> set[Call]:
    """All that an attached call stands on."""
    seen: set[Call] = set()
    reads: dict[Scope, int] = {}
    pending = [call]
    while pending:
        source = pending.pop()
        if source in seen:
            continue
        seen.add(source)
        pending += (*source.inputs, *source.contents, *source.late)
        scope, upto = source.scope, source.reads_at
        while scope is not None and reads.get(scope, -1) < upto:
            pending += scope.reads[max(0, reads.get(scope, 0)) : upto]
            reads[scope] = upto
            owner = scope.owner
            if owner is None:
                break
            pending += (*owner.inputs, *owner.contents)
            scope, upto = owner.scope, owner.reads_at
    return seen


def _begin_anew(kernel: Kernel, call: Call) -> None:
    """Replay every body, as after an adoption: gates that the choice had opened for others are closed again by that."""
    kernel._set_aside(kernel.scopes[""])
    if call.state is State.DONE:
        call.state = State.IDLE
        kernel.unattached.discard(call)


def _without_value(execution: Execution, call: Call, version: Version) -> records.Result:
    """The record of a result that was made and never saved."""
    past = execution.history.results.get(call.id)
    times: tuple[float, float, int, str | None] = 0.0, 0.0, 0, None
    if past is not None and past[1] == version:
        _, _, arguments, code = past
    else:
        handle = execution.handles[call.id]
        arguments, code = handle.fingerprint, handle.spec.code
        times = handle.started_s, handle.seconds, handle.number, handle.why
    return records.Result(
        Code.MADE, execution.index, call.id, version, None, None, [ref.id for ref in call.refs] or None, None,
        call.reads_at if call.attached else call.recorded_reads_at,
        [source.id for source in call.inputs] or None, arguments, code, *times,
        call.is_choice | (call.note.kind is Kind.FLOW) << 2, call.record_stamp,
    )  # fmt: skip
