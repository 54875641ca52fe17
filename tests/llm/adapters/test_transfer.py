"""Loads are carried out beside the engine's thread; a slot is filled when its pages are, and never before."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from exoflow.errors import AdapterError
from exoflow.llm.engine.adapters.packing import unpack
from exoflow.llm.engine.adapters.reading import AdapterReader
from exoflow.llm.engine.adapters.store import AdapterStore
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.adapters.transfer import Ticket, Transfers
from exoflow.llm.engine.models.geometry import Geometry
from exoflow.llm.engine.residency import Load

Write = Callable[..., Path]


class World:
    def __init__(self, reader: AdapterReader, store: AdapterStore, pages: int = 64) -> None:
        geometry = reader.geometry
        self.store = store
        self.pool = torch.full((geometry.layers, pages, reader.page_elems), 7.0)
        self.tables = AdapterTables(geometry, 4, reader.page_elems, reader.max_rank, self.pool.device)
        self.woken = threading.Semaphore(0)
        self.transfers = Transfers(store, self.pool, self.tables, wake=self.woken.release)

    def next(self) -> list[Ticket]:
        self.woken.acquire()
        return self.transfers.finished()


@pytest.fixture
def world(reader: AdapterReader, store: AdapterStore) -> Iterator[World]:
    world = World(reader, store)
    yield world
    world.transfers.close()


@pytest.mark.parametrize("order", ["in a row", "backwards", "scattered"])
@pytest.mark.parametrize("cached", [True, False])
def test_pages_and_slot_are_filled_wherever_the_pages_lie(
    world: World, tiny: Geometry, reader: AdapterReader, adapter: Write, order: str, cached: bool
) -> None:
    if not cached:
        world.store._host.capacity_bytes = 0
    ref = world.store.register("pirate", adapter(rank=9, alpha_pattern={"q_proj": 3}))
    count = world.store.cost(ref.version).pages
    assert count > 4
    pages = list(range(5, 5 + count))
    if order == "backwards":
        pages.reverse()
    elif order == "scattered":
        pages = random.Random(0).sample(range(64), count)
    ticket = world.transfers.begin(Load(ref.version, 2, tuple(pages)))
    assert world.next() == [ticket] and ticket.error is None and len(world.transfers) == 0
    spec, host = reader.read(Path(world.store.adapters()[0].path))
    others = sorted(set(range(64)) - set(pages))
    assert torch.equal(world.pool[:, pages], host.pages) and (world.pool[:, others] == 7).all()
    tables = world.tables
    assert tables.pages[2, :count].tolist() == pages and tables.page_lists[2] == tuple(pages)
    assert tables.rank[2].tolist() == list(spec.ranks)
    assert torch.equal(tables.scale[:, 2], spec.scale) and not tables.scale[:, [0, 1, 3]].any()
    a, _ = unpack(tables.layouts[2], world.pool[:, pages], 1, "q_proj")
    assert torch.equal(a, unpack(host.layout, host.pages, 1, "q_proj")[0])


def test_a_failure_is_kept_in_the_ticket_and_the_others_go_on(
    world: World, adapter: Write, edit: Callable[..., None]
) -> None:
    world.store._host.capacity_bytes = 0
    broken, whole = adapter("broken"), adapter("whole", seed=1)
    bad, good = world.store.register("bad", broken), world.store.register("good", whole)
    edit(broken, r=3)
    pages = range(world.store.cost(bad.version).pages)
    failed = world.transfers.begin(Load(bad.version, 0, tuple(pages)))
    begun = world.transfers.begin(Load(good.version, 1, tuple(page + 20 for page in pages)))
    ended: list[Ticket] = []
    while len(ended) < 2:
        ended += world.next()
    assert set(ended) == {failed, begun}
    assert isinstance(failed.error, AdapterError) and "load it again" in str(failed.error)
    assert begun.error is None
    assert 0 not in world.tables.layouts and 1 in world.tables.layouts and world.tables.generation == 1


def test_a_version_that_was_forgotten_meanwhile_is_a_failure(world: World, adapter: Write) -> None:
    ref = world.store.register("pirate", adapter())
    world.store.unregister("pirate")
    ticket = world.transfers.begin(Load(ref.version, 0, (0,)))
    assert world.next() == [ticket] and isinstance(ticket.error, AdapterError)


def test_a_load_that_is_not_ready_is_not_told(world: World, adapter: Write) -> None:
    ref = world.store.register("pirate", adapter())
    entry = world.store._entries[ref.version]
    with entry.reading:  # somebody else reads it just now
        ticket = world.transfers.begin(Load(ref.version, 0, tuple(range(world.store.cost(ref.version).pages))))
        assert not ticket.ready() and world.transfers.finished() == [] and len(world.transfers) == 1
        assert world.tables.generation == 0
    assert world.next() == [ticket]


def test_what_lies_in_host_memory_does_not_wait_for_what_must_be_read(world: World, adapter: Write) -> None:
    far = [world.store.register(f"far-{seed}", adapter(f"far-{seed}", seed=seed)).version for seed in range(3)]
    near = world.store.register("near", adapter("near", seed=3)).version
    count = world.store.cost(near).pages
    with ExitStack() as disk:
        for version in far:
            world.store._host.drop(version)
            disk.enter_context(world.store._entries[version].reading)  # a slow one
        late = [world.transfers.begin(Load(version, 0, tuple(range(count)))) for version in far]
        quick = world.transfers.begin(Load(near, 1, tuple(range(count, 2 * count))))
        assert world.next() == [quick] and not any(ticket.ready() for ticket in late)
