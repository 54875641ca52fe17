"""Delete runs so that nobody takes up half of one: one gc at a time, each run behind a tomb.

In a bucket any number at a time, and instead of the tomb a claim that stays: takers and gc want the same object.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from exoflow.errors import Conflict
from exoflow.hooks import reach
from exoflow.journal import inbox, owners
from exoflow.journal.marks import dig, is_being_forked
from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import Claim, claims, hashed, is_buried
from exoflow.journal.scan import is_sealed
from exoflow.journal.takeover import history_of
from exoflow.protocols import SlotStore, Store

_one_process = threading.Lock()


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """A second gc is refused: it would take the first one's tombs for those of a dead one."""
    if in_bucket(store):
        yield  # there are no locks there: each step is safe whoever else collects, and however late it comes
        return
    if not isinstance(store, SlotStore):
        with _one_process:
            yield
        return
    numbers = [int(name.rpartition("/")[2]) for name in store.list("gc")]
    holders = [pid for number in numbers for pid in store.lock_holders(f"gc/{number}")]
    mine = max(numbers, default=0) + 1
    slot = None if holders else store.create_slot(f"gc/{mine}", b"")
    if slot is None:
        raise Conflict(f"{store.url}: another gc is at work (process {holders or 'unknown'}); let it finish")
    try:
        for number in numbers:
            store.delete(f"gc/{number}")
        yield
        store.delete(f"gc/{mine}")
    finally:
        slot.close()  # what is left of a gc that failed goes with the next one


def bury(store: Store, run_id: str, epoch: int, dry_run: bool) -> bool:
    """Whether the run may be deleted. Who finds the other's mark gives way: here, to takers and to forkers."""
    if in_bucket(store):
        return _claim_grave(store, run_id, epoch, dry_run)
    if dry_run:
        return not is_being_forked(store, run_id)
    reach("gc.tomb.before")
    tomb = dig(store, run_id, epoch)
    known = claims(store, run_id)
    if is_being_forked(store, run_id) or not known or known[0].epoch > epoch:
        store.delete(tomb)
        return False
    reach("gc.tomb.after")
    return True


def _claim_grave(store: Store, run_id: str, epoch: int, dry_run: bool) -> bool:
    """Take the epoch behind the newest, as a taker would: of both one gets it. What is forked now, goes later."""
    known = claims(store, run_id)
    newer = [claim for claim in known if claim.epoch > epoch]
    if any(claim.is_grave for claim in newer):
        return not is_being_forked(store, run_id)
    if not known or not all(_never_began(store, run_id, claim) for claim in newer) or is_being_forked(store, run_id):
        return False
    if dry_run:
        return True
    reach("gc.tomb.before")
    if not owners.dig(store, run_id, known[0].epoch + 1):
        return False
    reach("gc.tomb.after")
    return not is_being_forked(store, run_id)


def _never_began(store: Store, run_id: str, claim: Claim) -> bool:
    """Whether a claim has come to nothing, and can come to nothing any more."""
    return is_sealed(store, claim.journal) and history_of(store, run_id, claim) is None


def is_dropped(known: list[Claim], epoch: int) -> bool:
    """Whether an epoch lies in a grave. In a bucket; ``known`` are the run's claims."""
    return any(claim.is_grave and claim.epoch > epoch for claim in known)


def _empty_inboxes(store: Store) -> None:
    """Delete the messages to runs that are gone, in a bucket."""
    for hash in inbox.told(store):
        for name in inbox.names(store, hash):
            if is_buried(store, hash):  # else its id was taken anew, and these are for that run
                store.delete(name)


def fill_graves(store: Store) -> None:
    """Delete the owners of runs that are gone, then the tomb: also those that a gc left when it crashed."""
    if in_bucket(store):
        _empty_inboxes(store)
        return
    for tomb in store.list("tombs"):
        try:
            run_id = bytes(store.read(tomb)).decode("utf-8", "surrogatepass")
        except FileNotFoundError:
            continue
        last = int(tomb.rpartition("/")[2])
        left = [(claim, history_of(store, run_id, claim)) for claim in claims(store, run_id) if claim.epoch <= last]
        if any(claim.epoch == last and history is not None and history.began for claim, history in left):
            store.delete(tomb)  # the run is whole: a gc crashed before it took it
            continue
        if any(history is not None for _, history in left):
            continue  # an older epoch lies in a slot that cannot go yet, and must not come to life again
        for owner in store.list(f"owners/{hashed(run_id)}"):
            if int(owner.rpartition("/")[2]) <= last:
                store.delete(owner)
        inbox.empty(store, run_id)
        store.delete(tomb)
