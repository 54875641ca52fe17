"""Carries adapters into the pool while the engine computes: from their directories, from host memory, into pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from exoflow.errors import AdapterError, LLMError
from exoflow.llm.engine.adapters.host import HostAdapter
from exoflow.llm.engine.adapters.store import AdapterStore
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.cores import one_core
from exoflow.llm.engine.residency import AdapterCost, Load


@dataclass(frozen=True, slots=True, eq=False)
class _Copied:
    adapter: HostAdapter
    """Kept until the copy has ended: a GPU reads its memory."""
    event: torch.cuda.Event | None


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """One load on its way."""

    load: Load
    _copied: Future[_Copied]

    def ready(self) -> bool:
        """The pages are filled, or never will be."""
        if not self._copied.done():
            return False
        if self._copied.exception() is not None:
            return True
        event = self._copied.result().event
        return event is None or bool(event.query())  # type: ignore[no-untyped-call]  # torch's

    @property
    def error(self) -> LLMError | None:
        """Why the pages could not be filled. Only once it is ready."""
        error = self._copied.exception(timeout=0)
        if error is None or isinstance(error, LLMError):
            return error
        failed = AdapterError(f"an adapter could not be brought into the pool: {type(error).__name__}: {error}")
        failed.__cause__ = error
        return failed

    @property
    def adapter(self) -> HostAdapter:
        return self._copied.result(timeout=0).adapter


class Transfer:
    """All loads on their way. ``begin`` and ``finished`` belong to the engine's thread.

    Args:
        pool: ``[layers, pages, page_elems]``.
        wake: called, from another thread, when a load has something to say: an engine that sleeps should look.
        threads: that read directories.
        filled: told of each load whose slot is in the tables now.
    """

    def __init__(
        self,
        store: AdapterStore,
        pool: Tensor,
        tables: AdapterTables,
        wake: Callable[[], None] = lambda: None,
        *,
        threads: int = 2,
        filled: Callable[[Load, HostAdapter], None] = lambda load, adapter: None,
    ) -> None:
        self._filled = filled
        self._store, self._pool, self._tables, self._wake = store, pool, tables, wake
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="adapters-read")
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="adapters-copy")  # what is near waits for no disk
        self._stream = torch.cuda.Stream(pool.device) if pool.is_cuda else None  # type: ignore[no-untyped-call]  # torch's
        self._tickets: list[Ticket] = []

    def cost(self, version: str) -> AdapterCost:
        return self._store.cost(version)

    def begin(self, load: Load) -> None:
        """Fill the pages of a load, without waiting for it."""
        before = None
        if self._stream is not None:  # kernels that were launched may still read what the pages held until now
            before = torch.cuda.current_stream(self._pool.device).record_event()
        executor = self._copier if self._store.in_host(load.version) else self._readers
        copied = executor.submit(self._carry, load, before)
        self._tickets.append(Ticket(load, copied))
        copied.add_done_callback(lambda copied: self._wake())

    def finished(self) -> list[tuple[str, LLMError | None]]:
        """Versions whose loads have ended since the last call, and why they failed if they did. The slots of the
        others are filled now.
        """
        ready = [ticket for ticket in self._tickets if ticket.ready()]
        self._tickets = [ticket for ticket in self._tickets if ticket not in ready]
        ended = [(ticket.load.version, ticket.error) for ticket in ready]
        for ticket, (_, error) in zip(ready, ended, strict=True):
            if error is None:
                load, adapter = ticket.load, ticket.adapter
                self._tables.fill(load.slot, adapter.layout, load.pages, adapter.scale)
                self._filled(load, adapter)
        return ended

    def __len__(self) -> int:
        """On their way."""
        return len(self._tickets)

    def close(self) -> None:
        """Waits for what is being copied; the rest is not begun."""
        for executor in (self._readers, self._copier):
            executor.shutdown(wait=True, cancel_futures=True)
        if self._stream is not None:
            self._stream.synchronize()

    def _carry(self, load: Load, before: torch.cuda.Event | None) -> _Copied:
        adapter = self._store.host(load.version)
        if self._stream is None:
            with one_core():
                for first, page, count in _runs(load.pages):
                    self._pool[:, page : page + count] = adapter.pages[:, first : first + count]
            return _Copied(adapter, None)
        assert before is not None
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(before)
            for first, page, count in _runs(load.pages):
                for layer, pages in enumerate(adapter.pages):  # only what lies together is one copy, without a detour
                    self._pool[layer, page : page + count].copy_(pages[first : first + count], non_blocking=True)
            return _Copied(adapter, self._stream.record_event())


def _runs(pages: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Pages that follow each other: the first's place in the list, the first, how many."""
    first = 0
    for index in range(1, len(pages) + 1):
        if index == len(pages) or pages[index] != pages[index - 1] + 1:
            yield first, pages[first], index - first
            first = index
