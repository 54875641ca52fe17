"""Read journals: which slots there are, and what a run's history in them is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from exoflow.journal import frames, numbered
from exoflow.journal.ends import end_of
from exoflow.journal.frames import NOWHERE, Batch, Entry, Gap
from exoflow.journal.records import IN_DOUBT, OWNERSHIP, Kind, decode, decode_all, decode_as_far, encode
from exoflow.journal.remembered import Remembered
from exoflow.protocols import Record, Store


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes of a journal that no longer say what was written, and that are no torn end."""

    journal: str
    slot: int
    offset: int
    size: int
    record: Record
    """As much as can be decoded, which may be wrong; empty where nothing can. It may then belong to any run."""

    @property
    def call(self) -> str | None:
        """The first text behind kind and run: in the driver's records, the call."""
        return next((element for element in self.record[2:] if isinstance(element, str)), None)

    def __str__(self) -> str:
        return f"journals/{self.journal}/{self.slot}, {self.size} bytes at {self.offset}"


@dataclass(slots=True)
class History:
    """What a journal, or a pack, holds of one run; the records of an Adopted stand where it stood."""

    entries: list[Entry] = field(default_factory=list)
    damaged: list[Damaged] = field(default_factory=list)
    began: bool = False
    ended: bool = False
    released: bool = False
    in_doubt: bool = False
    """It was released because nobody knew whether an effect had happened."""
    torn_bytes: int = 0

    def records(self) -> tuple[Record, ...]:
        return decode_all([entry[0] for entry in self.entries])


def slot_name(journal: str, number: int) -> str:
    return f"journals/{journal}/{number}"


def slot_numbers(store: Store, journal: str) -> list[int]:
    if not numbered.in_bucket(store):
        return numbered.numbers(store, f"journals/{journal}", 0)
    newest, end = _newest(store, journal, None)
    return list(range(newest + 1)) if end is None else [end]


def newest_slot(store: Store, journal: str, known: int | None = None) -> int:
    """The number of the newest slot, -1 where there is none; ``known`` is one that is there."""
    if numbered.in_bucket(store):
        newest, end = _newest(store, journal, known)
        return newest if end is None else end
    return max(slot_numbers(store, journal), default=-1)


def _newest(store: Store, journal: str, known: int | None) -> tuple[int, int | None]:
    """What looks like the newest slot, and the one that is, if gc has emptied the journal. In a bucket."""
    if known is None and isinstance(store, Remembered):
        known = store.newest(journal)
    return numbered.newest(store, f"journals/{journal}", 0, known), end_of(store, journal)


def journal_names(store: Store) -> list[str]:
    return sorted({name.split("/")[1] for name in store.list("journals")})


SEAL_BATCH_BYTES = len(frames.pack_batch([(encode((Kind.SEAL, 0)), 0, Kind.SEAL)], NOWHERE, 0, 0))


def seal_batch(writer: int, nonce: int) -> bytes:
    return frames.pack_batch([(encode((Kind.SEAL, 0)), 0, Kind.SEAL)], NOWHERE, writer, nonce)


def ends_with_seal(store: Store, journal: str, number: int) -> bool:
    """Whether the last batch of a slot is a Seal: the journal is over.

    Raises:
        FileNotFoundError: the slot is gone.
    """
    name = slot_name(journal, number)
    data = store.read(name)
    tail = data[max(0, len(data) - SEAL_BATCH_BYTES) :]
    for batch in frames.batches(tail):
        if isinstance(batch, Batch) and batch.first == NOWHERE:
            return any(item.kind == Kind.SEAL and item.good for item in frames.found(batch))
    return False


def is_sealed(store: Store, journal: str) -> bool:
    newest = newest_slot(store, journal)
    return newest >= 0 and ends_with_seal(store, journal, newest)


def read_run(store: Store, journal: str, run: int, upto: int = NOWHERE - 1) -> History:
    """A run's history in one journal, up to a position.

    Positions tell what became of everything: a batch that stands at or before the last one replaces it (its first write
    had failed); bytes that cannot be read are damage if the records before and behind them leave a hole.

    Raises:
        FileNotFoundError: a slot vanished while it was read; it stands in a pack now.
    """
    return _read(store, journal, _Reading(journal, run, upto)).history()


def read_all(store: Store, journal: str) -> dict[int, tuple[History, tuple[int, int]]]:
    """Every run's history in one journal, with slot and offset of its last record.

    Raises:
        FileNotFoundError: as ``read_run``.
    """
    return _read(store, journal, _Reading(journal, None, NOWHERE - 1)).histories()


def _read(store: Store, journal: str, reading: _Reading) -> _Reading:
    previous = None
    slots = slot_numbers(store, journal)
    contents = numbered.read_each(store, [slot_name(journal, number) for number in slots])
    for number, data in zip(slots, contents, strict=True):
        if number != (0 if previous is None else previous + 1):
            reading.skip()  # gc took the slots before: nothing of a run that goes on was there
        for piece in frames.batches(data):
            reading.take(number, data, piece)
        previous = number
    return reading


