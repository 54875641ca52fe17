"""Recorded values that the store has lost or damaged: absent, unless something released stands on them (L10)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from exoflow.driver import records
from exoflow.errors import Corrupt
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import Call
from exoflow.model import CallId, Kind, Stored, Version

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

logger = logging.getLogger(__name__)


def verify(execution: Execution, id: CallId) -> None:
    """Look whether a value that somebody could not read lies whole in the store; if not, ``forsake`` it.

    Raises:
        Corrupt: as ``forsake``.
    """
    value = execution.values.at.get(id)
    if not isinstance(value, Stored):
        return
    error = _damage(execution, value)
    if error is not None:
        forsake(execution, id, error)


def _damage(execution: Execution, value: Stored) -> Corrupt | None:
    try:
        checksums = execution.values.fetch(value).checksums
        if checksums is not None:
            checksums.verify()
    except Corrupt as error:
        return error
    return None


def verify_snapshot(execution: Execution, call: Call) -> None:
    """Look whether a snapshot that somebody could not read lies whole in the store; if not, it counts as absent.

    Raises:
        Corrupt: something released may stand on a call that would have to be made again.
    """
    value = execution.values.snapshots.get(call.id)
    if not isinstance(value, Stored):
        return
    why = _damage(execution, value)
    if why is None:
        return
    refusal = execution.kernel.forsake_snapshot(call)
    if refusal is not None:
        raise Corrupt(
            f"the state that {call.id} has left cannot be read: {why}. It is not made again, {refusal}: "
            f"put the object back from a copy of the store and resume, or start a new run"
        ) from why
    logger.warning(
        "the state that %s has left cannot be read: %s. The actor goes on from an older one; what it did since is done "
        "again", call.id, why, extra={"run": execution.run_id, "call": call.id, "version": call.version},
    )  # fmt: skip


def forsake(execution: Execution, id: CallId, why: Corrupt) -> None:
    """From now on the result counts as absent: it is made again, and so is what was derived from it. Under the lock.

    Raises:
        Corrupt: it had an effect, or an effect may stand on it. Nothing is recorded or run: the object can be put back.
    """
    call = execution.kernel.calls[CallId(id.partition("!")[0])]
    record = _without_value(execution, call, call.version)
    refusal = execution.kernel.forsake(call)
    if refusal is not None:
        raise Corrupt(
            f"the result of {call.id} cannot be read: {why}. It is not run again, {refusal}: put the object "
            f"back from a copy of the store and resume, or start a new run"
        ) from why
    logger.warning(
        "the result of %s cannot be read: %s. It counts as absent, and is made again with what stands on it",
        call.id, why, extra={"run": execution.run_id, "call": call.id, "version": record.version},
    )  # fmt: skip
    execution.log.append(record)
    execution.log.append((Code.NOTE, execution.index, records.ABSENT, [call.id]))
    execution.history.absent.add(call.id)
    execution.values.at.pop(call.id, None)


def made_again(execution: Execution, id: CallId) -> None:
    """There is a newer record of the call: nothing hangs on what was damaged any more."""
    history = execution.history
    if id in history.absent:
        history.absent.discard(id)
        execution.kernel.damaged = history.damaged or bool(history.absent)


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
