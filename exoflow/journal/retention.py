"""Which ended runs stay, and packs without the others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from exoflow.hooks import reach
from exoflow.journal import packs
from exoflow.journal.graves import bury, is_dropped
from exoflow.journal.marks import is_being_forked
from exoflow.journal.numbered import in_bucket
from exoflow.journal.owners import claims
from exoflow.protocols import Record, Store


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What retention decides on."""

    run_id: str
    epoch: int
    journal: str
    start: Record
    end: Record


Keep = Callable[[EndedRun], bool]


def thin_packs(store: Store, keep: Keep, dry_run: bool) -> list[str]:
    """Write packs anew without the runs that retention no longer wants; which these are."""
    dropped = []
    for pack in packs.pack_names(store):
        try:
            dropped += _thin(store, pack, keep, dry_run)
        except FileNotFoundError:
            continue  # another gc, in a bucket: it has made a newer one
    return dropped


def _thin(store: Store, pack: str, keep: Keep, dry_run: bool) -> list[str]:
    stay: list[tuple[packs.Packed, bytes]] = []
    gone: list[str] = []
    here = packs.packed_runs(store, pack)
    for packed in here:
        fate = _fate(store, packed, keep, dry_run)
        if fate == "stays":
            stay.append((packed, packs.packed_data(store, packed)))
        elif fate == "dropped":
            gone.append(packed.run_id)
    if len(stay) < len(here) and not dry_run:
        if stay:
            packs.write_pack(store, f"packs/{os.urandom(8).hex()}", stay)
        reach("gc.pack.delete")
        store.delete(pack)
    return gone


def _fate(store: Store, packed: packs.Packed, keep: Keep, dry_run: bool) -> str:
    known = claims(store, packed.run_id)
    if is_dropped(known, packed.epoch):  # and packed all the same, by a gc that had begun before
        return "stays" if is_being_forked(store, packed.run_id) else "forgotten"
    records = packs.history(store, packed).records()
    if not records or not (in_bucket(store) or known and known[0].epoch == packed.epoch):
        return "stays"
    run = EndedRun(packed.run_id, packed.epoch, packed.journal, records[0], records[-1])
    return "dropped" if not keep(run) and bury(store, run.run_id, run.epoch, dry_run) else "stays"
