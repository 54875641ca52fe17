"""How records lie in a slot, so that a torn tail, a flipped byte and a damaged length are told apart.

A slot is a row of batches; a batch is what one durable write holds::

    header   magic, size of the body, count, first position, writer, nonce, crc of the table, crc of the header
    table    for each record: size, crc, run, kind
    records  msgpack, one behind the other

The table lets a reader skip other runs' records without a look at them. A damaged header costs its batch, and reading
goes on at the next header; a damaged table or record costs one record: the others are found from the front and from the
back.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from zlib import crc32

from exoflow.journal.records import decode
from exoflow.protocols import Buffer

MAGIC = b"\xffEXO"
NOWHERE = 2**64 - 1
"""The position of a batch that is not part of the owner's sequence: Open, Beat, Seal."""

_HEADER = struct.Struct("<4sIIQQQII")
_HEAD = struct.Struct("<4sIIQQQI")
_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<IIII")
_COUNT = struct.Struct("<II")
_SECTOR = 512
_ZEROS_MIN = 16

Entry = tuple[bytes, int, int]
"""An encoded record, its run and its kind."""


@dataclass(slots=True)
class Batch:
    """One batch as it was found. ``cut`` says that the slot ends before it does."""

    offset: int
    end: int
    first: int
    count: int
    writer: int
    nonce: int
    table: memoryview
    records: memoryview
    table_good: bool
    cut: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that are no batch. ``torn``: they look like a write that power loss or a crash cut short."""

    offset: int
    end: int
    torn: bool


@dataclass(slots=True)
class Found:
    """One record of a batch. Where it is not ``good`` its bytes, run and kind are what the damage left."""

    position: int
    run: int
    kind: int
    data: memoryview
    offset: int
    good: bool


def pack_batch(entries: Sequence[Entry], first: int, writer: int, nonce: int) -> bytes:
    """The batch that holds these records, the first of them at position ``first``."""
    records = [entry[0] for entry in entries]
    table = _table(entries, records)
    size = len(table) + sum(map(len, records))
    head = _HEAD.pack(MAGIC, size, len(records), first, writer, nonce, crc32(table))
    return b"".join((head, _CRC.pack(crc32(head)), table, *records))


def _table(entries: Sequence[Entry], records: list[bytes]) -> bytes:
    sizes = map(len, records)
    rows = zip(
        sizes, map(crc32, records), (entry[1] for entry in entries), (entry[2] for entry in entries), strict=True
    )
    return struct.pack(f"<{4 * len(records)}I", *chain.from_iterable(rows))


def batches(data: memoryview, start: int = 0, writer: int | None = None) -> Iterator[Batch | Gap]:
    """Every batch from ``start`` on, by the given writer where there is one, and what lies between them."""
    offset, total = start, len(data)
    while offset < total:
        batch = _batch_at(data, offset, writer)
        if batch is None:
            end = _next_header(data, offset + 1, writer)
            yield Gap(offset, end, torn=end == total and is_torn(data, offset, end))
            offset = end
            continue
        yield batch
        offset = batch.end
        if writer is None:
            writer = batch.writer


def _batch_at(data: memoryview, offset: int, writer: int | None) -> Batch | None:
    if offset + _HEADER.size > len(data):
        return None
    magic, size, count, first, by, nonce, table_crc, crc = _HEADER.unpack_from(data, offset)
    body = offset + _HEADER.size
    if magic != MAGIC or crc != crc32(data[offset : body - 4]) or (writer is not None and by != writer):
        return None
    split = body + count * _ENTRY.size
    table = data[body:split]
    end = body + size
    return Batch(
        offset,
        min(end, len(data)),
        first,
        count,
        by,
        nonce,
        table,
        data[split:end],
        crc32(table) == table_crc,
        end > len(data),
    )


def _next_header(data: memoryview, start: int, writer: int | None) -> int:
    """Where the next sound header begins, or the end. Copies of journals inside of records have another writer."""
    step = 1 << 20
    for chunk in range(start, len(data), step):
        piece = bytes(data[chunk : chunk + step + len(MAGIC) - 1])
        at = piece.find(MAGIC)
        while at >= 0:
            if _batch_at(data, chunk + at, writer) is not None:
                return chunk + at
            at = piece.find(MAGIC, at + 1)
    return len(data)


def is_torn(data: memoryview, start: int, end: int) -> bool:
    """Whether these last bytes look cut short rather than damaged: too few, or all zero within some sector.

    A file may have got its new size but not all of its new sectors when the power failed. A few zeros at the end are as
    likely data: they do not count, because to take damage for a torn end could repeat an effect.
    """
    if end - start < _HEADER.size:
        return True
    edges = [start, *range((start // _SECTOR + 1) * _SECTOR, end, _SECTOR), end]
    return any(
        not any(data[left:right]) and (left == start or right - left >= _ZEROS_MIN) for left, right in pairwise(edges)
    )


def found(batch: Batch, run: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Found]:
    """The records of a batch: of one run or of all, of some kinds or of all. Damaged ones are among them.

    A cut batch gives its whole records, up to the first that is not.
    """
    if not batch.table_good or batch.cut:
        for item in _salvaged(batch):
            if (run is None or item.run == run or not item.good) and (kinds is None or item.kind in kinds):
                yield item
        return
    records, at, position = batch.records, 0, batch.first
    base = batch.end - len(records)
    control = position == NOWHERE
    for size, crc, by, kind in _ENTRY.iter_unpack(batch.table):
        if (run is None or by == run) and (kinds is None or kind in kinds):
            data = records[at : at + size]
            yield Found(position, by, kind, data, base + at, crc32(data) == crc)
        at += size
        if not control:
            position += 1


def whole(batch: Batch, run: int | None = None) -> list[tuple[int, Entry, int]] | None:
    """The records of a batch with their positions and offsets, if every checksum holds; None: see ``found``.

    The same check as ``found`` makes, at a third of its price: nearly every batch is whole.
    """
    if not batch.table_good or batch.cut or batch.first == NOWHERE:
        return None
    data, at, position = bytes(batch.records), 0, batch.first
    base = batch.end - len(data)
    records: list[tuple[int, Entry, int]] = []
    for size, crc, by, kind in _ENTRY.iter_unpack(batch.table):
        if run is None or by == run:
            record = data[at : at + size]
            if crc32(record) != crc:
                return None
            records.append((position, (record, by, kind), base + at))
        at += size
        position += 1
    return records


def _salvaged(batch: Batch) -> Iterator[Found]:
    """From the front as long as the checksums hold, then from the back; what lies between is damaged."""
    rows = [_ENTRY.unpack_from(batch.table, at) for at in range(0, len(batch.table) - _ENTRY.size + 1, _ENTRY.size)]
    records = batch.records
    base = batch.end - len(records)
    good = list(_run_of_good(records, rows))
    yield from _placed(batch, base, rows, records, 0, good)
    if batch.cut or len(good) == batch.count:
        return
    tail = list(_run_of_good_from_end(records, rows[len(good) :]))
    left, right = (good[-1][1] if good else 0), (tail[0][0] if tail else len(records))
    for n in range(len(good), batch.count - len(tail)):
        claimed = rows[n]
        yield Found(_position(batch, n), claimed[2], claimed[3], records[left:right], base + left, False)
    yield from _placed(batch, base, rows, records, batch.count - len(tail), tail)


def _position(batch: Batch, n: int) -> int:
    return NOWHERE if batch.first == NOWHERE else batch.first + n


def _placed(
    batch: Batch, base: int, rows: list[tuple[int, ...]], records: memoryview, start: int, spans: list[tuple[int, int]]
) -> Iterator[Found]:
    for n, (left, right) in enumerate(spans, start):
        data = records[left:right]
        kind, run = rows[n][3], rows[n][2]
        if not batch.table_good:
            kind, run = decode(data)[:2]  # the row may be wrong; the record, by its own checksum, is not
        yield Found(_position(batch, n), run, kind, data, base + left, True)


def _run_of_good(records: memoryview, rows: list[tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    ends = accumulate(row[0] for row in rows)
    for (size, crc, _, _), end in zip(rows, ends, strict=True):
        if not size or end > len(records) or crc32(records[end - size : end]) != crc:
            return
        yield end - size, end


def _run_of_good_from_end(records: memoryview, rows: list[tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    end = len(records)
    for size, crc, _, _ in reversed(rows):
        if not size or size > end or crc32(records[end - size : end]) != crc:
            break
        spans.append((end - size, end))
        end -= size
    return reversed(spans)


def pack_records(entries: Sequence[Entry]) -> bytes:
    """Records as one value, each with its checksum: what an Adopted record or a pack holds of a run."""
    records = [entry[0] for entry in entries]
    table = _table(entries, records)
    return b"".join((_COUNT.pack(len(records), crc32(table)), table, *records))


def unpack_records(data: Buffer) -> Iterator[Found]:
    """The records of ``pack_records``, numbered from 0; damaged ones are among them.

    Raises:
        ValueError: as ``unpack_batch``.
    """
    return found(unpack_batch(data))


def unpack_batch(data: Buffer) -> Batch:
    """What ``pack_records`` has made, as a batch.

    Raises:
        ValueError: this is not such a value, or its first bytes are damaged.
    """
    view = memoryview(data).cast("B")
    if len(view) < _COUNT.size:
        raise ValueError("too short to hold records")
    count, crc = _COUNT.unpack_from(view)
    split = _COUNT.size + count * _ENTRY.size
    if split > len(view):
        raise ValueError("the count of records is damaged")
    table = view[_COUNT.size : split]
    return Batch(0, len(view), 0, count, 0, 0, table, view[split:], crc32(table) == crc, False)
