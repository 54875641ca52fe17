"""Loads are carried out beside the engine's thread; a slot is filled when its pages are, and never before."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from exoflow.errors import AdapterError, LLMError
from exoflow.llm.engine.adapters.packing import unpack
from exoflow.llm.engine.adapters.reading import AdapterReader
from exoflow.llm.engine.adapters.store import AdapterStore
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.adapters.transfer import Transfer
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.residency import Load

Write = Callable[..., Path]


class World:
    def __init__(self, reader: AdapterReader, store: AdapterStore, pages: int = 64) -> None:
        geometry = reader.geometry
        self.store = store
        self.pool = torch.full((geometry.layers, pages, reader.page_elems), 7.0)
        self.tables = AdapterTables(geometry, 4, reader.page_elems, reader.max_rank, self.pool.device)
        self.woken = threading.Semaphore(0)
        self.transfer = Transfer(store, self.pool, self.tables, wake=self.woken.release)

    def next(self) -> list[tuple[str, LLMError | None]]:
        self.woken.acquire()
        return self.transfer.finished()


@pytest.fixture
def world(reader: AdapterReader, store: AdapterStore) -> Iterator[World]:
    world = World(reader, store)
    yield world
    world.transfer.close()


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
    assert world.transfer.cost(ref.version) == world.store.cost(ref.version)
    world.transfer.begin(Load(ref.version, 2, tuple(pages)))
    assert world.next() == [(ref.version, None)] and len(world.transfer) == 0
    spec, host = reader.read(Path(world.store.adapters()[0].path))
    others = sorted(set(range(64)) - set(pages))
    assert torch.equal(world.pool[:, pages], host.pages) and (world.pool[:, others] == 7).all()
    tables = world.tables
    assert tables.pages[2, :count].tolist() == pages and tables.page_lists[2] == tuple(pages)
    assert tables.rank[2].tolist() == list(spec.ranks)
    assert torch.equal(tables.scale[:, 2], spec.scale) and not tables.scale[:, [0, 1, 3]].any()
    a, _ = unpack(tables.layouts[2], world.pool[:, pages], 1, "q_proj")
    assert torch.equal(a, unpack(host.layout, host.pages, 1, "q_proj")[0])


def test_a_failure_is_told_and_the_others_go_on(world: World, adapter: Write, edit: Callable[..., None]) -> None:
    world.store._host.capacity_bytes = 0
    broken, whole = adapter("broken"), adapter("whole", seed=1)
    bad, good = world.store.register("bad", broken), world.store.register("good", whole)
    edit(broken, r=3)
    pages = range(world.store.cost(bad.version).pages)
    world.transfer.begin(Load(bad.version, 0, tuple(pages)))
    world.transfer.begin(Load(good.version, 1, tuple(page + 20 for page in pages)))
    ended: dict[str, LLMError | None] = {}
    while len(ended) < 2:
        ended |= world.next()
    assert isinstance(ended[bad.version], AdapterError) and "load it again" in str(ended[bad.version])
    assert ended[good.version] is None
    assert 0 not in world.tables.layouts and 1 in world.tables.layouts


def test_a_version_that_was_forgotten_meanwhile_is_a_failure(world: World, adapter: Write) -> None:
    ref = world.store.register("pirate", adapter())
    world.store.unregister("pirate")
    world.transfer.begin(Load(ref.version, 0, (0,)))
    [(version, error)] = world.next()
    assert version == ref.version and isinstance(error, AdapterError)


def test_a_load_that_is_not_ready_is_not_told(world: World, adapter: Write) -> None:
    ref = world.store.register("pirate", adapter())
    entry = world.store._entries[ref.version]
    with entry.reading:  # somebody else reads it just now
        world.transfer.begin(Load(ref.version, 0, tuple(range(world.store.cost(ref.version).pages))))
        assert world.transfer.finished() == [] and len(world.transfer) == 1
        assert world.tables.layouts == {}
    assert world.next() == [(ref.version, None)]


def test_what_lies_in_host_memory_does_not_wait_for_what_must_be_read(world: World, adapter: Write) -> None:
    far = [world.store.register(f"far-{seed}", adapter(f"far-{seed}", seed=seed)).version for seed in range(3)]
    near = world.store.register("near", adapter("near", seed=3)).version
    count = world.store.cost(near).pages
    with ExitStack() as disk:
        for version in far:
            world.store._host.drop(version)
            disk.enter_context(world.store._entries[version].reading)  # a slow one
        for version in far:
            world.transfer.begin(Load(version, 0, tuple(range(count))))
        world.transfer.begin(Load(near, 1, tuple(range(count, 2 * count))))
        assert world.next() == [(near, None)] and len(world.transfer) == len(far)


def test_any_failure_is_told_as_the_engines_own(world: World, adapter: Write) -> None:
    ref = world.store.register("pirate", adapter())
    world.transfer.begin(Load(ref.version, 0, (63, 64)))  # there is no such page
    [(_, error)] = world.next()
    assert isinstance(error, AdapterError) and isinstance(error.__cause__, RuntimeError)
