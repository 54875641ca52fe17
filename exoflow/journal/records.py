"""Records: plain tuples ``(kind, run, ...)`` in msgpack. The driver says what follows for its own kinds.

The journal itself understands:
    (OPEN, 0, journal, slot, process_info)       begins every slot
    (START, run, run_id, epoch, ...)             a run begins here
    (ADOPTED, run, run_id, epoch, raw_records)   a run is taken over; ``frames.pack_records`` of all that went before
    (ENDED, run, ...)                            no record of this run follows
    (RELEASED, run)                              its owner stopped in good order before the run had ended;
                                                 IN_DOUBT as a third element: it had to
    (BEAT, 0)   (SEAL, 0)                        the owner is alive; nothing is acknowledged in this journal any more

``run`` is an index that the journal hands out, local to it: an adopted run's old records hold the index of their old
journal, so whoever reads them ignores it. Lists come back as tuples.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgpack

from exoflow.protocols import Buffer, Record


class Kind(enum.IntEnum):
    """What a record tells. Numbers are on disk: never change one."""

    OPEN = 1
    START = 2
    ADOPTED = 3
    SAVED = 4
    MADE = 5
    FAILED = 6
    READ = 7
    INTENT = 8
    UNDONE = 9
    EVENT = 10
    CANCEL = 11
    ENDED = 12
    RELEASED = 13
    BEAT = 14
    SEAL = 15
    NOTE = 16
    CALLED = 17
    SNAPSHOT = 18


OWNERSHIP = frozenset({Kind.START, Kind.ADOPTED, Kind.ENDED, Kind.RELEASED})
"""The kinds that change who owns a run, or whether anybody does."""

IN_DOUBT = "in_doubt"

STORED_MARK = "@"
"""A value that is an object of the store stands in a record as ``["@", name, size]``; a part of one, with its place, as
``["@", name, size, start, length]``."""

_STORED_LENGTHS = (3, 5)
_TOGETHER = 1024

_UNICODE_ERRORS = "surrogatepass"
"""Paths of files that are no UTF-8 hold surrogates."""


def encoder() -> Callable[[Record], bytes]:
    """What turns one record into bytes. Reuses a buffer: for one thread at a time."""
    pack: Callable[[Record], bytes] = msgpack.Packer(use_bin_type=True, unicode_errors=_UNICODE_ERRORS).pack
    return pack


encode: Callable[[Record], bytes] = partial(msgpack.packb, unicode_errors=_UNICODE_ERRORS)
"""One record as bytes, from any thread."""


def decode(data: Buffer) -> Record:
    """The record that ``encode`` made into these bytes.

    Raises:
        ValueError: they are damaged.
    """
    record = msgpack.unpackb(data, use_list=False, strict_map_key=False, unicode_errors=_UNICODE_ERRORS)
    if not isinstance(record, tuple) or len(record) < 2:
        raise ValueError("not a record")
    return record


def decode_all(encoded: Sequence[bytes]) -> tuple[Record, ...]:
    """``decode`` of each, in half the time.

    Raises:
        ValueError: one is damaged.
    """
    records: list[Record] = []
    for start in range(0, len(encoded), _TOGETHER):
        some = encoded[start : start + _TOGETHER]
        unpacker = msgpack.Unpacker(
            use_list=False, strict_map_key=False, max_buffer_size=0, unicode_errors=_UNICODE_ERRORS
        )
        unpacker.feed(b"".join(some))
        found = list(unpacker)
        if len(found) != len(some) or not all(isinstance(record, tuple) and len(record) > 1 for record in found):
            found = [decode(data) for data in some]  # tells what is wrong with which
        records += found
    return tuple(records)


def decode_as_far(data: Buffer) -> Record:
    """As many elements of a damaged record as can be read from its beginning. They may be wrong."""
    unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False, max_buffer_size=0, unicode_errors=_UNICODE_ERRORS)
    unpacker.feed(data)
    found: list[object] = []
    try:
        for _ in range(unpacker.read_array_header()):
            found.append(unpacker.unpack())  # noqa: PERF401  what came before an error is wanted
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    return tuple(found)


def value_names(record: Record) -> tuple[str, ...]:
    """The names of the stored values that a record names, at any depth."""
    return tuple(_names(record))


def _names(element: object) -> Iterator[str]:
    if isinstance(element, (list, tuple)):
        if len(element) in _STORED_LENGTHS and element[0] == STORED_MARK and isinstance(element[1], str):
            yield element[1]
        else:
            for inner in element:
                yield from _names(inner)
    elif isinstance(element, dict):
        for inner in element.values():
            yield from _names(inner)
