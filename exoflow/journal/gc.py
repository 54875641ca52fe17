"""Free what nobody needs: ended runs go from slots into packs, or away; values that no record names are deleted.

The order makes each step safe against a crash and against whoever reads at the same time: a pack is durable before a
slot is deleted, so a reader that misses a slot finds the run in a pack; a slot goes only if all before it are gone, so
what is left of a run lacks its Start and sends the reader to the pack; a run is deleted only behind a tomb, which
takers respect. One gc at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from exoflow.hooks import reach
from exoflow.journal import frames, packs
from exoflow.journal.frames import Batch
from exoflow.journal.graves import alone, bury, fill_graves
from exoflow.journal.inbox import bells
from exoflow.journal.marks import last_buried
from exoflow.journal.needed import named_in, named_values
from exoflow.journal.owners import claims
from exoflow.journal.records import Kind, decode
from exoflow.journal.scan import (
    History,
    ends_with_seal,
    is_sealed,
    journal_names,
    read_all,
    slot_name,
    slot_numbers,
)
from exoflow.journal.takeover import find, journal_processes, seal, seal_after
from exoflow.protocols import Record, SlotStore, Store


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What retention decides on."""

    run_id: str
    epoch: int
    journal: str
    start: Record
    end: Record


Keep = Callable[[EndedRun], bool]


@dataclass(frozen=True, slots=True)
class Collected:
    """What gc did, or would do."""

    packed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(slots=True)
class _Plan:
    """For one journal that is over: which slots can go, and what becomes of their runs."""

    journal: str
    slots: list[int]
    pack: list[tuple[packs.Packed, bytes]] = field(default_factory=list)
    drop: list[tuple[str, int]] = field(default_factory=list)


def collect(store: Store, keep: Keep, dry_run: bool = False) -> Collected:
    """Pack the ended runs that ``keep`` wants, delete the others, and all that nothing needs any more.

    Only journals that are over are touched: sealed ones, and those whose owner is gone, which are sealed first.

    Raises:
        Conflict: another gc is at work.
        StorageError: the store failed; whatever was done so far is safe.
    """
    with alone(store):
        return _collect(store, keep, dry_run)


def _collect(store: Store, keep: Keep, dry_run: bool) -> Collected:
    values = store.list("values")
    plans = [plan for plan in (_plan(store, name, keep, dry_run) for name in journal_names(store)) if plan is not None]
    packed = [each for plan in plans for each in plan.pack]
    dropped = [run_id for plan in plans for run_id, _ in plan.drop]
    slots = [slot_name(plan.journal, number) for plan in plans for number in plan.slots]
    if not dry_run:
        if packed:
            reach("gc.pack.before")
            packs.write_pack(store, f"packs/{os.urandom(8).hex()}", packed)
        for plan in plans:
            _leave_seal(store, plan)
        for name in slots:
            reach("gc.slot.before")
            store.delete(name)
    dropped += _thin_packs(store, keep, dry_run)
    if not dry_run:
        fill_graves(store)
    named = set(named_values(store, frozenset(slots)))
    named.update(name for _, data in packed for name in named_in(data))
    over = {plan.journal for plan in plans}
    unused = [name for name in values if name not in named and _is_over(store, name.split("/")[1], over)]
    if not dry_run:
        for name in unused:
            reach("gc.value.before")
            store.delete(name)
        _delete_seals(store, journal_names(store))
        for journal, unheard in bells(store).items():
            if _is_over(store, journal, over):
                for name in unheard:
                    store.delete(name)
    return Collected(tuple(each.run_id for each, _ in packed), tuple(dropped), tuple(slots), tuple(unused))


def _plan(store: Store, journal: str, keep: Keep, dry_run: bool) -> _Plan | None:
    numbers = slot_numbers(store, journal)
    if not numbers or _is_held(store, journal, numbers) or journal_processes(store, journal):
        return None
    try:
        if not is_sealed(store, journal):
            if dry_run:
                pass
            elif not seal(store, journal, 0, 0, force=False):
                return None
        numbers = slot_numbers(store, journal)
        if numbers and _is_bare_seal(store, journal, numbers[-1]):
            numbers.pop()  # goes last of all, when no value needs to know that the journal is over
        return _plan_slots(store, journal, numbers, keep, dry_run) if numbers else None
    except FileNotFoundError:
        return None  # another gc is at work


def _plan_slots(store: Store, journal: str, numbers: list[int], keep: Keep, dry_run: bool) -> _Plan:
    histories = read_all(store, journal)
    states = {run: _state(store, journal, run, history) for run, (history, _) in histories.items()}
    reaches = _slots_of_runs(store, journal, numbers)
    blocked = min((min(reaches[run]) for run, state in states.items() if state is None), default=numbers[-1] + 1)
    plan = _Plan(journal, [number for number in numbers if number < blocked])
    if store.shared and not isinstance(store, SlotStore) and plan.slots[-1:] == numbers[-1:]:
        last = numbers[-1]
        if ends_with_seal(store, journal, last):
            plan.slots.pop()  # a zombie's next create must fail
    for run, state in states.items():
        if not isinstance(state, EndedRun) or min(reaches[run]) >= blocked:
            continue
        history, last_at = histories[run]
        whole = max(reaches[run]) < blocked
        if whole and not keep(state) and bury(store, state.run_id, state.epoch, dry_run):
            plan.drop.append((state.run_id, state.epoch))
        else:
            place = packs.Packed("", state.run_id, state.epoch, journal, run, True, *last_at, 0, 0)
            plan.pack.append((place, frames.pack_records(history.entries)))
    return plan


