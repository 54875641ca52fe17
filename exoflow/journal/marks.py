"""Marks by which gc, takers and forkers see each other.

Each creates its own, then looks for the other's; who finds one gives way.
"""

from __future__ import annotations

from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import claims, hashed
from exoflow.journal.scan import is_sealed, slot_numbers
from exoflow.protocols import Store


def buried(store: Store, run_id: str, epoch: int) -> bool:
    """Whether gc has begun to delete this epoch of a run and all before it."""
    return last_buried(store, run_id) >= epoch


def last_buried(store: Store, run_id: str) -> int:
    """The newest epoch that gc is deleting, or 0."""
    if in_bucket(store):
        return 0  # there gc claims what it deletes, as takers do
    return max((int(name.rpartition("/")[2]) for name in store.list(f"tombs/{hashed(run_id)}")), default=0)


def dig(store: Store, run_id: str, epoch: int) -> str:
    """Say that gc deletes this epoch and all before it; the mark's name."""
    name = f"tombs/{hashed(run_id)}/{epoch}"
    store.create(name, run_id.encode("utf-8", "surrogatepass"))
    return name


def begin_fork(store: Store, run_id: str, fork_id: str, journal: str) -> bool:
    """Say that a fork is about to name the run's values; whether it may."""
    store.create(_fork_mark(run_id, fork_id), journal.encode())
    known = claims(store, run_id) if in_bucket(store) else []
    if known[0].is_grave if known else store.list(f"tombs/{hashed(run_id)}"):
        end_fork(store, run_id, fork_id)
        return False
    return True


def end_fork(store: Store, run_id: str, fork_id: str) -> None:
    store.delete(_fork_mark(run_id, fork_id))


def is_being_forked(store: Store, run_id: str) -> bool:
    """Whether somebody forks the run now. Marks of those that died are cleared away."""
    found = False
    for name in store.list(f"forks/{hashed(run_id)}"):
        try:
            journal = bytes(store.read(name)).decode()
        except FileNotFoundError:
            continue
        if slot_numbers(store, journal) and is_sealed(store, journal):
            store.delete(name)
        else:
            found = True
    return found


def _fork_mark(run_id: str, fork_id: str) -> str:
    return f"forks/{hashed(run_id)}/{hashed(fork_id)}"
