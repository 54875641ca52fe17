"""Follow a journal in a bucket: one request tells that nothing has come, and what has come is read once."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from exoflow.journal import frames, takeover
from exoflow.journal.frames import NOWHERE, Batch
from exoflow.journal.records import OWNERSHIP, Kind
from exoflow.journal.scan import newest_slot, slot_name
from exoflow.protocols import Store


@dataclass(slots=True)
class News:
    """What has come."""

    kinds: dict[int, set[int]] = field(default_factory=dict)
    """Of the records of each run."""
    over: bool = False
    """The journal is sealed, or has been silent for three beats: whoever asks the store now need not wait long."""

    def concerns(self, run: int, kinds: Collection[int] | None = OWNERSHIP) -> bool:
        """Whether there may be such records of the run, here or elsewhere; None: of any kind."""
        return self.over or not self.kinds.get(run, set()).isdisjoint(kinds if kinds is not None else frozenset(Kind))


class Following:
    """A journal from its newest slot on. One thread at a time."""

    def __init__(self, store: Store, journal: str) -> None:
        self._store = store
        self.journal = journal
        self._newest = newest_slot(store, journal)
        self._heard_s = time.monotonic()

    def look(self) -> News:
        """What has come since the last look.

        Raises:
            StorageError: the store failed; look again.
        """
        news = News()
        while (data := self._read_next()) is not None:
            self._newest += 1
            self._heard_s = time.monotonic()
            takeover.note(self._store, self.journal, self._newest)
            for batch in frames.batches(data):
                if isinstance(batch, Batch):
                    for item in frames.found(batch):
                        news.kinds.setdefault(item.run, set()).add(item.kind)
                        news.over |= batch.first == NOWHERE and item.kind == Kind.SEAL
        if time.monotonic() - self._heard_s > takeover.SILENT_BEATS * takeover.BEAT_S:
            self._heard_s = time.monotonic()
            news.over = True
        return news

    def _read_next(self) -> memoryview | None:
        try:
            return self._store.read(slot_name(self.journal, self._newest + 1))
        except FileNotFoundError:
            return None
