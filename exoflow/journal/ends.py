"""Journals in a bucket of which gc has left the Seal only: ends/J says where that stands, before anything goes.

Nothing is ever created behind a Seal, so it is the last slot. Whoever has looked for slots looks here: if nothing is
said yet, nothing had gone when it looked. What a late write puts into a gap again is seen by nobody but gc.
"""

from __future__ import annotations

import msgpack

from exoflow.errors import Corrupt
from exoflow.protocols import Store


def mark_end(store: Store, journal: str, seal: int) -> None:
    """Say that only the Seal counts any more. Whoever else says it says the same."""
    store.create(_name(journal), msgpack.packb(seal))


def end_of(store: Store, journal: str) -> int | None:
    """The Seal's number; None: all slots are there.

    Raises:
        Corrupt: the mark is damaged.
    """
    try:
        data = store.read(_name(journal))
    except FileNotFoundError:
        return None
    try:
        return int(msgpack.unpackb(data))
    except (ValueError, TypeError) as error:
        raise Corrupt(
            f"{store.url}: {_name(journal)} is damaged ({error}): it names the last slot of a journal"
        ) from error


def emptied(store: Store) -> set[str]:
    """The journals that gc has emptied, or is about to."""
    return {name.rpartition("/")[2] for name in store.list("ends")}


def _name(journal: str) -> str:
    return f"ends/{journal}"
