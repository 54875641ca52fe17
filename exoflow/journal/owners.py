"""Which journal owns which epoch of a run: owners/H/K, and ids that tell it themselves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

import msgpack

from exoflow.errors import Corrupt
from exoflow.journal import numbered
from exoflow.journal.creation import created
from exoflow.protocols import Store

NAME_BITS = 60
_GENERATED = re.compile(r"(?P<flow>.+)-(?P<journal>[a-z2-7]{12})-(?P<run>[1-9][0-9]*)", re.DOTALL)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class Claim:
    """Epoch ``epoch`` of a run belongs to ``journal``, as its ``run``-th."""

    epoch: int
    journal: str
    run: int

    @property
    def is_grave(self) -> bool:
        """Nobody's: in a bucket gc has taken the epoch, and deletes all before it. Claims stay there for ever."""
        return not self.journal


def journal_name(number: int) -> str:
    """The number, of 60 bits, in twelve letters."""
    return base64.b32encode((number << 4).to_bytes(8, "big"))[:12].decode().lower()


def generated_id(flow: str, journal: str, run: int) -> str:
    return f"{_safe(flow)}-{journal}-{run}"


@lru_cache
def _safe(flow: str) -> str:
    return _UNSAFE.sub("_", flow).strip(".") or "flow"


def parse_id(run_id: str) -> Claim | None:
    """The first claim of a generated id; None for an id that a user chose."""
    match = _GENERATED.fullmatch(run_id)
    return Claim(1, match["journal"], int(match["run"])) if match else None


def hashed(run_id: str) -> str:
    return hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def claims(store: Store, run_id: str) -> list[Claim]:
    """All claims of a run, the newest first; the first of a generated id may never have begun."""
    folder = f"owners/{hashed(run_id)}"
    first = parse_id(run_id)
    found: list[Claim] = []
    if numbered.in_bucket(store):
        for epoch, data in numbered.read_on(store, folder, 1 if first is None else 2):
            found.insert(0, _parse(store, f"{folder}/{epoch}", epoch, data))
    else:
        for epoch in reversed(numbered.numbers(store, folder, 1)):
            name = f"{folder}/{epoch}"
            with contextlib.suppress(FileNotFoundError):  # gc deletes the run, oldest claim first
                found.append(_parse(store, name, epoch, store.read(name)))
    if first is not None and all(claim.epoch != 1 for claim in found):
        found.append(first)
    return found


def _parse(store: Store, name: str, epoch: int, data: memoryview) -> Claim:
    try:
        _, journal, run = msgpack.unpackb(data)
        return Claim(epoch, str(journal), int(run))
    except (ValueError, TypeError) as error:
        raise Corrupt(f"{store.url}: {name} is damaged ({error}): it is unknown who owns this run") from error


def create_claim(store: Store, run_id: str, claim: Claim) -> bool:
    """Take the epoch; whether it was free. A lost response is told from a lost race by what stands there."""
    data = msgpack.packb((run_id, claim.journal, claim.run))
    name = f"owners/{hashed(run_id)}/{claim.epoch}"
    return created(store, name, data)


def dig(store: Store, run_id: str, epoch: int) -> bool:
    """Take an epoch for gc. Whether it is a grave now, also where another gc was faster."""
    return create_claim(store, run_id, Claim(epoch, "", 0))


def delete_claim(store: Store, run_id: str, claim: Claim) -> None:
    """Take back a claim of our own under which nothing was recorded."""
    store.delete(f"owners/{hashed(run_id)}/{claim.epoch}")


def is_buried(store: Store, hash: str) -> bool:
    """Whether the newest claim of the run whose id has this hash is a grave. In a bucket."""
    names = store.list(f"owners/{hash}")
    newest = max(names, key=lambda name: int(name.rpartition("/")[2]), default=None)
    return newest is not None and _parse(store, newest, 0, store.read(newest)).is_grave


def claimed_ids(store: Store) -> set[str]:
    """Every run id that has an owner object."""
    found = set()
    for name in store.list("owners"):
        if name.endswith(("/1", "/2")):
            try:
                found.add(str(msgpack.unpackb(store.read(name))[0]))
            except (ValueError, TypeError, FileNotFoundError):
                continue
    return found
