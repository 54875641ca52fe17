"""The journal of one process: records in durable order, and who owns which run."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from exoflow.errors import RunIsLive, RunNotFound
from exoflow.hooks import reach
from exoflow.journal import catalogue, frames
from exoflow.journal.marks import begin_fork, buried, end_fork, last_buried
from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import (
    NAME_BITS,
    Claim,
    claimed_ids,
    claims,
    create_claim,
    delete_claim,
    generated_id,
    journal_name,
    parse_id,
)
from exoflow.journal.records import Kind, encode
from exoflow.journal.remembered import remembered
from exoflow.journal.scan import Damaged, slot_numbers
from exoflow.journal.slots import SLOT_MAX_BYTES, Author, CreatedSlots, GrowingSlots, Slots
from exoflow.journal.takeover import BEAT_S, Found, Own, find, owner_processes, seal
from exoflow.journal.writer import LINGER_S, GroupCommit, Rested, again
from exoflow.protocols import Record, SlotStore, Store

REST_S = 300.0
"""For how long a process goes on saying that it lives when it has no run. In a bucket."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a claim: the id is ours, to be started as ``run`` in ``epoch``; or ``found`` says whose."""

    ours: bool
    epoch: int = 0
    run: int = 0
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """A run that is ours now, as ``run``, with all that was recorded of it before."""

    epoch: int
    run: int
    records: tuple[Record, ...]
    damaged: tuple[Damaged, ...]
    ended: bool
    """Whether it had ended: then it is adopted to be resumed after a failure."""
    torn_bytes: int


