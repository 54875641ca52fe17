"""What an executor is told of an attempt, and which executor it is."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from exoflow.attempts.actors import STATE
from exoflow.codec import Encoded
from exoflow.driver import dispatching
from exoflow.driver.handle import Handle
from exoflow.driver.spec import TaskSpec
from exoflow.driver.values import DRIVER
from exoflow.kernel.call import Call, State
from exoflow.model import CallId, Held, RunId, Stored, Value, Version, show_version
from exoflow.protocols import ActorPart, Attempt, Creating, Executor, PaidPart, Vanished

if TYPE_CHECKING:
    from exoflow.driver.execution import Execution

_IN_RUN_IDS = str.maketrans({c: f"%{ord(c):02X}" for c in "%/#"})


def executor_of(execution: Execution, spec: TaskSpec) -> Executor:
    """The task's own executor, or the run's."""
    if spec.executor is None:
        return execution.executors[execution.default]
    if isinstance(spec.executor, str):
        return execution.executors[spec.executor]
    return spec.executor


def attempt_of(execution: Execution, handle: Handle, version: Version) -> Attempt:
    """All that an executor needs to know. Its inputs stay until its outcome is taken."""
    spec, call = handle.spec, handle.call
    inputs: dict[CallId, Value] = {}
    crossing: dict[CallId, str] = {}
    part = actor_part(execution, handle, version) if call.note.actor else None
    wanted = _wanted(handle) if call.inputs else []
    if part is not None and part.create is not None:
        assert call.origin is not None
        wanted += _wanted(execution.handles[call.origin.id])
    if wanted:
        inputs = _inputs(execution, wanted)
        crossing = _crossing(execution, inputs, executor_of(execution, spec).name)
        execution.values.give(version, inputs.values())
    return Attempt(
        execution.run_id,
        call.id,
        version,
        handle.number,
        key_of(execution, call.id, version if spec.note.rollback else None),
        spec.name,
        spec.function,
        handle.args,
        handle.kwargs,
        inputs,
        spec.timeout_s,
        spec.resources,
        value_name(execution, call.id, version) if spec.note.saves == "sync" else None,
        handle.encoded,
        crossing,
        part,
        handle.number == 1 and spec.timeout_s is None and spec.note.losses > 0 and part is None and not spec.effect,
        _paid_part(execution, call, version) if spec.note.paid else None,
    )


def _paid_part(execution: Execution, call: Call, version: Version) -> PaidPart:
    run = dispatching.begin(execution, call.id, version)
    return PaidPart(run, call.begun_before, execution.labels, execution.history.bills)


def lost_state(execution: Execution, handle: Handle, version: Version) -> Vanished | None:
    """What became of an attempt that cannot begin, if the state was lost, or taken back, that the kernel gave to it."""
    call = handle.call
    if call.state is not State.RUNNING or call.attempt != version:
        return Vanished("stopped before it began")
    holder = execution.kernel.holder(call)
    if holder is None or not call.took or holder.id in execution.values.states:
        return None
    return Vanished("the state of its actor is lost", lost=(CallId(f"{holder.id}{STATE}"),))


def actor_part(execution: Execution, handle: Handle, version: Version) -> ActorPart:
    """The state that an attempt at an actor's call begins with: the live one, if the kernel says so."""
    call, chain = handle.call, handle.spec.actor
    assert chain is not None
    assert call.origin is not None
    holder = execution.kernel.holder(call)
    snapshot_to = f"{value_name(execution, call.id, version)}.state" if call.due else None
    if holder is None:
        return ActorPart(call.origin.id, snapshot_to=snapshot_to)
    state = execution.values.take_state(holder.id, version) if call.took else None
    if state is not None:
        return ActorPart(call.origin.id, holder.id, state, snapshot_to=snapshot_to)
    create = chain.create
    assert create is not None
    creating = Creating(create.spec.function, create.args, create.kwargs, create.encoded)
    snapshot = execution.values.snapshots[holder.id]
    return ActorPart(call.origin.id, holder.id, None, snapshot, creating, snapshot_to)


def _wanted(handle: Handle) -> list[CallId]:
    """The Refs in the arguments whose values are needed."""
    if not handle.call.inputs:
        return []
    assert isinstance(handle.encoded, Encoded)
    passed = {call.id for call in handle.call.passes if call not in handle.call.inputs}
    return [ref for ref in handle.encoded.refs if ref.partition("!")[0] not in passed]


def _inputs(execution: Execution, wanted: list[CallId]) -> dict[CallId, Value]:
    """The value of every wanted Ref, and of the Refs inside those values."""
    values = execution.values
    inputs: dict[CallId, Value] = {}
    while wanted:
        id = wanted.pop()
        if id not in inputs and id in values.at:
            inputs[id] = values.given(id)
            wanted.extend(_inside(execution, id))
    return inputs


def _inside(execution: Execution, id: CallId) -> tuple[CallId, ...]:
    """The Refs inside of a value; of what a task put, all of those that it may hold."""
    owner = CallId(id.partition("!")[0])
    handle = execution.handles.get(owner)
    refs, linked = (handle.ref_ids, handle.linked) if handle is not None else ((), False)
    if not refs:  # empty, too, where the call's record is used
        refs, linked = execution.history.refs.get(owner, ((), False))
    return refs if id == owner or linked else ()


def _crossing(execution: Execution, inputs: dict[CallId, Value], target: str) -> dict[CallId, str]:
    """Which inputs lie on another cluster than the executor's, unsaved, and the names under which they may be saved.

    Those that are saved already are read from the store.
    """
    crossing: dict[CallId, str] = {}
    for id, value in inputs.items():
        if not isinstance(value, Held) or value.executor in (target, DRIVER):
            continue
        if execution.executors[value.executor].remote:
            saved = execution.values.at[id]
            if isinstance(saved, Stored):
                inputs[id] = saved
            else:
                crossing[id] = _name_of(execution, id)
    return crossing


def _name_of(execution: Execution, id: CallId) -> str:
    """The object that will hold the call's value, or that of a put."""
    owner, mark, put = id.rpartition("!")
    handle = execution.handles.get(id)
    if handle is not None:
        return value_name(execution, id, handle.call.version)
    assert mark
    return value_name(execution, CallId(owner), execution.handles[CallId(owner)].call.version, int(put))


def key_prefix(run_id: RunId) -> str:
    """How the keys of a run begin; no key of another run does.

    A run's id may hold what divides the parts of a call's: quoted, it ends at the first ``/``.
    """
    return run_id.translate(_IN_RUN_IDS) + "/"


def key_of(execution: Execution, call: CallId, version: Version | None) -> str:
    """The idempotency key (G11): of the call; of the attempt, where it can be undone. No other one has it."""
    key = execution.key_prefix + call
    return key if version is None else f"{key}@{show_version(version)}"


def value_name(execution: Execution, id: CallId, version: Version, put: int | None = None) -> str:
    """The object that holds a call's large value, or the n-th that it put."""
    suffix = "" if put is None else f".{put}"
    short = zlib.crc32(id.encode())
    return f"values/{execution.values_prefix}/{execution.index:x}/{short:x}-{version:x}{suffix}"
