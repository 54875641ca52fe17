"""A pool with adapters and sequences in it, as the operations see it; for tests of operations only."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from exoflow.llm.engine.adapters.layout import AdapterLayout
from exoflow.llm.engine.adapters.packing import pack
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import Arrays, arrays_of
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.plan import Chunk
from exoflow.llm.engine.request import Request, SamplingParams

ODD = Geometry(layers=2, hidden=72, heads=4, kv_heads=2, head_dim=18, intermediate=200)
EVEN = Geometry(layers=2, hidden=128, heads=4, kv_heads=2, head_dim=32, intermediate=256)


@dataclass(slots=True)
class World:
    geometry: Geometry
    block: int
    pool: torch.Tensor
    tables: AdapterTables
    free: list[int]
    """Pages that nobody has yet, in no order."""
    chance: random.Random

    def add(self, slot: int, ranks: Mapping[str, int]) -> None:
        """A random adapter into a slot."""
        layout = AdapterLayout.of(self.geometry, ranks)
        matrices = {}
        for layer in range(self.geometry.layers):
            for module, rank in zip(self.geometry.modules, layout.ranks, strict=True):
                a = torch.randn(rank, module.inputs) * module.inputs**-0.5
                matrices[layer, module.name] = (a, torch.randn(module.outputs, rank))
        pages = self.take(layout.pages(self.tables.page_elems))
        packed = pack(layout, matrices, self.tables.page_elems, torch.float32)
        self.pool[:, pages] = packed.to(self.pool)
        scale = torch.rand(self.geometry.layers, len(self.geometry.modules)) + 0.5
        self.tables.fill(slot, layout, pages, scale)

    def take(self, count: int) -> list[int]:
        return [self.free.pop() for _ in range(count)]

    def arrays(self, sequences: Sequence[tuple[int, int, int]]) -> Arrays:
        """Of sequences ``(context, rows, slot)``; their pages are filled with KV."""
        chunks = []
        for context, rows, _ in sequences:
            request = Request(tuple(range(context)), SamplingParams())
            request.pages = self.take(-(-context // self.block))
            chunks.append(Chunk(request, context - rows, rows))
        return arrays_of(chunks, [slot for _, _, slot in sequences], self.block)


def make_world(
    geometry: Geometry = EVEN,
    *,
    block: int = 8,
    pages: int = 600,
    slots: int = 16,
    max_rank: int = 33,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> World:
    torch.manual_seed(seed)
    chance = random.Random(seed)
    elems = geometry.page_elems(block)
    pool = torch.randn(geometry.layers, pages, elems, device=device).to(dtype)
    order = list(range(pages))
    chance.shuffle(order)
    tables = AdapterTables(geometry, slots, elems, max_rank, torch.device(device))
    return World(geometry, block, pool, tables, order, chance)


def ranks_of(geometry: Geometry, rank: int, *names: str) -> dict[str, int]:
    """This rank for modules of these names; all if none is named."""
    return {module.name: rank for module in geometry.modules if not names or module.name in names}
