"""The two forms of an encoded value: inline in a journal record, and an object of the store.

Inline: the head alone; or ``F``, the length of the table, the table ``[refs, [length of each part]]``, the parts.
Object: magic, length and crc32 of the table, the table ``[refs, [[length, crc32] of each part]]``, the parts.
The first part is the head, the others its buffers. Every part begins at a multiple of 64 bytes, so that an array can
be used where it lies. Values that share an object follow each other so, each whole, with its own table.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgpack

from exoflow.codec.sums import crc32
from exoflow.errors import Corrupt
from exoflow.model import CallId, Stored
from exoflow.protocols import Buffer, Store

MAGIC = b"EXOVALU1"
FRAMED = b"F"
ALIGNMENT = 64

OUT_OF_BAND_MIN_BYTES = 16 * 1024
"""A smaller buffer costs less inside the pickle than beside it."""

SMALL_MAX_BYTES = 8 << 20
"""A larger value has an object of its own, which who reads it may map."""
TOGETHER_MAX_BYTES = 64 << 20
"""Of values that share an object (ADR 0022)."""

_OBJECT_HEADER = struct.Struct("<8sII")
_INLINE_HEADER = struct.Struct("<cI")
_ZEROS = bytes(ALIGNMENT)


class Checksums:
    """Of the parts of one object; verified before they are first used, and not again."""

    __slots__ = ("_expected", "_name", "_parts")

    def __init__(self, name: str, parts: Sequence[memoryview], expected: Sequence[int]) -> None:
        self._name = name
        self._parts = parts
        self._expected: Sequence[int] | None = expected

    def verify(self) -> None:
        """Raises Corrupt, naming the part that is damaged. Two threads at once both verify; nothing is lost by that."""
        if self._expected is None:
            return
        for number, (part, expected) in enumerate(zip(self._parts, self._expected, strict=True)):
            if zlib.crc32(part) != expected:
                place = "its head" if number == 0 else f"buffer {number} of {len(self._parts) - 1}"
                raise Corrupt(f"{self._name} is damaged: {place} ({part.nbytes} bytes) does not match its crc32")
        self._expected = None


class Encoded(NamedTuple):
    """A value as bytes. Buffers are read-only views, of the maker's memory or of a mapped file."""

    head: bytes | memoryview
    buffers: tuple[memoryview, ...] = ()
    refs: tuple[CallId, ...] = ()
    """The Refs inside, in the order in which they were met."""
    checksums: Checksums | None = None
    """Not yet verified, for a value read from an object."""

    @property
    def size(self) -> int:
        head, buffers, _, _ = self
        return len(head) + sum(buffer.nbytes for buffer in buffers) if buffers else len(head)


def to_bytes(encoded: Encoded) -> bytes:
    """The inline form. It carries no checksum: the record that holds it has one."""
    head, buffers, refs, checksums = encoded
    if checksums is not None:
        checksums.verify()
    if not buffers and not refs:
        return bytes(head)
    table = msgpack.packb((refs, [len(head), *(buffer.nbytes for buffer in buffers)]))
    return b"".join(_aligned([_INLINE_HEADER.pack(FRAMED, len(table)) + table, head, *buffers]))


def from_bytes(data: bytes | memoryview) -> Encoded:
    """The opposite of ``to_bytes``; buffers are views of ``data``."""
    if data[0] != FRAMED[0]:
        plain: Encoded = tuple.__new__(Encoded, (data, (), (), None))  # half the price of Encoded(data)
        return plain
    view = memoryview(data).toreadonly()
    _, size = _INLINE_HEADER.unpack_from(view)
    start = _INLINE_HEADER.size
    refs, lengths = msgpack.unpackb(view[start : start + size])
    head, *buffers = _parts(view, start + size, lengths)
    return Encoded(head, tuple(buffers), tuple(map(CallId, refs)))


def to_parts(encoded: Encoded, *, checksums: bool = True) -> list[Buffer]:
    """The object form, as pieces to be written one after another: no large buffer is copied.

    Args:
        encoded: The value.
        checksums: False for what only passes between processes of this machine, and never lies on a disk.
    """
    head, buffers, refs, unverified = encoded
    if unverified is not None:
        unverified.verify()
    parts: list[Buffer] = [head, *buffers]
    rows = [(memoryview(part).nbytes, crc32(part) if checksums else None) for part in parts]
    table = msgpack.packb((refs, rows))
    header = _OBJECT_HEADER.pack(MAGIC, len(table), zlib.crc32(table)) + table
    return _aligned([header, *parts])


