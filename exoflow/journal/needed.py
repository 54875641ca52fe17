"""Which values are needed: those that any record names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exoflow.journal import frames, packs
from exoflow.journal.ends import emptied
from exoflow.journal.frames import Batch
from exoflow.journal.numbered import in_bucket
from exoflow.journal.records import Kind, decode, value_names
from exoflow.protocols import Store

_VALUES = b"values/"
"""What a record that names a value contains: the others need not be decoded."""


def unnamed(store: Store, values: list[str], gone: frozenset[str], packed: Iterable[bytes]) -> list[str]:
    """The values that no record names. Their journals must be over before this is asked.

    Args:
        gone: slots that do not count.
        packed: records that do, and may not be in a pack yet.
    """
    before = _moves(store)
    try:
        named = set(named_values(store, gone))
    except FileNotFoundError:
        return []  # as below
    for data in packed:
        named.update(named_in(data))
    if _moves(store) != before:
        return []  # another gc moves records: perhaps from where we had not looked yet to where we had
    return [name for name in values if name not in named]


def _moves(store: Store) -> tuple[set[str], list[str]] | None:
    """What changes in a bucket when a gc moves records, before they go from where they were."""
    return (emptied(store), packs.pack_names(store)) if in_bucket(store) else None


def named_values(store: Store, without: frozenset[str]) -> Iterator[str]:
    """The values that any record in any slot or pack names, whatever became of its run."""
    for name in store.list("journals"):
        if name not in without:
            yield from _named_in_slot(store, name)
    for packed in packs.all_packed(store):
        yield from named_in(packs.packed_data(store, packed))


def _named_in_slot(store: Store, name: str) -> Iterator[str]:
    try:
        data = store.read(name)
    except FileNotFoundError:
        return
    for batch in frames.batches(data):
        if isinstance(batch, Batch):
            for item in frames.found(batch):
                yield from _named_by(bytes(item.data), item.kind)


def named_in(raw: bytes) -> Iterator[str]:
    """The values that records name which ``frames.pack_records`` made one."""
    for item in frames.unpack_records(raw):
        yield from _named_by(bytes(item.data), item.kind)


def _named_by(data: bytes, kind: int) -> Iterator[str]:
    if _VALUES not in data:
        return
    try:
        record = decode(data)
    except ValueError:
        return
    if kind == Kind.ADOPTED:
        yield from named_in(record[4])
    else:
        yield from value_names(record)