class Journal(GroupCommit):
    """A ``protocols.Log`` with ownership. Makes its first slot when something is written first; reading makes nothing.

    Args:
        process_info: what Open says of this process; msgpack data.
        entropy: ``entropy(n)`` gives n random bits.
        linger_s: see ``GroupCommit``.
    """

    def __init__(
        self,
        store: Store,
        *,
        process_info: object = None,
        entropy: Callable[[int], int] | None = None,
        linger_s: float | None = LINGER_S,
        slot_max_bytes: int = SLOT_MAX_BYTES,
    ) -> None:
        self._entropy = entropy or _entropy
        self._number = self._entropy(NAME_BITS)
        name = journal_name(self._number)
        if process_info is None:
            process_info = {"pid": os.getpid(), "host": os.uname().nodename}
        author = Author(name, self._number, process_info, self._entropy)
        slots: Slots
        if isinstance(store, SlotStore):
            slots, beat_s = GrowingSlots(store, author, slot_max_bytes), None
        else:
            slots, beat_s = CreatedSlots(store, author), BEAT_S if store.shared else None
        super().__init__(store, name, slots, linger_s=linger_s, beat_s=beat_s, rest_s=REST_S)
        self._run_numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"Journal({self.store.url!r}, {self.name!r})"

    def open(self) -> None:
        """Make the first slot now: others can then see that this process lives."""
        self._open()

    def new_run(self, flow_name: str) -> tuple[str, int, int]:
        """Id, epoch and index of a new run with a generated id. Nothing is written: it exists once it has a Start."""
        run = self._new_index()
        return generated_id(flow_name, self.name, run), 1, run

    def claim(self, run_id: str) -> Claimed:
        """Take an id that a user chose, if no run has it. Durable when it returns; then append Start, or ``abandon``.

        Raises:
            RunNotFound: the id has the form of a generated one, and no such run exists.
        """
        self._open()
        if in_bucket(self.store) and parse_id(run_id) is None:  # most ids are new: one request tells
            run = self._create_claim(run_id, 1)
            if run is not None:
                return Claimed(True, 1, run)
        while True:
            found = self.find(run_id)
            if found.state != "absent":
                return Claimed(False, found=found)
            newest = found.claim
            if newest is not None and parse_id(run_id) is not None and (newest.epoch == 1 or newest.is_grave):
                raise self.not_found(run_id, "it looks like an id that ExoFlow makes itself; choose another form")
            written = newest is not None and not newest.is_grave
            if newest is not None and written and not self._is_ours_or_sealed(newest.journal):
                continue
            if written and self.find(run_id).state != "absent":
                continue
            epoch = max(newest.epoch if newest is not None else 0, last_buried(self.store, run_id)) + 1
            run = self._create_claim(run_id, epoch)
            if run is not None:
                return Claimed(True, epoch, run)

    def _is_ours_or_sealed(self, journal: str) -> bool:
        return journal == self.name or self._seal(journal, force=False)

    def _create_claim(self, run_id: str, epoch: int) -> int | None:
        """The index of the run that is ours now; None: somebody else has the epoch."""
        run = self._new_index()
        reach("journal.claim.before")
        if create_claim(self.store, run_id, Claim(epoch, self.name, run)):
            reach("journal.claim.after")
            return run
        self.abandon(run)
        return None

    def abandon(self, run: int) -> None:
        """Give up a run that was claimed and not started: it never existed."""
        with self._lock:
            self._claimed_runs.discard(run)

    def find(self, run_id: str, *, listens: bool = True, store: Store | None = None) -> Found:
        """What the store says of a run now; ``listens``: see ``takeover.find``; ``store``: ours, as ``remembered``."""
        return find(store or self.store, run_id, self._own(), listens=listens)

    def adopt(self, run_id: str, takeover: bool = False) -> Adopted:
        """Take over a run whose owner is gone, or, with ``takeover``, from one that lives: it can record nothing more.

        Durable when it returns. A run of this journal can be adopted once it has ended.

        Raises:
            RunIsLive: its owner lives; ``processes`` names it.
            RunNotFound: there is no such run.
        """
        self._open()
        store = remembered(self.store)
        while True:
            found = self._secure(store, run_id, takeover)
            if found is None:
                continue
            assert found.claim is not None
            run = self._new_index()
            claim = Claim(found.claim.epoch + 1, self.name, run)
            reach("takeover.claim.before")
            if not create_claim(self.store, run_id, claim):
                self.abandon(run)
                continue
            reach("takeover.claim.after")
            if buried(self.store, run_id, found.epoch):
                self.abandon(run)
                delete_claim(self.store, run_id, claim)
                raise self.not_found(run_id, "gc is deleting it")
            raw = frames.pack_records(_with_damage(found, run))
            self.wait(self.append((Kind.ADOPTED, run, run_id, claim.epoch, raw)))
            ended = found.state == "ended"
            return Adopted(claim.epoch, run, found.records, found.damaged, ended, found.torn_bytes)

    def _secure(self, store: Store, run_id: str, takeover: bool) -> Found | None:
        """A run's records when nobody can add to them any more; None: somebody moved, look again."""
        known = claims(store, run_id)
        if not known:
            raise self.not_found(run_id)
        newest = known[0]
        if newest.is_grave:
            raise self.not_found(run_id, "gc has deleted it")
        alive = owner_processes(store, newest, self._own(), listens=not takeover)
        if alive:
            found = find(store, run_id, self._own(), listens=not takeover)
            if found.state == "live":
                if not takeover or newest.journal == self.name:
                    raise _is_live(found)
                self._seal(newest.journal, force=True, store=store)
            elif found.state == "broken_off" and found.history.released and found.claim == newest:
                return found  # released by a process that lives, and goes on with others
            elif found.state != "ended":
                return None
        elif not self._is_over(store, newest.journal) and not self._seal(newest.journal, force=False, store=store):
            return None
        reach("takeover.read.before")
        found = find(store, run_id, self._own())
        if found.state == "absent":
            raise self.not_found(run_id)
        return found if found.state != "live" and found.claim == newest else None

    def _is_over(self, store: Store, journal: str) -> bool:
        """Whether there is nothing to seal: our own journal, or one that gc has taken whole."""
        return journal == self.name or not slot_numbers(store, journal)

    def begin_fork(self, run_id: str, fork_id: str) -> None:
        """Keep gc from deleting a run, or its values, until a fork that names them has a durable Start: ``end_fork``.

        Raises:
            RunNotFound: gc is deleting it.
        """
        if not begin_fork(self.store, run_id, fork_id, self.name):
            raise self.not_found(run_id, "gc is deleting it")

    def end_fork(self, run_id: str, fork_id: str) -> None:
        """The fork's Start is durable, or there will be none."""
        end_fork(self.store, run_id, fork_id)

    def nearest(self, run_id: str) -> str | None:
        """The known run id that looks most like this one."""
        import difflib

        known = claimed_ids(self.store) | {run.run_id for run in self.runs()}
        return next(iter(difflib.get_close_matches(run_id, sorted(known), n=1)), None)

    def runs(self) -> Iterator[catalogue.Listed]:
        """Every run in the store, with the newest epoch's journal and state."""
        return catalogue.listed(self.store, self._own())

    def _own(self) -> Own:
        with self._lock:
            return Own(self.name, self._durable, frozenset(self._claimed_runs | self._open_runs))

    def _new_index(self) -> int:
        run = next(self._run_numbers)
        with self._lock:
            if isinstance(self._failure, Rested):
                raise again(self._failure)
            self._claimed_runs.add(run)
        return run

    def _seal(self, journal: str, *, force: bool, store: Store | None = None) -> bool:
        return seal(store or self.store, journal, self._number, self._entropy(64), force=force)

    def not_found(self, run_id: str, why: str = "") -> RunNotFound:
        """The error that says that there is no such run, and names the nearest id."""
        near = self.nearest(run_id)
        hint = f"; did you mean {near!r}?" if near and near != run_id else ""
        error = RunNotFound(f"no run {run_id!r} in {self.store.url}{hint}{f' ({why})' if why else ''}")
        error.run_id = run_id
        return error


def _with_damage(found: Found, run: int) -> list[frames.Entry]:
    """A run's records, and word of the damage among them: it is not copied, and the next owner has to know."""
    entries = list(found.history.entries)
    if found.damaged:
        where = [f"{d.journal}/{d.slot}:{d.offset}" for d in found.damaged]
        entries.append((encode((Kind.NOTE, run, "damaged", where)), run, Kind.NOTE))
    return entries


def _is_live(found: Found) -> RunIsLive:
    who = ", ".join(str(pid) if pid > 0 else "unknown" for pid in found.processes)
    error = RunIsLive(
        f"run {found.run_id!r} is live in process {who}: wait for it, or stop that process; if it is stuck or not the"
        " owner (a stray child can keep the lock), take the run away from it with takeover=True"
    )
    error.run_id, error.processes = found.run_id, found.processes
    return error


def _entropy(bits: int) -> int:
    return int.from_bytes(os.urandom(8), "big") >> (64 - bits)
