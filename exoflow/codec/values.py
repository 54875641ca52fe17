"""Encode and decode. Scalars are a tag and their bytes; everything else is pickle protocol 5, buffers out of band."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exoflow.codec.encoded import Encoded, from_bytes
from exoflow.codec.engines import Bring, Live
from exoflow.codec.ownership import copied, is_constant
from exoflow.codec.pickling import pickled, unpickled
from exoflow.codec.references import IMMUTABLE, session
from exoflow.codec.scalars import decode_scalar, encode_scalar
from exoflow.codec.sums import fix
from exoflow.errors import CodecError
from exoflow.model import INLINE_MAX_BYTES, CallId

_PICKLE = 0x80  # every pickle of protocol 2 and above begins with it, so that it needs no tag

Lookup = Callable[[CallId], object]
Adopt = Callable[[Live], CallId]
"""Takes an engine's object that stands in a value; the id by which it will be found."""


def immutable(value: object) -> bool:
    """Whether the value can be shared without being encoded: an exact None, bool, int, float, str or bytes."""
    return type(value) in IMMUTABLE


def all_immutable(args: tuple[object, ...], kwargs: Mapping[str, object]) -> bool:
    """Whether ``immutable`` holds for every argument."""
    return IMMUTABLE.issuperset(map(type, args)) and (not kwargs or IMMUTABLE.issuperset(map(type, kwargs.values())))


def encode(
    value: object, *, what: str = "the value", own: bool = False, adopt: Adopt | None = None, embeds: bool = False
) -> Encoded:
    """The value as bytes; buffers of 16 KiB and more are views of its memory.

    Args:
        value: What to encode.
        what: Names it in messages: ``the result of train``.
        own: Copy buffers that the caller could still change.
        adopt: Takes the objects of engines in it; without it they are refused.
        embeds: Take along what they stand for, instead.

    Raises:
        CodecError: a part of it cannot be pickled; the message names the way to it.
        KeyError: what is to be taken along is lost.
    """
    kind = type(value)
    if kind in IMMUTABLE:
        return encode_scalar(value, kind)
    outer = session.met, session.adopt, session.embeds
    met: dict[CallId, None] = {}
    session.met, session.adopt, session.embeds = met, adopt, embeds
    try:
        head, buffers = pickled(value, what)
    finally:
        session.met, session.adopt, session.embeds = outer
    if own:
        buffers = [view if is_constant(view) else copied(view) for view in buffers]
    views = tuple(view.toreadonly() for view in buffers)
    for view in views:
        fix(view)
    return Encoded(head, views, tuple(met))


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
        return encode_scalar(value, kind)
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
        return decode_scalar(tag, head, buffers)
    outer = session.lookup, session.bring
    session.lookup, session.bring = lookup, bring
    try:
        return unpickled(head, buffers)
    except (ImportError, AttributeError) as error:
        raise CodecError(f"a recorded value needs what is not here: {error}") from error
    finally:
        session.lookup, session.bring = outer


def encode_small(value: object) -> bytes | None:
    """The inline form of a scalar; None: it is none, or too large to ride in a record."""
    kind = type(value)
    if kind not in IMMUTABLE:
        return None
    head, buffers, _, _ = encode_scalar(value, kind)
    return bytes(head) if not buffers and len(head) <= INLINE_MAX_BYTES else None


def as_encoded(found: Encoded | Live) -> Encoded:
    """The value as bytes, also where there is only an engine's object that stands for it.

    Raises:
        KeyError: that has lost it.
        CodecError: it cannot be pickled.
    """
    if isinstance(found, Live):
        return encode(found.content(), what=f"what a {found.kind} stands for", own=True, embeds=True)
    return found


def decode_bytes(data: bytes) -> Any:
    """``decode(from_bytes(data))``, for what holds no Refs."""
    return decode(from_bytes(data))


class _Unread:
    """Stands for a Ref while a result is tried out."""

    __slots__ = ("call_id",)

    def __init__(self, call_id: CallId) -> None:
        self.call_id = call_id
