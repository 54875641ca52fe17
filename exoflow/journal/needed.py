"""Which values are needed: those that any record names."""

from __future__ import annotations

from collections.abc import Iterator

from exoflow.journal import frames, packs
from exoflow.journal.frames import Batch
from exoflow.journal.records import Kind, decode, value_names
from exoflow.journal.scan import journal_names, slot_name, slot_numbers
from exoflow.protocols import Store

_VALUES = b"values/"
"""What a record that names a value contains: the others need not be decoded."""


def named_values(store: Store, without: frozenset[str]) -> Iterator[str]:
    """The values that any record in any slot or pack names, whatever became of its run."""
    for journal in journal_names(store):
        for number in slot_numbers(store, journal):
            name = slot_name(journal, number)
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
