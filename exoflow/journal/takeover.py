"""Find a run, ask whether its owner lives, and take it over. Atomic create alone says who is right."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Literal

from exoflow.errors import StorageError
from exoflow.hooks import reach
from exoflow.journal import packs
from exoflow.journal.creation import created
from exoflow.journal.ends import end_of
from exoflow.journal.living import lives_here
from exoflow.journal.marks import last_buried
from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import Claim, claims
from exoflow.journal.scan import (
    Damaged,
    History,
    ends_with_seal,
    is_sealed,
    newest_slot,
    read_run,
    seal_batch,
    slot_name,
    slot_numbers,
)
from exoflow.protocols import Record, SlotStore, Store, place_of

State = Literal["absent", "live", "broken_off", "ended"]

BEAT_S = 5.0
SILENT_BEATS = 3
_TRIES = 100


@dataclass(frozen=True, slots=True)
class Found:
    """What the store says of a run at one moment.

    ``state`` says how the newest epoch stands. Records behind an Ended are those of a later epoch: an ended run that
    was adopted has its old Ended among its records and is not ended.
    """

    run_id: str
    state: State
    epoch: int = 0
    """The epoch that the records are of; 0 where there are none."""
    journal: str = ""
    run: int = 0
    claim: Claim | None = None
    """The newest claim: its owner may have died before it wrote a word, so that the records are an older epoch's."""
    processes: tuple[int, ...] = ()
    """Who keeps it alive; (-1,) for unknown ones."""
    damaged: tuple[Damaged, ...] = ()
    history: History = field(default_factory=History)

    @property
    def records(self) -> tuple[Record, ...]:
        """The run's records, Start first, Adopted ones flattened; decoded anew at each call."""
        return self.history.records()

    @property
    def torn_bytes(self) -> int:
        """Bytes of a torn end, which are nothing."""
        return self.history.torn_bytes


@dataclass(frozen=True, slots=True)
class Own:
    """What the asking process knows of its own journal."""

    journal: str
    durable: int
    busy_runs: frozenset[int]
    """Runs that it has claimed or begun, and that have not ended."""


def find(store: Store, run_id: str, own: Own | None = None, *, listens: bool = True) -> Found:
    """Look for a run. Changes nothing.

    Without ``listens`` a run in a bucket counts as live if its owner may live: nobody waits for its next beat.

    Raises:
        StorageError: the store failed, or changes faster than it can be read.
    """
    for _ in range(_TRIES):
        try:
            return _find(store, run_id, own, listens)
        except FileNotFoundError:
            continue  # gc moved what we read into a pack
    raise StorageError(f"{store.url}: what belongs to run {run_id!r} vanishes as often as it is read; try again")


def _find(store: Store, run_id: str, own: Own | None, listens: bool) -> Found:
    known = claims(store, run_id)
    newest = known[0] if known else None
    for claim in known:
        if claim.is_grave:
            break
        ours = own is not None and own.journal == claim.journal
        history = history_of(store, run_id, claim, own)
        if history is None:
            processes = owner_processes(store, claim, own, listens=listens) if claim is newest else ()
            if processes:
                return Found(run_id, "live", 0, claim.journal, claim.run, newest, processes)
            continue
        if claim.epoch <= last_buried(store, run_id):
            break  # gc is deleting it
        over = history.ended or history.released  # whoever has released a run records nothing more of it
        processes = () if over or claim is not newest else owner_processes(store, claim, own, listens=listens)
        state: State = "ended" if history.ended else "live" if processes else "broken_off"
        if ours and own is not None and claim.run not in own.busy_runs and state == "live":
            state = "broken_off"
        damaged = tuple(history.damaged)
        return Found(run_id, state, claim.epoch, claim.journal, claim.run, newest, processes, damaged, history)
    return Found(run_id, "absent", claim=newest)