def sharing(sizes: Sequence[int]) -> list[list[int]]:
    """Which values of these sizes share an object, by their places: each would wait for the disk as a large one does.

    0: nobody knows its size, and it has an object alone.
    """
    groups: list[list[int]] = []
    together: list[int] = []
    room = 0
    for place, size in enumerate(sizes):
        if not 0 < size <= SMALL_MAX_BYTES:
            groups.append([place])
            continue
        if not together or room < size:
            groups.append(together := [])
            room = TOGETHER_MAX_BYTES
        together.append(place)
        room -= size
    return groups


def to_shared(several: Sequence[Encoded]) -> tuple[list[Buffer], list[tuple[int, int]]]:
    """The object form of several values one behind another, as pieces; and of each its place: start and length."""
    pieces: list[Buffer] = []
    places: list[tuple[int, int]] = []
    end = 0
    for encoded in several:
        pieces.append(_ZEROS[: -end % ALIGNMENT])
        start = end + -end % ALIGNMENT
        own = to_parts(encoded)
        length = sum(memoryview(part).nbytes for part in own)
        pieces += own
        places.append((start, length))
        end = start + length
    return pieces, places


def read_stored(store: Store, value: Stored) -> Encoded:
    """The value, read from the store. Its parts are verified when they are first decoded.

    Raises:
        FileNotFoundError: its object is gone.
        Corrupt: it is damaged.
    """
    if value.at is None:
        return from_object(store.read(value.name), value.name)
    start, length = value.at
    return from_object(store.read_range(value.name, start, length), f"{value.name} from {start}")


def from_object(data: Buffer, name: str = "a value") -> Encoded:
    """The opposite of ``to_parts``; buffers are views of ``data``. Parts are verified when they are first decoded.

    Args:
        data: The whole object.
        name: Of the object, for messages.

    Raises:
        Corrupt: the table is damaged, or the object is not as long as it says.
    """
    view = memoryview(data).toreadonly()
    start = _OBJECT_HEADER.size
    if view.nbytes < start:
        raise Corrupt(f"{name} is damaged: it has {view.nbytes} bytes, which is less than a header")
    magic, size, crc = _OBJECT_HEADER.unpack_from(view)
    table = view[start : start + size]
    if magic != MAGIC:
        raise Corrupt(f"{name} is damaged: it does not begin like a value ({magic!r})")
    if table.nbytes != size or zlib.crc32(table) != crc:
        raise Corrupt(f"{name} is damaged: its table of parts does not match its crc32")
    refs, rows = msgpack.unpackb(table)
    parts = _parts(view, start + size, [length for length, _ in rows])
    if parts[-1].nbytes != rows[-1][0] or parts[0].nbytes != rows[0][0]:
        raise Corrupt(f"{name} is damaged: it ends after {view.nbytes} bytes, within its parts")
    return Encoded(
        parts[0],
        tuple(parts[1:]),
        tuple(map(CallId, refs)),
        None if rows[0][1] is None else Checksums(name, parts, [crc for _, crc in rows]),
    )


def _aligned(parts: Sequence[Buffer]) -> list[Buffer]:
    """The parts with zeros between them, so that each but the first begins at a multiple of 64."""
    pieces: list[Buffer] = []
    for number, part in enumerate(parts):
        pieces.append(part)
        missing = -memoryview(part).nbytes % ALIGNMENT
        if missing and number + 1 < len(parts):
            pieces.append(_ZEROS[:missing])
    return pieces


def _parts(view: memoryview, start: int, lengths: Sequence[int]) -> list[memoryview]:
    """The views of parts laid out by ``_aligned`` behind a first piece that ended at ``start``."""
    first = start + -start % ALIGNMENT
    starts = accumulate((length + -length % ALIGNMENT for length in lengths), initial=first)
    return [view[at : at + length] for at, length in zip(starts, lengths, strict=False)]
