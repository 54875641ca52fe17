"""Where batches go: into a slot that grows, or each into a slot of its own. Both say who won."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from exoflow.errors import Fenced, StorageError
from exoflow.hooks import reach
from exoflow.journal import frames
from exoflow.journal.creation import created
from exoflow.journal.frames import NOWHERE, Entry
from exoflow.journal.records import Kind, encode
from exoflow.journal.scan import slot_name
from exoflow.protocols import Slot, SlotStore, Store

SLOT_MAX_BYTES = 64 << 20
_TRIES = 3
_NONCE_BITS = 64


class Slots(Protocol):
    """The writing end of one journal. One thread at a time."""

    number: int
    """Of the newest slot; -1 before the first."""
    are_short: bool
    """Whether a write may take less time than to wake a thread for it."""

    def write(self, entries: Sequence[Entry], first: int) -> None:
        """Make the batch durable; when this returns, it is acknowledged. ``first`` may be NOWHERE.

        Raises:
            Fenced: somebody sealed this journal; the batch may or may not be read by whoever did.
            StorageError: the store failed, in the next slot too.
        """

    def close(self) -> None: ...


class Author:
    """Names and numbers that every batch of one process carries."""

    def __init__(self, journal: str, number: int, process_info: object, entropy: Callable[[int], int]) -> None:
        self.journal = journal
        self._number = number
        self._process_info = process_info
        self._nonce = entropy(_NONCE_BITS)

    def batch(self, entries: Sequence[Entry], first: int) -> bytes:
        """The next batch of this process: its number and nonce are no other's."""
        self._nonce = (self._nonce + 1) % (1 << _NONCE_BITS)
        return frames.pack_batch(entries, first, self._number, self._nonce)

    def opening(self, slot: int) -> bytes:
        record = (Kind.OPEN, 0, self.journal, slot, self._process_info)
        return self.batch([(encode(record), 0, Kind.OPEN)], NOWHERE)

    def wrote(self, store: Store, name: str) -> bool:
        """Whether the slot is this process's own."""
        try:
            first = next(frames.batches(store.read(name)), None)
        except FileNotFoundError:
            return False
        return isinstance(first, frames.Batch) and first.writer == self._number

    def fenced(self, slot: int) -> Fenced:
        return Fenced(f"somebody took over: {slot_name(self.journal, slot)} is theirs; nothing more is recorded")


class GrowingSlots:
    """Batches are appended: write, fdatasync, then look whether a stranger made the next slot."""

    are_short = True

    def __init__(self, store: SlotStore, author: Author, slot_max_bytes: int = SLOT_MAX_BYTES) -> None:
        self.number = -1
        self._store = store
        self._author = author
        self._slot: Slot | None = None
        self._usable = False
        """False while a write is under way, and for ever if that did not return: the next batch opens the next slot."""
        self._slot_max_bytes = slot_max_bytes

    def write(self, entries: Sequence[Entry], first: int) -> None:
        batch = self._author.batch(entries, first) if entries else b""
        slot = self._slot
        if slot is None or not self._usable or slot.size + len(batch) > self._slot_max_bytes:
            self._roll(batch)
        else:
            self._usable = False
            try:
                slot.append(batch)
                reach("journal.sync.before")
                slot.sync()
                self._usable = True
            except StorageError:
                self._roll(batch)  # whole, as if it had never been written: what lies in the old slot is superseded
        reach("journal.look.before")
        if self._stranger_came():
            raise self._author.fenced(self.number + 1)

    def _stranger_came(self) -> bool:
        return self._store.exists(slot_name(self._author.journal, self.number + 1))

    def _roll(self, batch: bytes) -> None:
        while True:
            number = self.number + 1
            reach("journal.roll.before")
            name = slot_name(self._author.journal, number)
            slot = self._store.create_slot(name, self._author.opening(number) + batch)
            if slot is not None:
                break
            if not self._author.wrote(self._store, name):
                raise self._author.fenced(number)
            self.number = number  # our own create was interrupted before it could answer
        if self._slot is not None:
            self._slot.close()  # not before the next one's lock is held: somebody may ask whether we live
        self._slot, self.number, self._usable = slot, number, True

    def close(self) -> None:
        if self._slot is not None:
            self._slot.close()


class CreatedSlots:
    """Each batch is an object: created if absent. Its nonce tells a lost response from a lost race."""

    are_short = False

    def __init__(self, store: Store, author: Author) -> None:
        self.number = -1
        self._store = store
        self._author = author
        self._unsure: tuple[int, bytes] = (-1, b"")
        """The write that began last. If nobody knows whether it landed, it is repeated to the letter before the next:
        something else may not take its place, which may lie below a Seal and have been emptied by gc."""

    def write(self, entries: Sequence[Entry], first: int) -> None:
        batch = self._author.batch(entries, first) if entries else b""
        number, begun = self._unsure
        if number == self.number + 1:
            self._create(number, begun)
        number = self.number + 1
        data = self._author.opening(0) + batch if number == 0 else batch
        if data:
            self._create(number, data)

    def _create(self, number: int, data: bytes) -> None:
        self._unsure = number, data
        if not created(self._store, slot_name(self._author.journal, number), data, _TRIES):
            raise self._author.fenced(number)
        self.number = number

    def close(self) -> None:
        pass