def history_of(store: Store, run_id: str, claim: Claim, own: Own | None = None) -> History | None:
    """What an epoch left behind; None where it never wrote a word."""
    if own is not None and own.journal == claim.journal:
        history = read_run(store, claim.journal, claim.run, own.durable)
    else:
        history = read_run(store, claim.journal, claim.run)
    if history.began:
        return history
    if not in_bucket(store) or end_of(store, claim.journal) is not None:  # there gc packs nothing without saying so
        packed = packs.find_packed(store, run_id, claim.epoch)
        if packed is not None:
            return packs.history(store, packed)
    return history if history.entries else None


def owner_processes(store: Store, claim: Claim, own: Own | None, *, listens: bool = True) -> tuple[int, ...]:
    """Who keeps the owner of a claim alive; empty: nobody."""
    if own is not None and own.journal == claim.journal:
        return (os.getpid(),) if claim.run in own.busy_runs else ()
    return journal_processes(store, claim.journal, listens=listens)


def journal_processes(store: Store, journal: str, *, listens: bool = True) -> tuple[int, ...]:
    """Who keeps a journal alive. Decides only when to try, never who is right."""
    while isinstance(store, SlotStore):
        numbers = slot_numbers(store, journal)
        if not numbers:
            return ()
        holders = store.lock_holders(slot_name(journal, numbers[-1]))
        if holders or slot_numbers(store, journal)[-1:] == numbers[-1:]:
            return holders  # or else it rolled over between the two looks
    if is_sealed(store, journal):
        return ()
    if not store.shared:
        return (os.getpid(),) if lives_here(store, journal) else ()
    return (-1,) if not listens or hears_beat(store, journal) else ()


def hears_beat(
    store: Store,
    journal: str,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether a new slot appears within three beats of our own clock: the owner lives. Object stores have no locks.

    What this process has seen before counts: whoever asks twice waits once.
    """
    newest, since_s = listen(store, journal, monotonic)
    if since_s is None or (place_of(store), journal) in _moved and monotonic() < since_s + BEAT_S:
        return not is_sealed(store, journal)
    while monotonic() < since_s + SILENT_BEATS * BEAT_S:
        sleep(BEAT_S / 5)
        if store.exists(slot_name(journal, newest + 1)):
            listen(store, journal, monotonic)
            return not is_sealed(store, journal)
    return False


_heard: dict[tuple[Hashable, str], tuple[int, float]] = {}
"""The newest slot of a journal, and since when it has been that, as far as this process saw."""

_moved: set[tuple[Hashable, str]] = set()
"""Journals that were seen to grow."""


def listen(store: Store, journal: str, monotonic: Callable[[], float] = time.monotonic) -> tuple[int, float | None]:
    """The newest slot of a journal, and since when it has been that; None: it came within three beats, just now."""
    known, _ = _heard.get((place_of(store), journal), (None, 0.0))
    newest = newest_slot(store, journal, known)
    return newest, note(store, journal, newest, monotonic)


def note(store: Store, journal: str, newest: int, monotonic: Callable[[], float] = time.monotonic) -> float | None:
    """Remember what was seen of a journal: whoever asks later whether it lives need not wait as long."""
    key, now_s = (place_of(store), journal), monotonic()
    known, since_s = _heard.get(key, (None, now_s))
    if newest == known:
        return since_s
    _heard[key] = newest, now_s
    if known is not None:
        _moved.add(key)
    return None if known is not None and now_s - since_s < SILENT_BEATS * BEAT_S else now_s


def seal(store: Store, journal: str, number: int, nonce: int, *, force: bool) -> bool:
    """End a journal: after this nothing is acknowledged in it. False: its owner wrote a slot meanwhile, so it lives.

    With ``force`` the slot behind that one is tried, and so on: the owner sees it after its next write.
    """
    while True:
        last = newest_slot(store, journal)
        try:
            if last >= 0 and ends_with_seal(store, journal, last):
                return True
        except FileNotFoundError:
            continue  # gc took it
        reach("takeover.seal.before")
        batch = seal_batch(number, nonce)
        if created(store, slot_name(journal, last + 1), batch):
            reach("takeover.seal.after")
            return True
        if not force:
            return is_sealed(store, journal)


def seal_after(store: Store, journal: str, number: int) -> None:
    """Add a Seal to a journal that is over."""
    created(store, slot_name(journal, number + 1), seal_batch(0, 0))
