"""Read all runs of a store: once, or on from where the last reader stopped. Derived; runs never write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from exoflow.journal import frames, packs
from exoflow.journal.ends import emptied
from exoflow.journal.frames import Batch, Gap
from exoflow.journal.numbered import in_bucket
from exoflow.journal.records import OWNERSHIP, Kind, decode
from exoflow.journal.scan import journal_names, owned, slot_name
from exoflow.journal.takeover import Own, State, journal_processes, listen, note
from exoflow.protocols import Record, Store

Position = tuple[int, int]
"""Slot and offset; ``OVER`` for an offset: a sealed journal was read to its end."""

OVER = 2**62


@dataclass(frozen=True, slots=True)
class Listed:
    """A run as ``runs`` gives it."""

    run_id: str
    journal: str
    state: State
    epoch: int


def listed(store: Store, own: Own | None = None) -> Iterator[Listed]:
    """Every run once, in the order of their journals' names and of their beginnings, with its newest epoch."""
    newest: dict[str, tuple[int, str, bool]] = {}
    for packed in packs.all_packed(store):
        _keep_newest(newest, packed.run_id, packed.epoch, packed.journal, packed.ended)
    for journal in journal_names(store):
        try:
            begun, over = _owned_runs(store, journal)
        except FileNotFoundError:
            continue  # gc took it: its runs are in packs, and the next reader sees them
        for run, (run_id, epoch) in begun.items():
            _keep_newest(newest, run_id, epoch, journal, run in over)
    lives: dict[str, bool] = {}
    if in_bucket(store):  # listen to all at once: each may have to be heard for three beats
        for journal in {journal for _, journal, ended in newest.values() if not ended}:
            listen(store, journal)
    for run_id, (epoch, journal, ended) in newest.items():
        if not ended and journal not in lives:
            lives[journal] = own is not None and journal == own.journal or bool(journal_processes(store, journal))
        yield Listed(run_id, journal, "ended" if ended else "live" if lives[journal] else "broken_off", epoch)


def _keep_newest(newest: dict[str, tuple[int, str, bool]], run_id: str, epoch: int, journal: str, ended: bool) -> None:
    if epoch >= newest.get(run_id, (0, "", False))[0]:
        newest[run_id] = (epoch, journal, ended)


def _owned_runs(store: Store, journal: str) -> tuple[dict[int, tuple[str, int]], set[int]]:
    """Run index to id and epoch, and the runs that have ended."""
    begun: dict[int, tuple[str, int]] = {}
    over: set[int] = set()
    for _, item in owned(store, journal, OWNERSHIP):
        if item.kind == Kind.ENDED:
            over.add(item.run)
        elif item.kind != Kind.RELEASED:
            record = decode(item.data)
            begun[item.run] = (record[2], record[3])
    return begun, over


Read = tuple[str, int, int, str, int, Record]
"""Journal, slot, offset of the record, run id, epoch, record."""


class Reader:
    """Reads what was recorded since ``positions``, in all journals. One thread at a time.

    ``positions`` is kept up to date; keep it, and give it to the next Reader. An Adopted record comes with None in the
    place of the records that it repeats. Runs whose slots were packed before they were read come from the pack, with
    slot -1. A run's records come in order; what a live process has not made durable yet may be among the last.

    Args:
        runs: index to run id and epoch of the runs that begin before a journal's position, where the caller kept them;
            None: they are looked for in the journal, all of it.
    """

    def __init__(
        self,
        store: Store,
        positions: Mapping[str, Position] | None = None,
        runs: Callable[[str], Mapping[int, tuple[str, int]]] | None = None,
    ) -> None:
        self.positions: dict[str, Position] = dict(positions or {})
        self.vanished = False
        """Something that was read before is there no more: gc took it, or the power failed before it was durable."""
        self.first_slots: dict[str, int] = {}
        """The oldest slot that there is of each journal: gc deletes from the front."""
        self._store = store
        self._known_runs = runs or (lambda journal: _owned_runs(store, journal)[0])
        self._runs: dict[str, dict[int, tuple[str, int]]] = {}
        self._next: dict[str, int] = {}

    def read_new(self) -> Iterator[Read]:
        """Every record that was not read yet."""
        numbers: dict[str, list[int]] = {}
        for name in self._store.list("journals"):
            _, journal, number = name.split("/")
            numbers.setdefault(journal, []).append(int(number))
        if in_bucket(self._store):
            for journal in emptied(self._store) & numbers.keys():
                numbers[journal] = [max(numbers[journal])]
        self.first_slots = {journal: min(found) for journal, found in numbers.items()}
        self.vanished = not self.positions.keys() <= {*numbers, *packs.pack_names(self._store)}
        seen = dict(self.positions)
        if in_bucket(self._store):
            for journal, found in numbers.items():
                note(self._store, journal, max(found))
        for journal in sorted(numbers):
            try:
                yield from self._read_journal(journal, sorted(numbers[journal]))
            except FileNotFoundError:
                continue  # gc took a slot: the pack has its runs
        for pack in packs.pack_names(self._store):
            if pack not in self.positions:
                yield from self._read_pack(pack, seen)
                self.positions[pack] = (0, 0)

    def _read_journal(self, journal: str, found: list[int]) -> Iterator[Read]:
        slot, offset = self.positions.get(journal, (-1, 0))
        if offset == OVER:
            return
        numbers = [number for number in found if number >= slot]
        for number in numbers:
            data = self._store.read(slot_name(journal, number))
            begin = offset if number == slot else 0
            self.vanished |= begin > len(data)
            for piece in frames.batches(data, begin):
                if isinstance(piece, Gap):
                    if piece.end == len(data) and number == numbers[-1]:
                        break  # perhaps being written just now
                    continue
                if piece.cut:
                    break
                yield from self._read_batch(journal, number, piece, slot)
                self.positions[journal] = (number, OVER if _is_seal(piece) else piece.end)

    def _read_batch(self, journal: str, number: int, batch: Batch, begun_at: int) -> Iterator[Read]:
        if batch.first == frames.NOWHERE:
            return
        if journal not in self._runs:
            self._runs[journal] = dict(self._known_runs(journal)) if begun_at >= 0 else {}
        runs = self._runs[journal]
        expected = self._next.get(journal, 0)
        for item in frames.found(batch):
            if not item.good or item.position < expected:
                continue  # damaged, or written a second time after a failed write
            record = decode(item.data)
            if item.kind in (Kind.START, Kind.ADOPTED):
                runs[item.run] = (record[2], record[3])
            if item.kind == Kind.ADOPTED:
                record = (*record[:4], None, *record[5:])
            if item.run in runs:
                yield (journal, number, item.offset, *runs[item.run], record)
        self._next[journal] = batch.first + batch.count

    def _read_pack(self, pack: str, seen: Mapping[str, Position]) -> Iterator[Read]:
        for packed in packs.packed_runs(self._store, pack):
            in_slots = packed.run in self._runs.get(packed.journal, {})
            if in_slots or seen.get(packed.journal, (-1, 0)) > (packed.slot, packed.offset):
                continue
            try:
                history = packs.history(self._store, packed)
            except FileNotFoundError:
                return
            for record in history.records():
                yield (packed.journal, -1, packed.start, packed.run_id, packed.epoch, record)


def _is_seal(batch: Batch) -> bool:
    return batch.first == frames.NOWHERE and any(item.kind == Kind.SEAL and item.good for item in frames.found(batch))
