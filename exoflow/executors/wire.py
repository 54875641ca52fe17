"""What passes between an executor and its workers: msgpack, with large values by handle or name."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import msgspec

from exoflow.codec import decode_error
from exoflow.model import CallId, Held, Inline, RunId, Stored, Value, Version
from exoflow.protocols import Computed, Outcome, Raised, Vanished

_HOST = socket.gethostname()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class ActorOrder:
    """``ActorPart``, as a worker gets it."""

    origin: CallId
    holder: CallId | None
    state: Held | None
    snapshot: Value | None
    create: tuple[bytes, bytes | None, Value] | None
    """The digest of the function's code; the code, for a worker that has not seen it yet; the arguments."""
    snapshot_to: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """An attempt, as its worker gets it."""

    function: bytes
    """The digest of the function's code."""
    code: bytes | None
    """The encoded function, for a worker that has not seen it yet."""
    run_id: RunId
    call: CallId
    version: Version
    number: int
    key: str
    task: str
    arguments: Value
    inputs: dict[CallId, Value]
    save_to: str | None
    actor: ActorOrder | None = None


def pack_order(order: Order) -> bytes:
    inputs = {call: _pack_value(value) for call, value in order.inputs.items()}
    return _encode(
        (
            order.function,
            order.code,
            order.run_id,
            order.call,
            order.version,
            order.number,
            order.key,
            order.task,
            _pack_value(order.arguments),
            inputs,
            order.save_to,
            None if order.actor is None else _pack_actor(order.actor),
        )
    )


def unpack_order(data: bytes) -> Order:
    function, code, run_id, call, version, number, key, task, *rest = _decode(data)
    arguments, inputs, save_to, actor = rest
    values = {CallId(name): _unpack_value(value) for name, value in inputs.items()}
    part = None if actor is None else _unpack_actor(actor)
    given = _unpack_value(arguments)
    return Order(function, code, run_id, call, version, number, key, task, given, values, save_to, part)


def _pack_actor(part: ActorOrder) -> tuple[Any, ...]:
    create = part.create
    packed = None if create is None else (create[0], create[1], _pack_value(create[2]))
    return part.origin, part.holder, _pack_or_none(part.state), _pack_or_none(part.snapshot), packed, part.snapshot_to


def _unpack_actor(fields: list[Any]) -> ActorOrder:
    origin, holder, state, snapshot, create, snapshot_to = fields
    made = None if create is None else (create[0], create[1], _unpack_value(create[2]))
    return ActorOrder(origin, holder, _state_or_none(state), _unpack_or_none(snapshot), made, snapshot_to)


def pack_outcome(outcome: Outcome) -> bytes:
    """An outcome as bytes, in the process that has run the body: they name it."""
    fields: tuple[Any, ...]
    match outcome:
        case Computed(value, seconds, refs, puts, state, snapshot, linked):
            packed_puts = [(c, _pack_value(v)) for c, v in puts]
            left = _pack_or_none(state), _pack_or_none(snapshot)
            fields = ("c", _pack_value(value), seconds, refs, packed_puts, *left, linked, _here())
        case Raised(error, seconds, did_not_happen, state, snapshot):
            fields = ("r", error, seconds, did_not_happen, _pack_or_none(state), _pack_or_none(snapshot), _here())
        case Vanished(reason, seconds, lost, state):
            fields = ("v", reason, seconds, lost, _pack_or_none(state))
    return _encode(fields)


def unpack_outcome(data: bytes) -> Outcome:
    kind, *fields = _decode(data)
    if kind == "c":
        value, seconds, refs, puts, state, snapshot, linked, worker = fields
        made = tuple((c, _unpack_value(v)) for c, v in puts)
        left = _state_or_none(state), _unpack_or_none(snapshot)
        return Computed(_unpack_value(value), seconds, tuple(refs), made, *left, linked, worker)
    if kind == "r":
        error, seconds, did_not_happen, state, snapshot, worker = fields
        return Raised(error, seconds, did_not_happen, _state_or_none(state), _unpack_or_none(snapshot), worker)
    reason, seconds, lost, state = fields
    return Vanished(reason, seconds, tuple(lost), _state_or_none(state))


def _here() -> str:
    return f"{os.getpid()}@{_HOST}"


def _pack_or_none(value: Value | None) -> tuple[Any, ...] | None:
    return None if value is None else _pack_value(value)


def _unpack_or_none(fields: list[Any] | None) -> Value | None:
    return None if fields is None else _unpack_value(fields)


def _state_or_none(fields: list[Any] | None) -> Held | None:
    state = _unpack_or_none(fields)
    assert state is None or isinstance(state, Held)
    return state


def _pack_value(value: Value) -> tuple[Any, ...]:
    match value:
        case Inline(data):
            return (data,)
        case Stored(name, size, at):
            return "s", name, size, *(at or ())
        case Held(executor, handle, size):
            return "h", executor, handle, size


def _unpack_value(fields: list[Any]) -> Value:
    if len(fields) == 1:
        return Inline(fields[0])
    kind, *rest = fields
    if kind == "h":
        return Held(*rest)
    name, size, *at = rest
    return Stored(name, size, tuple(at) or None)


def pack_saving(state: Held, name: str) -> bytes:
    """An order to save the state of an actor."""
    return _encode((None, _pack_value(state), name))


def unpack_saving(data: bytes) -> tuple[Held, str] | None:
    """The other way round; None: it is the order of an attempt."""
    fields = _decode(data)
    if fields[0] is not None:
        return None
    state = _state_or_none(fields[1])
    assert state is not None
    return state, fields[2]


def pack_saved(saved: Stored | bytes | None) -> bytes:
    """What came of it: an encoded error, or None where the state is gone."""
    return _encode(_pack_value(saved) if isinstance(saved, Stored) else saved)


def unpack_saved(data: bytes) -> Stored | BaseException:
    fields = _decode(data)
    if fields is None:
        return KeyError("the state is gone")
    if isinstance(fields, bytes):
        return decode_error(fields)
    saved = _unpack_value(fields)
    assert isinstance(saved, Stored)
    return saved
