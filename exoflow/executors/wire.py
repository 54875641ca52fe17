"""What passes between an executor and its workers: msgpack, with large values by handle or name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from exoflow.model import CallId, Held, Inline, RunId, Stored, Value, Version
from exoflow.protocols import Computed, Outcome, Raised, Vanished


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


def pack_order(order: Order) -> bytes:
    inputs = {call: _pack_value(value) for call, value in order.inputs.items()}
    packed: bytes = msgpack.packb(
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
        )
    )
    return packed


def unpack_order(data: bytes) -> Order:
    function, code, run_id, call, version, number, key, task, arguments, inputs, save_to = msgpack.unpackb(data)
    values = {CallId(name): _unpack_value(value) for name, value in inputs.items()}
    return Order(function, code, run_id, call, version, number, key, task, _unpack_value(arguments), values, save_to)


def pack_outcome(outcome: Outcome) -> bytes:
    fields: tuple[Any, ...]
    match outcome:
        case Computed(value, seconds, refs, puts):
            fields = ("c", _pack_value(value), seconds, refs, [(c, _pack_value(v)) for c, v in puts])
        case Raised(error, seconds, did_not_happen):
            fields = ("r", error, seconds, did_not_happen)
        case Vanished(reason, seconds, lost):
            fields = ("v", reason, seconds, lost)
    packed: bytes = msgpack.packb(fields)
    return packed


def unpack_outcome(data: bytes) -> Outcome:
    kind, *fields = msgpack.unpackb(data)
    if kind == "c":
        value, seconds, refs, puts = fields
        return Computed(_unpack_value(value), seconds, tuple(refs), tuple((c, _unpack_value(v)) for c, v in puts))
    if kind == "r":
        return Raised(*fields)
    reason, seconds, lost = fields
    return Vanished(reason, seconds, tuple(lost))


def _pack_value(value: Value) -> tuple[Any, ...]:
    match value:
        case Inline(data):
            return (data,)
        case Stored(name, size):
            return "s", name, size
        case Held(executor, handle, size):
            return "h", executor, handle, size


def _unpack_value(fields: list[Any]) -> Value:
    if len(fields) == 1:
        return Inline(fields[0])
    kind, *rest = fields
    return Stored(*rest) if kind == "s" else Held(*rest)
