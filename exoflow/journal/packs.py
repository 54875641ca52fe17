"""Packs: ended runs, copied out of slots that gc deletes. An object with an index, then each run's records."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import msgpack

from exoflow.journal import frames
from exoflow.journal.records import decode_as_far
from exoflow.journal.scan import Damaged, History
from exoflow.protocols import Store

_HEAD = struct.Struct("<4sII")
_MAGIC = b"\xffEXP"


@dataclass(frozen=True, slots=True)
class Packed:
    """Where a pack holds an epoch of a run."""

    pack: str
    run_id: str
    epoch: int
    journal: str
    run: int
    ended: bool
    slot: int
    """The slot and offset of its last record: whoever has read that far has seen it."""
    offset: int
    start: int
    size: int


def write_pack(store: Store, name: str, runs: Sequence[tuple[Packed, bytes]]) -> None:
    """Create the pack; the places inside it are worked out here."""
    rows, start = [], 0
    for packed, data in runs:
        row = (packed.run_id, packed.epoch, packed.journal, packed.run, packed.ended, packed.slot, packed.offset)
        rows.append((*row, start, len(data)))
        start += len(data)
    index = msgpack.packb(rows)
    store.create(name, _HEAD.pack(_MAGIC, len(index), crc32(index)), index, *(data for _, data in runs))


def packed_runs(store: Store, pack: str) -> list[Packed]:
    """What a pack holds; nothing where it is damaged or gone."""
    try:
        magic, size, crc = _HEAD.unpack(store.read_range(pack, 0, _HEAD.size))
        index = store.read_range(pack, _HEAD.size, size)
    except (FileNotFoundError, struct.error):
        return []
    if magic != _MAGIC or crc32(index) != crc:
        return []
    base = _HEAD.size + size
    return [
        Packed(pack, run_id, epoch, journal, run, ended, slot, offset, base + start, length)
        for run_id, epoch, journal, run, ended, slot, offset, start, length in msgpack.unpackb(index)
    ]


def pack_names(store: Store) -> list[str]:
    return store.list("packs")


def all_packed(store: Store) -> Iterator[Packed]:
    for pack in pack_names(store):
        yield from packed_runs(store, pack)


def packed_data(store: Store, packed: Packed) -> bytes:
    return store.read_range(packed.pack, packed.start, packed.size)


def history(store: Store, packed: Packed) -> History:
    """The run's records.

    Raises:
        FileNotFoundError: the pack is gone; a newer one holds them.
    """
    found = History(began=True, ended=packed.ended)
    try:
        for item in frames.unpack_records(packed_data(store, packed)):
            if item.good:
                found.entries.append((bytes(item.data), item.run, item.kind))
            else:
                damage = Damaged(
                    packed.journal, -1, packed.start + item.offset, len(item.data), decode_as_far(item.data)
                )
                found.damaged.append(damage)
    except ValueError:
        found.damaged.append(Damaged(packed.journal, -1, packed.start, packed.size, ()))
    return found


def find_packed(store: Store, run_id: str, epoch: int) -> Packed | None:
    return next((each for each in all_packed(store) if each.run_id == run_id and each.epoch == epoch), None)
