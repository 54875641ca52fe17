"""The operations for a CPU against the reference, and row by row against themselves."""

from __future__ import annotations

import random

import pytest
import torch
from kernel_world import EVEN, ODD, World, make_world, ranks_of

from exoflow.llm.engine.batch import send
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.ops.reference import ReferenceOps
from exoflow.llm.engine.ops.stacked import StackedOps

Sequences = list[tuple[int, int, int]]
RANKS = [1, 4, 8, 16, 33, 8, 16, 2]


def world_of(geometry: Geometry) -> World:
    world = make_world(geometry, pages=1000)
    for slot, rank in enumerate(RANKS):
        world.add(slot, ranks_of(geometry, rank, *(("q_proj", "down_proj") if slot == 6 else ())))
    return world


def operations(world: World, kind: type[ReferenceOps]) -> ReferenceOps:
    return kind(world.pool, world.tables, world.geometry, world.block)


def deltas(ops: ReferenceOps, world: World, sequences: Sequences, rows: torch.Tensor, group: int) -> torch.Tensor:
    """What ``lora`` adds; ``rows``: x of all sequences, one behind the other."""
    free = list(world.free)
    batch = send(world.arrays(sequences), torch.device("cpu"))
    world.free = free  # no KV is read here
    y = torch.zeros(len(rows), world.geometry.groups[group].outputs)
    ops.begin(batch)
    ops.lora(1, group, rows, y, batch)
    return y


def mixed(count: int, seed: int) -> Sequences:
    """Prompts and single tokens, adapters in no order, some without one."""
    chance = random.Random(seed)
    lengths = [chance.choice([1, 1, 1, 2, 17, 40]) for _ in range(count)]
    return [(rows + chance.randrange(5), rows, chance.randrange(-1, len(RANKS))) for rows in lengths]


@pytest.mark.parametrize("geometry", [EVEN, ODD])
@pytest.mark.parametrize("group", range(4))
def test_a_stack_adds_what_the_reference_adds(geometry: Geometry, group: int) -> None:
    world = world_of(geometry)
    ops, reference = operations(world, StackedOps), operations(world, ReferenceOps)
    for seed in range(3):
        sequences = mixed(12, seed)
        x = torch.randn(sum(rows for _, rows, _ in sequences), geometry.groups[group].inputs)
        found, expected = (deltas(each, world, sequences, x, group) for each in (ops, reference))
        assert (found - expected).abs().max() <= 1e-4


def test_a_rows_delta_has_the_same_bits_whatever_else_is_in_the_batch() -> None:
    world = world_of(EVEN)
    ops = operations(world, StackedOps)
    chance = random.Random(1)
    for slot in range(len(RANKS)):
        for rows in (1, 3, 20):
            mine = torch.randn(rows, 128)
            alone = deltas(operations(world, StackedOps), world, [(rows, rows, slot)], mine, 0)
            for seed in range(6):
                sequences = mixed(64, seed)
                place = chance.randrange(len(sequences))
                before = sum(count for _, count, _ in sequences[:place])
                others = torch.randn(sum(count for _, count, _ in sequences), 128)
                x = torch.cat([others[:before], mine, others[before:]])
                sequences.insert(place, (rows, rows, slot))
                found = deltas(ops, world, sequences, x, 0)[before : before + rows]
                assert torch.equal(found, alone)
            one_by_one = torch.cat([deltas(ops, world, [(9, 1, slot)], row[None], 0) for row in mine])
            assert (one_by_one - alone).abs().max() <= 1e-5  # a sequence's only row is no row of a tile
            if rows > 3:
                chunks = [deltas(ops, world, [(20, len(part), slot)], part, 0) for part in mine.split([17, 3])]
                assert torch.equal(torch.cat(chunks), alone)


@pytest.mark.parametrize("geometry", [EVEN, ODD])
def test_attention_of_single_rows_and_of_chunks_is_the_references(geometry: Geometry) -> None:
    world = world_of(geometry)
    ops, reference = operations(world, StackedOps), operations(world, ReferenceOps)
    sequences = [(30, 1, -1), (9, 1, 0), (40, 17, -1), (1, 1, 2), (64, 1, -1), (5, 3, 1), (7, 4, -1), (8, 8, 0)]
    short = [(each, rows, -1) for each in range(9, 40, 3) for rows in (2, 3, 4, 9)]
    for several in (sequences, [each for each in sequences if each[1] == 1], short):
        batch = send(world.arrays(several), torch.device("cpu"))
        q = torch.randn(batch.rows, geometry.heads, geometry.head_dim)
        found = []
        for each in (ops, reference):
            each.begin(batch)
            found.append(each.attend(0, q, batch))
        assert (found[0] - found[1]).abs().max() <= 1e-5