def _state(store: Store, journal: str, run: int, history: History) -> EndedRun | str | None:
    """An ended run; the id of one whose newer epoch is durable elsewhere; None: this journal still needs it."""
    if not history.began or history.damaged or not history.entries:
        return "packed" if not history.began and not history.damaged else None
    start = decode(history.entries[0][0])
    run_id = str(start[2])
    newest = claims(store, run_id)[0]
    epoch = newest.epoch
    if (newest.journal, newest.run) != (journal, run):
        if last_buried(store, run_id) >= epoch:
            return run_id
        found = find(store, run_id)
        epoch = found.epoch
        if (found.journal, found.run) != (journal, run):
            durable = epoch > 0 and _is_durable(store, found.journal, found.run, run_id, epoch)
            return run_id if durable else None
    if not history.ended:
        return None
    return EndedRun(run_id, epoch, journal, start, decode(history.entries[-1][0]))


def _is_durable(store: Store, journal: str, run: int, run_id: str, epoch: int) -> bool:
    """Whether an adoption would survive a power loss: its owner wrote on behind it, so its batch had been synced."""
    if not isinstance(store, SlotStore) or packs.find_packed(store, run_id, epoch) is not None:
        return True
    seen, writer = False, None
    for number in slot_numbers(store, journal):
        for batch in frames.batches(store.read(slot_name(journal, number))):
            if not isinstance(batch, Batch):
                continue
            writer = batch.writer if writer is None else writer
            if seen and batch.writer == writer:
                return True
            seen = seen or any(True for _ in frames.found(batch, run, {Kind.ADOPTED}))
    return False


def _slots_of_runs(store: Store, journal: str, numbers: Iterable[int]) -> dict[int, set[int]]:
    reaches: dict[int, set[int]] = {}
    for number in numbers:
        for batch in frames.batches(store.read(slot_name(journal, number))):
            if isinstance(batch, Batch):
                for item in frames.found(batch):
                    reaches.setdefault(item.run, set()).add(number)
    return reaches


def _thin_packs(store: Store, keep: Keep, dry_run: bool) -> list[str]:
    """Write packs anew without the runs that retention no longer wants."""
    dropped = []
    for pack in packs.pack_names(store):
        stay, gone = [], []
        for packed in packs.packed_runs(store, pack):
            records = packs.history(store, packed).records()
            known = claims(store, packed.run_id)
            run = EndedRun(packed.run_id, packed.epoch, packed.journal, records[0], records[-1]) if records else None
            newest = bool(known) and known[0].epoch == packed.epoch
            if run is not None and newest and not keep(run) and bury(store, run.run_id, run.epoch, dry_run):
                gone.append(packed.run_id)
            else:
                stay.append((packed, packs.packed_data(store, packed)))
        if gone and not dry_run:
            if stay:
                packs.write_pack(store, f"packs/{os.urandom(8).hex()}", stay)
            reach("gc.pack.delete")
            store.delete(pack)
        dropped += gone
    return dropped


def _is_over(store: Store, journal: str, over: set[str]) -> bool:
    """Whether a journal can name no value any more. One without slots may be about to make its first."""
    try:
        return journal in over or is_sealed(store, journal)
    except FileNotFoundError:
        return False


def _is_held(store: Store, journal: str, numbers: list[int]) -> bool:
    """Whether somebody holds a lock on any slot: an owner that was forced out and does not know it yet, say."""
    return isinstance(store, SlotStore) and any(store.lock_holders(slot_name(journal, number)) for number in numbers)


def _is_bare_seal(store: Store, journal: str, number: int) -> bool:
    if not ends_with_seal(store, journal, number):
        return False
    pieces = list(frames.batches(store.read(slot_name(journal, number))))
    return len(pieces) == 1


def _leave_seal(store: Store, plan: _Plan) -> None:
    """Put a Seal behind an owner's own, where that one's slot goes: it says that the values may go, too."""
    newest = slot_numbers(store, plan.journal)[-1:]
    if newest and newest[0] in plan.slots and store.list(f"values/{plan.journal}"):
        seal_after(store, plan.journal, newest[0])


def _delete_seals(store: Store, journals: list[str]) -> None:
    """A local journal that is over goes whole, once it has no values left. Seals of object stores stay for ever."""
    if not isinstance(store, SlotStore):
        return
    for journal in journals:
        numbers = slot_numbers(store, journal)
        if len(numbers) == 1 and _is_bare_seal(store, journal, numbers[0]) and not store.list(f"values/{journal}"):
            reach("gc.seal.before")
            store.delete(slot_name(journal, numbers[0]))
