"""What the kernel wants saved: results, and large values before the records that name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.attempts.actors import STATE
from exoflow.driver import dispatching, records
from exoflow.driver.attempt import executor_of, value_name
from exoflow.driver.damage import made_again
from exoflow.driver.handle import Handle
from exoflow.driver.values import DRIVER, Values, payload_of
from exoflow.errors import CodecError, StorageError
from exoflow.journal.records import Kind as Code
from exoflow.kernel import commands as do
from exoflow.model import Bill, CallId, Held, Kind, Stored, Version

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

SAVE_TRIES = 3

_BILLED = [each.name for each in fields(Bill)]


def save(execution: Execution, command: do.Save) -> None:
    """Record a result, or an error."""
    handle = execution.handles[command.call]
    code = Code.FAILED if command.failed else Code.SAVED
    append_result(execution, code, handle, command.version, command.names, command.newest)


def make(execution: Execution, command: do.Make) -> None:
    """Record that there is a result, and not which."""
    append_result(execution, Code.MADE, execution.handles[command.call], command.version, ())


def append_result(
    execution: Execution, code: Code, handle: Handle, version: Version, names: tuple[CallId, ...], newest: int = 0
) -> None:
    """Append a ``records.Result``."""
    call = handle.call
    values = execution.values
    payload: records.Payload = None
    puts: list[list[Any]] | None = None
    if code is Code.SAVED:
        payload = payload_of(values.at[call.id])
        if handle.put_ids:
            puts = _puts(values, handle.put_ids)
    elif code is Code.FAILED:
        payload = values.errors[call.id]
    note = call.note
    if execution.history.absent:
        made_again(execution, call.id)
    bits = call.is_choice | (note.effect is not None) << 1 | (note.kind is Kind.FLOW) << 2
    inputs: list[Any] | None = [i.id for i in call.inputs] if call.inputs else None
    if handle.linked:
        bits |= records.LINKED
    if note.actor:
        bits |= records.ACTOR | (records.DEAD if call.dead else 0)
    elif note.paid:
        bits |= records.UNHEARD if call.failed and call.unheard else 0
    elif note.kind is Kind.EVENT:
        bits |= records.EVENT
        inputs = [records.message_name(handle.message)]
    record = (
        code,
        execution.index,
        call.id,
        version,
        payload,
        puts,
        list(handle.ref_ids) if handle.ref_ids else None,
        list(names) if names else None,
        call.reads_at,
        inputs,
        handle.fingerprint,
        handle.spec.code,
        handle.started_s,
        handle.seconds,
        handle.number,
        handle.why,
        bits,
        newest,
    )
    if note.actor or handle.rare is not None and (handle.worker or handle.bill):
        position = execution.append((*record, *_rest(execution, handle)))
    else:
        position = execution.append(record)
    if note.paid and code is not Code.MADE:
        dispatching.recorded(execution, call.id, position)


def _rest(execution: Execution, handle: Handle) -> tuple[Any, ...]:
    """The end of a record that not every call needs: who ran it, of which actor, and what it has cost."""
    place = [executor_of(execution, handle.spec).name, handle.worker] if handle.worker else None
    origin = handle.call.origin
    actor = None if origin is None else origin.id
    if handle.bill is None:
        return place, actor
    bill, handle.bill = handle.bill, None
    return place, actor, tuple(getattr(bill, name) for name in _BILLED)


def _puts(values: Values, ids: tuple[CallId, ...]) -> list[list[Any]]:
    return [[id, payload_of(values.at[id])] for id in ids]


def upload(execution: Execution, command: do.Upload) -> None:
    """Store a large value and the puts beside it, all at once: each waits for the disk. They count together (L2)."""
    handle = execution.handles[command.call]
    call, version = handle.call, command.version
    names = {call.id: value_name(execution, call.id, version)}
    for n, id in enumerate(handle.put_ids):
        names[id] = value_name(execution, call.id, version, n)
    groups = {}
    for ids in _grouped({id: value for id in names if isinstance(value := execution.values.at[id], Held)}):
        name = names[ids[0]]
        groups[name if len(ids) == 1 else f"{name}.together"] = ids
    if not groups:
        execution.kernel.uploaded(call.id, version)
    for name, ids in list(groups.items()):
        if call.upload == version:  # else one before it was found to be lost
            _upload_group(execution, handle, version, groups, name, ids)


def _grouped(held: Mapping[CallId, Held]) -> list[list[CallId]]:
    """What is to lie in one object."""
    ids = list(held)
    sizes = [0 if value.executor == DRIVER else value.size for value in held.values()]
    return [[ids[place] for place in group] for group in codec.sharing(sizes)]


def _upload_group(
    execution: Execution,
    handle: Handle,
    version: Version,
    groups: dict[str, list[CallId]],
    name: str,
    ids: list[CallId],
) -> None:
    began_s = execution.rate.now_s()

    def report(saved: Sequence[Stored] | BaseException) -> None:
        if not isinstance(saved, BaseException):
            execution.rate.wrote(sum(stored.size for stored in saved), began_s)
        with execution.lock:
            if execution.fatal is None:
                execution.event(_uploaded_group, execution, handle, version, groups, name, saved)

    execution.values.save([execution.values.at[id] for id in ids], name, report)


def _uploaded_group(
    execution: Execution,
    handle: Handle,
    version: Version,
    groups: dict[str, list[CallId]],
    name: str,
    saved: Sequence[Stored] | BaseException,
) -> None:
    """``groups``: those that are under way, by the names of their objects."""
    if handle.call.version != version or handle.call.upload != version:
        return
    ids = groups.pop(name)
    if isinstance(saved, KeyError):
        execution.kernel.lost(handle.call.id)
    elif isinstance(saved, CodecError):  # another try would end alike
        raise CodecError(f"the result of {handle.call.id} cannot be saved: {saved}") from saved
    elif isinstance(saved, BaseException):
        tries = execution.save_tries[ids[0]] = execution.save_tries.get(ids[0], 0) + 1
        if tries >= SAVE_TRIES:
            raise StorageError(
                f"the result of {handle.call.id} could not be saved in {tries} tries: {saved}. Nothing that was "
                f"committed is lost: mend the store, then `exoflow resume {execution.run_id}`."
            ) from saved
        again = f"{name}.again{tries}"  # not ``.1``: so ends the name of what the task put second
        groups[again] = ids
        _upload_group(execution, handle, version, groups, again, ids)
    else:
        for id, stored in zip(ids, saved, strict=True):
            execution.values.saved(id, stored)
        if not groups:
            execution.kernel.uploaded(handle.call.id, version)


def snapshot(execution: Execution, command: do.Snapshot) -> None:
    """Store the state that an actor's call has left, from where it lies, while nobody changes it."""
    _snapshot_as(
        execution, command.call, command.version, f"{value_name(execution, command.call, command.version)}.state"
    )


