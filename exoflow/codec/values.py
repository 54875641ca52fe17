"""Encode and decode. Scalars are a tag and their bytes; everything else is pickle protocol 5, buffers out of band."""

from __future__ import annotations

import inspect
import io
import pickle
import struct
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from exoflow.codec.encoded import Encoded, from_bytes
from exoflow.codec.engines import Bring, Live, reduce_engine_object
from exoflow.codec.explain import WatchedPickler, refusal, run_deep
from exoflow.codec.mainfile import MainUnpickler, main_stem, reduce_by_name
from exoflow.codec.ownership import copied, is_constant
from exoflow.codec.references import IMMUTABLE, find_references, session
from exoflow.codec.sums import fix
from exoflow.errors import CodecError, Corrupt
from exoflow.model import INLINE_MAX_BYTES, CallId

OUT_OF_BAND_MIN_BYTES = 16 * 1024
"""A smaller buffer costs less inside the pickle than beside it."""

_PICKLE = 0x80  # every pickle of protocol 2 and above begins with it, so that it needs no tag
_DOUBLE = struct.Struct("<cd")
_NONE, _TRUE, _FALSE = Encoded(b"n"), Encoded(b"t"), Encoded(b"f")
_new = tuple.__new__  # Encoded(...) costs twice as much, on the hottest path there is

Lookup = Callable[[CallId], object]
Adopt = Callable[[Live], CallId]
"""Takes an engine's object that stands in a value; the id by which it will be found."""


def immutable(value: object) -> bool:
    """Whether the value can be shared without being encoded: an exact None, bool, int, float, str or bytes."""
    return type(value) in IMMUTABLE