class _Reading:
    """One pass over a journal, for one run or for all."""

    def __init__(self, journal: str, run: int | None, upto: int) -> None:
        self._journal = journal
        self._run = run
        self._upto = upto
        self._next: int | None = 1
        """The position that must follow; None where gc left a hole."""
        self._records: list[tuple[int, Entry, int, int]] = []
        """Position, record, slot and offset."""
        self._doubts: list[tuple[int, Damaged, bool]] = []
        """Position, damage, and whether it is a torn end if nothing follows."""

    def skip(self) -> None:
        self._next = None

    def take(self, slot: int, data: memoryview, piece: Batch | Gap) -> None:
        if isinstance(piece, Gap):
            damage = Damaged(self._journal, slot, piece.offset, piece.end - piece.offset, ())
            self._doubts.append((self._next or 0, damage, piece.torn))
        elif piece.first != NOWHERE and piece.first <= self._upto:
            self._place(slot, piece)
            self._read(slot, data, piece)

    def _place(self, slot: int, batch: Batch) -> None:
        expected, first = self._next, batch.first
        if expected is not None and first < expected:
            while self._records and self._records[-1][0] >= first:
                self._records.pop()
        if self._doubts:
            self._doubts = [(at, damage, False) for at, damage, _ in self._doubts if at < first]
        if expected is not None and first > expected and not any(at >= expected for at, _, _ in self._doubts):
            self._doubts.append((expected, Damaged(self._journal, slot, batch.offset, 0, ()), False))
        self._next = first + batch.count

    def _read(self, slot: int, data: memoryview, batch: Batch) -> None:
        records = self._records
        whole = frames.whole(batch, self._run) if batch.first + batch.count <= self._upto + 1 else None
        if whole is not None:
            records += [(position, entry, slot, offset) for position, entry, offset in whole]
            return
        for item in frames.found(batch, self._run):
            if item.position > self._upto:
                return
            if not item.good:
                torn = batch.end == len(data) and frames.is_torn(data, batch.offset, batch.end)
                record = decode_as_far(item.data)
                if item.kind == Kind.ADOPTED and batch.table_good and not torn:
                    records.append((item.position, (bytes(item.data), item.run, item.kind), slot, item.offset))
                    continue
                if self._concerns(batch, record):
                    damage = Damaged(self._journal, slot, item.offset, len(item.data), record)
                    self._doubts.append((item.position, damage, torn))
                if torn:
                    return
                if item.kind == Kind.START and batch.table_good:
                    records.append((item.position, (b"", item.run, item.kind), slot, item.offset))  # it did begin
                continue
            records.append((item.position, (bytes(item.data), item.run, item.kind), slot, item.offset))
        if batch.cut:
            damage = Damaged(self._journal, slot, batch.offset, batch.end - batch.offset, ())
            self._doubts.append((batch.first + batch.count - 1, damage, True))

    def _concerns(self, batch: Batch, record: Record) -> bool:
        unknown = len(record) < 2 or not isinstance(record[1], int)
        return batch.table_good or unknown or self._run in (None, record[1])

    def history(self) -> History:
        history = History()
        for _, entry, _, _ in self._records:
            if entry[2] in OWNERSHIP:
                _add(history, self._journal, entry)
            else:
                history.entries.append(entry)
        history.damaged += [damage for _, damage, torn in self._doubts if not torn]
        history.torn_bytes = sum(damage.size for _, damage, torn in self._doubts if torn)
        return history

    def histories(self) -> dict[int, tuple[History, tuple[int, int]]]:
        found: dict[int, tuple[History, tuple[int, int]]] = {}
        for _, entry, slot, offset in self._records:
            history = found[entry[1]][0] if entry[1] in found else History()
            _add(history, self._journal, entry)
            found[entry[1]] = history, (slot, offset)
        damaged = [damage for _, damage, torn in self._doubts if not torn]
        for run, (history, _) in found.items():
            history.damaged += [each for each in damaged if len(each.record) < 2 or each.record[1] == run]
        return found


def _add(history: History, journal: str, entry: Entry) -> None:
    data, _, kind = entry
    if kind == Kind.ADOPTED:
        history.began = True
        _add_adopted(history, journal, data)
        return
    if kind == Kind.START:
        history.began = True
    elif kind == Kind.ENDED:
        history.ended = True
    elif kind == Kind.RELEASED:
        history.released, history.in_doubt = True, decode(data)[2:] == (IN_DOUBT,)
        return
    if data:
        history.entries.append(entry)


def _add_adopted(history: History, journal: str, data: bytes) -> None:
    """The records inside of an Adopted carry their own checksums, so a flipped byte in it costs one of them."""
    record = decode_as_far(data)
    raw = record[4] if len(record) > 4 and isinstance(record[4], bytes) else b""
    try:
        batch = frames.unpack_batch(raw)
        whole = frames.whole(batch)
        if whole is not None:
            history.entries += [entry for _, entry, _ in whole]
            return
        for item in frames.found(batch):
            if item.good:
                history.entries.append((bytes(item.data), item.run, item.kind))
            else:
                history.damaged.append(Damaged(journal, -1, item.offset, len(item.data), decode_as_far(item.data)))
    except ValueError:
        history.damaged.append(Damaged(journal, -1, 0, len(data), ()))


def owned(
    store: Store, journal: str, kinds: frozenset[Kind], slots: Sequence[int] | None = None
) -> Iterator[tuple[int, frames.Found]]:
    """Every good record of some kinds in a journal, with its slot; other records are skipped without a look at them.

    Args:
        slots: those that are to be read; None: all.

    Raises:
        FileNotFoundError: a slot vanished while it was read.
    """
    if slots is None:
        slots = slot_numbers(store, journal)
    contents = numbered.read_each(store, [slot_name(journal, number) for number in slots])
    for number, data in zip(slots, contents, strict=True):
        for piece in frames.batches(data):
            if isinstance(piece, Batch):
                for item in frames.found(piece, None, kinds):
                    if item.good:
                        yield number, item