def _snapshot_as(execution: Execution, id: CallId, version: Version, name: str) -> None:
    state = execution.values.states.get(id)
    if state is None:
        execution.kernel.state_lost(id)
        return

    def report(saved: Stored | BaseException) -> None:
        with execution.lock:
            if execution.fatal is None:
                execution.event(_snapshot_taken, execution, id, version, name, saved)

    execution.executors[state.executor].save(state, name, report)


def _snapshot_taken(
    execution: Execution, id: CallId, version: Version, name: str, saved: Stored | BaseException
) -> None:
    if execution.kernel.calls[id].snapping != version:
        return
    if isinstance(saved, Stored):
        execution.values.snapshots[id] = saved
        execution.kernel.snapshot_taken(id, version)
    elif isinstance(saved, KeyError):
        execution.values.states.pop(id, None)
        execution.kernel.state_lost(id)
    elif isinstance(saved, CodecError):
        raise saved
    else:
        key = CallId(f"{id}{STATE}")
        tries = execution.save_tries[key] = execution.save_tries.get(key, 0) + 1
        if tries >= SAVE_TRIES:
            raise StorageError(
                f"the state that {id} has left could not be saved in {tries} tries: {saved}. Nothing that was "
                f"committed is lost: mend the store, then `exoflow resume {execution.run_id}`."
            ) from saved
        _snapshot_as(execution, id, version, f"{name}.{tries}")


def record_snapshot(execution: Execution, command: do.RecordSnapshot) -> None:
    """Record where the state is, or what, if it is small."""
    id = command.call
    payload = payload_of(execution.values.snapshots[id])
    execution.append(records.Snapshot(Code.SNAPSHOT, execution.index, id, command.version, payload))
