"""Delete runs so that nobody takes up half of one: one gc at a time, each run behind a tomb."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from exoflow.errors import Conflict, UnsupportedStore
from exoflow.hooks import reach
from exoflow.journal import inbox
from exoflow.journal.marks import dig, is_being_forked
from exoflow.journal.owners import claims, hashed
from exoflow.journal.takeover import history_of
from exoflow.protocols import SlotStore, Store

_one_process = threading.Lock()


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """A second gc is refused: it would take the first one's tombs for those of a dead one."""
    if not isinstance(store, SlotStore):
        if store.shared:
            raise UnsupportedStore(f"{store.url}: gc needs locks, which a bucket has not: nothing was deleted")
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


def fill_graves(store: Store) -> None:
    """Delete the owners of runs that are gone, then the tomb: also those that a gc left when it crashed."""
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