def all_immutable(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Whether ``immutable`` holds for every argument."""
    return IMMUTABLE.issuperset(map(type, args)) and (not kwargs or IMMUTABLE.issuperset(map(type, kwargs.values())))


def encode(value: object, *, what: str = "the value", own: bool = False, adopt: Adopt | None = None) -> Encoded:
    """The value as bytes; buffers of 16 KiB and more are views of its memory.

    Args:
        value: What to encode.
        what: Names it in messages: ``the result of train``.
        own: Copy buffers that the caller could still change.
        adopt: Takes the objects of engines in it; without it they are refused.

    Raises:
        CodecError: a part of it cannot be pickled; the message names the way to it.
    """
    kind = type(value)
    if kind in IMMUTABLE:
        return _encode_scalar(value, kind)
    outer = session.met, session.adopt
    met: dict[CallId, None] = {}
    session.met, session.adopt = met, adopt
    try:
        head, buffers = _pickled(value, what)
    finally:
        session.met, session.adopt = outer
    if own:
        buffers = [view if is_constant(view) else copied(view) for view in buffers]
    views = tuple(view.toreadonly() for view in buffers)
    for view in views:
        fix(view)
    return Encoded(head, views, tuple(met))


def encode_arguments(
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    *,
    task: str,
    function: Callable[..., object] | None = None,
    own: bool = False,
    adopt: Adopt | None = None,
) -> Encoded:
    """``(args, kwargs)``; an error names the task, the argument and the place in it. ``adopt``: as in ``encode``.

    Raises:
        CodecError: a part cannot be pickled, or is a Ref that no task would find there.
    """
    if all_immutable(args, kwargs):
        return Encoded(pickle.dumps((args, dict(kwargs)), 5))
    adopted: set[CallId] = set()

    def adopts(live: Live) -> CallId:
        assert adopt is not None
        call = adopt(live)
        adopted.add(call)
        return call

    try:
        encoded = encode((args, dict(kwargs)), what="\0", own=own, adopt=adopts if adopt else None)
    except CodecError as error:
        raise CodecError(_name_argument(str(error), task, function)) from error
    if encoded.refs:
        found = adopted.union(reference.call_id for reference in find_references(args, kwargs))
        hidden = [ref for ref in encoded.refs if ref not in found]
        if hidden:
            raise CodecError(
                f"the arguments of {task} hold the Ref to {hidden[0]} in a set or in an object: Refs are found in "
                "lists, tuples, dicts (as values) and dataclasses. Put it there, or pass its value: ref.result()"
            )
    return encoded


def encode_result(
    value: object, *, task: str, own: bool = False, adopt: Adopt | None = None, bring: Bring | None = None
) -> Encoded:
    """The result of a task, after a look whether it can be decoded: it must survive its codec on the run that made it.

    Its buffers are views of the value's memory, to be ``taken_over`` when that was let go; or ``own`` ones.

    Raises:
        CodecError: it cannot be pickled, or not be unpickled.
    """
    kind = type(value)
    if kind in IMMUTABLE:
        return _encode_scalar(value, kind)
    encoded = encode(value, what=f"the result of {task}", own=own, adopt=adopt)
    try:
        decode(encoded, lookup=_Unread, bring=bring)
    except Exception as error:  # __setstate__ and the like are the user's code: anything can come
        message = f"the result of {task}, a {type(value).__qualname__}, was pickled but does not load again: "
        raise CodecError(f"{message}{type(error).__name__}: {error}") from error
    return encoded


def decode(encoded: Encoded, *, lookup: Lookup | None = None, bring: Bring | None = None) -> Any:
    """A new copy of the value; its large buffers are read-only views of the encoded ones.

    Args:
        encoded: The value.
        lookup: Gives what stands for a Ref inside.
        bring: Gets the engines' objects inside.

    Raises:
        Corrupt: the bytes are damaged.
        CodecError: what they name (a module, a class) is not here, or there is a Ref and no ``lookup``.
    """
    head, buffers, _, checksums = encoded
    if checksums is not None:
        checksums.verify()
    tag = head[0]
    if tag != _PICKLE:
        return _decode_scalar(tag, head, buffers)
    outer = session.lookup, session.bring
    session.lookup, session.bring = lookup, bring
    try:
        return _unpickled(head, buffers)
    except (ImportError, AttributeError) as error:
        raise CodecError(f"a recorded value needs what is not here: {error}") from error
    finally:
        session.lookup, session.bring = outer


def encode_small(value: object) -> bytes | None:
    """The inline form of a scalar; None: it is none, or too large to ride in a record."""
    kind = type(value)
    if kind not in IMMUTABLE:
        return None
    head, buffers, _, _ = _encode_scalar(value, kind)
    return bytes(head) if not buffers and len(head) <= INLINE_MAX_BYTES else None


def as_encoded(found: Encoded | Live) -> Encoded:
    """The value as bytes, also where there is only an engine's object that stands for it.

    Raises:
        KeyError: that has lost it.
    """
    if isinstance(found, Live):
        return encode(found.content(), what=f"what a {found.kind} stands for", own=True)
    return found


def decode_bytes(data: bytes) -> Any:
    """``decode(from_bytes(data))``, for what holds no Refs."""
    return decode(from_bytes(data))


def _encode_scalar(value: Any, kind: type) -> Encoded:
    if kind is int:
        head: bytes = b"i" + value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True)
    elif kind is str:
        head = b"s" + value.encode("utf-8", "surrogatepass")
    elif kind is float:
        head = _DOUBLE.pack(b"d", value)
    elif kind is bool:
        return _TRUE if value else _FALSE
    elif value is None:
        return _NONE
    elif len(value) < OUT_OF_BAND_MIN_BYTES:
        head = b"b" + value
    else:
        return Encoded(b"B", (memoryview(value),))
    encoded: Encoded = _new(Encoded, (head, (), (), None))
    return encoded


def _decode_scalar(tag: int, head: bytes | memoryview, buffers: tuple[memoryview, ...]) -> object:
    match tag:
        case 0x69:  # i
            return int.from_bytes(head[1:], "little", signed=True)
        case 0x73:  # s
            return str(head[1:], "utf-8", "surrogatepass")
        case 0x6E:  # n
            return None
        case 0x64:  # d
            return _DOUBLE.unpack(head)[1]
        case 0x74:  # t
            return True
        case 0x66:  # f
            return False
        case 0x62:  # b
            return bytes(head[1:])
        case 0x42:  # B
            whole = buffers[0].obj
            return whole if type(whole) is bytes and len(whole) == buffers[0].nbytes else bytes(buffers[0])
        case _:
            raise Corrupt(f"a value begins with {tag:#x}, which is no form of this version")


def _pickled(value: object, what: str) -> tuple[bytes, list[memoryview]]:
    """By name where that can be done, else by value, else in pure Python, which is slow, goes deep, and tells where."""
    views: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_MIN_BYTES:
            return True
        views.append(raw)
        return False

    file = io.BytesIO()
    try:
        _PlainPickler(file, 5, buffer_callback=in_band).dump(value)
        return file.getvalue(), views
    except (MemoryError, CodecError):
        raise
    except Exception:  # noqa: BLE001 -- __reduce__ and the like are the user's code: anything can come
        return _pickled_by_value(value, what, views, in_band)


def _pickled_by_value(
    value: object, what: str, views: list[memoryview], in_band: Callable[[pickle.PickleBuffer], bool]
) -> tuple[bytes, list[memoryview]]:
    from exoflow.codec.byvalue import ByValuePickler  # cloudpickle costs 10 ms to import, and is rarely needed

    _start_again(views)
    file = io.BytesIO()
    by_value = ByValuePickler(file, 5, buffer_callback=in_band)
    try:
        by_value.dump(value)
        return file.getvalue(), views
    except (MemoryError, CodecError):
        raise
    except Exception:  # noqa: BLE001 -- the user's code again; the next pickler says where
        _start_again(views)
    file = io.BytesIO()
    watched = WatchedPickler(
        file, buffer_callback=in_band, reduce=by_value.reducer_override, dispatch_table=ByValuePickler.dispatch_table
    )
    try:
        run_deep(lambda: watched.dump(value))
    except (MemoryError, CodecError):
        raise
    except Exception as error:
        raise refusal(watched.chain, error, what) from error
    return file.getvalue(), views


def _start_again(views: list[memoryview]) -> None:
    views.clear()
    if session.met is not None:
        session.met.clear()


class _PlainPickler(pickle.Pickler):
    """Pickles by reference only. Called back for instances, classes and functions; not for containers and scalars."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType | type):
            by_name = reduce_by_name(obj)
            if by_name is not None:
                return by_name
            return NotImplemented
        reduced = reduce_engine_object(obj)
        return NotImplemented if reduced is None else reduced


def _unpickled(head: bytes | memoryview, buffers: tuple[memoryview, ...]) -> object:
    stem = main_stem()
    # A find_class in Python costs 0.5 us, and matters only where the file of __main__ is named by another name.
    if stem and (isinstance(head, memoryview) or stem.encode() in head):
        return MainUnpickler(io.BytesIO(head), buffers=buffers).load()
    return pickle.loads(head, buffers=buffers)


class _Unread:
    """Stands for a Ref while a result is tried out."""

    __slots__ = ("call_id",)

    def __init__(self, call_id: CallId) -> None:
        self.call_id = call_id


def _name_argument(message: str, task: str, function: Callable[..., object] | None) -> str:
    """The message with its first two steps, ``[0][1]``, said as the second argument."""
    if not message.startswith("\0"):  # it is not about a place in there
        return f"the arguments of {task}: {message}"
    way = message.removeprefix("\0")
    if way.startswith("[0]["):
        position, _, rest = way[4:].partition("]")
        name = _parameter(function, int(position))
        return _named(name, task, rest) if name else f"argument {position} of {task}{rest}"
    if way.startswith("[1]["):
        name, _, rest = way[5:].partition("']")
        return _named(name, task, rest)
    return f"the arguments of {task}{way}"


def _named(name: str, task: str, rest: str) -> str:
    return f"the argument {name!r} of {task}{'' if rest.startswith(':') else f', {name}'}{rest}"


def _parameter(function: Callable[..., object] | None, position: int) -> str | None:
    if function is None:
        return None
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return None
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return named[position] if position < len(named) else None


__all__ = [
    "OUT_OF_BAND_MIN_BYTES",
    "all_immutable",
    "as_encoded",
    "decode",
    "decode_bytes",
    "encode",
    "encode_arguments",
    "encode_result",
    "encode_small",
    "immutable",
]
