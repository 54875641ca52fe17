"""Free what nobody needs: ended runs go from slots into packs, or away; values that no record names are deleted.

The order makes each step safe against a crash and against whoever reads at the same time: a pack is durable before a
slot is deleted, so a reader that misses a slot finds the run in a pack; a slot goes only if all before it are gone, so
what is left of a run lacks its Start and sends the reader to the pack; a run is deleted only behind a tomb, which
takers respect. One gc at a time.

In a bucket nobody can be kept from collecting at the same time, or from waking after a day in the middle of it. So
there nothing that was once free may be needed again: a journal goes whole, behind a mark (``ends``), but for its Seal,
which fences its owner; a run behind a claim (``graves``) that no taker can have too; a value if no other gc has moved
the records among which its name was looked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from exoflow.hooks import reach
from exoflow.journal import frames, packs
from exoflow.journal.ends import end_of, mark_end
from exoflow.journal.frames import Batch
from exoflow.journal.graves import alone, bury, fill_graves, is_dropped
from exoflow.journal.inbox import bells
from exoflow.journal.marks import is_being_forked, last_buried
from exoflow.journal.needed import unnamed
from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import claims
from exoflow.journal.records import Kind, decode
from exoflow.journal.retention import EndedRun, Keep, thin_packs
from exoflow.journal.scan import (
    History,
    ends_with_seal,
    is_sealed,
    journal_names,
    newest_slot,
    read_all,
    slot_name,
    slot_numbers,
)
from exoflow.journal.takeover import find, journal_processes, listen, seal, seal_after
from exoflow.protocols import SlotStore, Store


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
    seal: int | None = None
    """In a bucket: the slot that stays."""


def collect(store: Store, keep: Keep, dry_run: bool = False) -> Collected:
    """Pack the ended runs that ``keep`` wants, delete the others, and all that nothing needs any more.

    Only journals that are over are touched: sealed ones, and those whose owner is gone, which are sealed first.

    Raises:
        Conflict: another gc is at work. (Not in a bucket: there each does its part.)
        StorageError: the store failed; whatever was done so far is safe.
    """
    with alone(store):
        return _collect(store, keep, dry_run)


def _collect(store: Store, keep: Keep, dry_run: bool) -> Collected:
    values = store.list("values")
    if in_bucket(store):
        _listen_to_all(store)
    plans = [plan for plan in (_plan(store, name, keep, dry_run) for name in journal_names(store)) if plan is not None]
    packed = [each for plan in plans for each in plan.pack]
    dropped = [run_id for plan in plans for run_id, _ in plan.drop]
    slots = [slot_name(plan.journal, number) for plan in plans for number in plan.slots]
    if not dry_run:
        if packed:
            reach("gc.pack.before")
            packs.write_pack(store, f"packs/{os.urandom(8).hex()}", packed)
        for plan in plans:
            if plan.seal is not None:
                reach("gc.end.before")
                mark_end(store, plan.journal, plan.seal)
            else:
                _leave_seal(store, plan)
        for name in slots:
            reach("gc.slot.before")
            store.delete(name)
    dropped += thin_packs(store, keep, dry_run)
    if not dry_run:
        fill_graves(store)
    over = {plan.journal for plan in plans}
    writers = {journal for journal in {name.split("/")[1] for name in values} if _is_over(store, journal, over)}
    free = [name for name in values if name.split("/")[1] in writers]
    unused = unnamed(store, free, frozenset(slots), (data for _, data in packed))
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


def _listen_to_all(store: Store) -> None:
    """Each owner that is to be called dead has to be silent for three beats: let them be the same."""
    for journal in journal_names(store):
        with contextlib.suppress(FileNotFoundError):
            if not is_sealed(store, journal):
                listen(store, journal)


def _plan(store: Store, journal: str, keep: Keep, dry_run: bool) -> _Plan | None:
    try:
        if in_bucket(store):
            return _plan_whole(store, journal, keep, dry_run)
        numbers = slot_numbers(store, journal)
        if not numbers or _is_held(store, journal, numbers) or journal_processes(store, journal):
            return None
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
    for run, state in states.items():
        if isinstance(state, EndedRun) and min(reaches[run]) < blocked:
            whole = max(reaches[run]) < blocked
            _place(store, plan, run, state, histories[run], dry_run, stays=not whole or keep(state))
    return plan


def _plan_whole(store: Store, journal: str, keep: Keep, dry_run: bool) -> _Plan | None:
    """In a bucket: all slots below the Seal, or none."""
    if not is_sealed(store, journal):
        if journal_processes(store, journal):
            return None
        if not dry_run and not seal(store, journal, 0, 0, force=False):
            return None
    last = newest_slot(store, journal)
    if end_of(store, journal) is not None:  # what is still there was left by a gc that crashed, or came late
        left = [int(name.rpartition("/")[2]) for name in store.list(f"journals/{journal}")]
        plan = _Plan(journal, sorted(number for number in left if number != last), seal=last)
        return plan if plan.slots else None
    end = last if ends_with_seal(store, journal, last) else last + 1  # not there in a dry run
    histories = read_all(store, journal)
    states = {run: _state(store, journal, run, history) for run, (history, _) in histories.items()}
    if end == 0 or None in states.values():
        return None
    plan = _Plan(journal, list(range(end)), seal=end)
    for run, state in states.items():
        if isinstance(state, EndedRun):
            _place(store, plan, run, state, histories[run], dry_run, stays=keep(state))
    return plan


def _place(
    store: Store,
    plan: _Plan,
    run: int,
    state: EndedRun,
    found: tuple[History, tuple[int, int]],
    dry_run: bool,
    *,
    stays: bool,
) -> None:
    """An ended run goes, or into the pack."""
    if not stays and bury(store, state.run_id, state.epoch, dry_run):
        plan.drop.append((state.run_id, state.epoch))
    else:
        history, last_at = found
        place = packs.Packed("", state.run_id, state.epoch, plan.journal, run, True, *last_at, 0, 0)
        plan.pack.append((place, frames.pack_records(history.entries)))


def _state(store: Store, journal: str, run: int, history: History) -> EndedRun | str | None:
    """An ended run; the id of one whose newer epoch is durable elsewhere; None: this journal still needs it."""
    if not history.began or history.damaged or not history.entries:
        return "packed" if not history.began and not history.damaged else None
    start = decode(history.entries[0][0])
    run_id = str(start[2])
    known = claims(store, run_id)
    if is_dropped(known, next((each.epoch for each in known if (each.journal, each.run) == (journal, run)), 0)):
        return None if is_being_forked(store, run_id) else run_id
    newest = known[0]
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
