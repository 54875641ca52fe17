"""The Triton kernels, run by Triton's interpreter, against the reference.

Not collected by itself: the interpreter must be asked for before Triton is imported, see test_kernels.py.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from kernel_world import EVEN, ODD, World, make_world, ranks_of

from exoflow.errors import LLMError
from exoflow.llm.engine.batch import Batch, send
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.graphs import GraphedSteps
from exoflow.llm.engine.models.decoder import Decoder, Layer
from exoflow.llm.engine.ops.kernels import TritonOps
from exoflow.llm.engine.ops.lora_triton import Tuning
from exoflow.llm.engine.ops.protocol import Ops
from exoflow.llm.engine.ops.reference import ReferenceOps
from exoflow.llm.engine.ops.stacked import StackedOps
from exoflow.llm.engine.plan import Chunk
from exoflow.llm.engine.request import Request, SamplingParams
from exoflow.llm.engine.runner import Runner

assert os.environ.get("TRITON_INTERPRET") == "1"
torch.set_num_threads(1)
CPU = torch.device("cpu")


def triton(world: World, splits: int = 2) -> TritonOps:
    tuning = Tuning(splits=splits)
    return TritonOps(world.pool, world.tables, world.geometry, world.block, max_rows=192, tuning=tuning)


def reference(world: World) -> ReferenceOps:
    return ReferenceOps(world.pool, world.tables, world.geometry, world.block)


def stacked(world: World) -> StackedOps:
    return StackedOps(world.pool, world.tables, world.geometry, world.block)


def add_some_adapters(world: World) -> None:
    """Ranks 1 to 33; modules that are missing; ranks that differ from module to module."""
    geometry = world.geometry
    world.add(0, ranks_of(geometry, 1))
    world.add(1, ranks_of(geometry, 33))
    world.add(2, ranks_of(geometry, 8, "q_proj", "k_proj", "v_proj", "o_proj"))
    world.add(3, ranks_of(geometry, 16, "k_proj", "up_proj"))
    world.add(4, {module.name: 3 + 5 * index for index, module in enumerate(geometry.modules)})
    world.add(5, ranks_of(geometry, 4, "v_proj", "gate_proj", "down_proj"))


def deltas(ops: Ops, world: World, batch: Batch, seed: int = 1) -> list[torch.Tensor]:
    """Of all groups in the last layer, added to random rows."""
    chance = torch.Generator().manual_seed(seed)
    ops.begin(batch)
    found = []
    for index, group in enumerate(world.geometry.groups):
        x = torch.randn(batch.rows, group.inputs, generator=chance)
        y = torch.randn(batch.rows, group.outputs, generator=chance)
        ops.lora(world.geometry.layers - 1, index, x, y, batch)
        found.append(y)
    return found


@pytest.mark.parametrize(("geometry", "splits"), [(EVEN, 2), (ODD, 3)])
def test_deltas_of_mixed_ranks_are_the_references(geometry: Geometry, splits: int) -> None:
    world = make_world(geometry)
    add_some_adapters(world)
    counts = [(slot, count) for slot, count in zip([0, 1, -1, 2, 3, 4, -1, 5], [1, 18, 2, 1, 5, 1, 1, 3], strict=True)]
    arrays = world.arrays([(20, count, slot) for slot, count in counts])
    batch = send(arrays, CPU)
    found = deltas(triton(world, splits), world, batch)
    expected = deltas(reference(world), world, batch)
    others = deltas(stacked(world), world, batch)
    for mine, right, other in zip(found, expected, others, strict=True):
        torch.testing.assert_close(mine, right, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(other, right, atol=2e-5, rtol=1e-5)


def test_rows_without_an_adapter_keep_their_bits() -> None:
    world = make_world()
    add_some_adapters(world)
    batch = send(world.arrays([(9, 1, -1), (9, 1, 1), (9, 2, -1)]), CPU)
    base = send(world.arrays([(9, 1, -1), (9, 1, -1), (9, 2, -1)]), CPU)
    for found, same in zip(deltas(triton(world), world, batch), deltas(triton(world), world, base), strict=True):
        assert torch.equal(found[[0, 2, 3]], same[[0, 2, 3]])
        assert not torch.equal(found[1], same[1])


@pytest.mark.parametrize("make", [triton, reference, stacked])
@pytest.mark.parametrize("geometry", [EVEN, ODD])
def test_a_rows_delta_has_the_same_bits_alone_and_among_64_others(
    make: Callable[[World], Ops], geometry: Geometry
) -> None:
    world = make_world(geometry)
    add_some_adapters(world)
    ops, group = make(world), geometry.groups[0]
    slots = [world.chance.choice([-1, 0, 1, 2, 4, 5]) for _ in range(65)]
    mine = 40
    slots[mine] = 4
    many, alone = (send(world.arrays([(3, 1, slot) for slot in each]), CPU) for each in (slots, [4]))
    x, y = torch.randn(65, group.inputs), torch.randn(65, group.outputs)
    x_alone, y_alone = x[mine : mine + 1].clone(), y[mine : mine + 1].clone()
    for rows, delta, batch in ((x, y, many), (x_alone, y_alone, alone)):
        ops.begin(batch)
        ops.lora(0, 0, rows, delta, batch)
    assert torch.equal(y[mine], y_alone[0])


@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_attention_is_the_references(group: int) -> None:
    geometry = Geometry(
        layers=2, hidden=64, heads=2 * group, kv_heads=2, head_dim=18 if group == 3 else 16, intermediate=64
    )
    world = make_world(geometry, block=8 if group != 2 else 4, seed=group)
    contexts = [(1, 1), (300, 1), (64, 40), (17, 1), (130, 20), (65, 2), (5, 5)]
    batch = send(world.arrays([(context, rows, -1) for context, rows in contexts]), CPU)
    q = torch.randn(batch.rows, geometry.heads, geometry.head_dim)
    found, expected = (ops.attend(1, q, batch) for ops in (triton(world), reference(world)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_decode_over_many_parts_is_the_references() -> None:
    world = make_world(Geometry(layers=1, hidden=64, heads=2, kv_heads=1, head_dim=16, intermediate=64), pages=900)
    batch = send(world.arrays([(context, 1, -1) for context in (700, 256, 257, 513, 4200)]), CPU)
    q = torch.randn(batch.rows, 2, 16)
    found, expected = (ops.attend(0, q, batch) for ops in (triton(world), reference(world)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_rows_attention_has_the_same_bits_alone_among_others_and_with_its_pages_elsewhere() -> None:
    world = make_world()
    ops = triton(world)
    sequences = [(300, 1, -1), (40, 1, -1), (530, 1, -1), (20, 20, -1)]
    arrays = world.arrays(sequences)
    q = torch.randn(len(arrays.tokens), 4, 32)
    together = ops.attend(0, q, send(arrays, CPU)).clone()
    for index in range(3):
        context = sequences[index][0]
        alone = world.arrays([(context, 1, -1)])
        old, new = (each[: -(-context // 8)] for each in (arrays.block_table[index], alone.block_table[0]))
        world.pool[:, new] = world.pool[:, old]
        assert torch.equal(ops.attend(0, q[index : index + 1], send(alone, CPU))[0], together[index])


def test_a_prompts_attention_has_the_same_bits_whole_and_in_chunks() -> None:
    world = make_world()
    ops = triton(world)
    whole = world.arrays([(150, 150, -1)])
    q = torch.randn(150, 4, 32)
    expected = ops.attend(0, q, send(whole, CPU)).clone()
    for start, end in ((0, 70), (70, 72), (72, 150)):
        part = world.arrays([(end, end - start, -1)])
        part.block_table[0, :] = whole.block_table[0, : part.block_table.shape[1]]
        assert torch.equal(ops.attend(0, q[start:end], send(part, CPU)), expected[start:end])


def test_kv_lies_where_the_reference_puts_it() -> None:
    one, other = make_world(ODD), make_world(ODD)
    batch = send(one.arrays([(20, 7, -1), (3, 1, -1)]), CPU)
    qkv = torch.randn(8, 8, 18)  # k and v are parts of wider rows
    for world, ops in ((one, triton(one)), (other, reference(other))):
        ops.store_kv(1, qkv[:, 4:6], qkv[:, 6:], batch)
        assert not torch.equal(world.pool, make_world(ODD).pool)
    assert torch.equal(one.pool, other.pool)


def test_norm_rotation_and_gate_are_the_references() -> None:
    world = make_world(ODD)
    ours, right = triton(world), reference(world)
    x, weight, gates = torch.randn(5, 72), torch.randn(72), torch.randn(3, 400)
    torch.testing.assert_close(ours.norm(x, weight, 1e-5), right.norm(x, weight, 1e-5))
    heads = torch.randn(5, 8, 18)[:, 2:6]
    torch.testing.assert_close(ours.norm(heads, weight[:18], 1e-5), right.norm(heads, weight[:18], 1e-5))
    for mine, expected in zip(
        ours.add_norm(x, x.flip(0), weight, 1e-5), right.add_norm(x, x.flip(0), weight, 1e-5), strict=True
    ):
        torch.testing.assert_close(mine, expected)
    cos, sin = torch.randn(2, 5, 9).repeat(1, 1, 2)
    torch.testing.assert_close(ours.rope(heads, cos, sin), right.rope(heads, cos, sin))
    torch.testing.assert_close(ours.silu_mul(gates), right.silu_mul(gates))


def test_the_interpreter_is_refused_what_it_computes_wrongly() -> None:
    world = make_world(dtype=torch.bfloat16)
    with pytest.raises(LLMError, match="float32 only"):
        triton(world)


def small_decoder(geometry: Geometry) -> Decoder:
    chance = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=chance) * size[-1] ** -0.5

    ones = torch.ones(geometry.hidden)
    layers = []
    for _ in range(geometry.layers):
        qkv, o, gate_up, down = (normal(group.outputs, group.inputs) for group in geometry.groups)
        layers.append(Layer((qkv, o, gate_up, down), (None, None, None, None), ones, ones, None, None))
    angles = (
        torch.arange(256)[:, None] * 10000 ** -(torch.arange(0, geometry.head_dim, 2) / geometry.head_dim)
    ).repeat(1, 2)
    tables = angles.cos(), angles.sin()
    return Decoder(
        geometry, normal(50, geometry.hidden), tuple(layers), ones, normal(50, geometry.hidden), *tables, 1e-5
    )


def repeat(function: Callable[[], None]) -> Callable[[], None]:
    function()
    return function


def test_whole_steps_by_the_kernels_in_the_arrays_of_graphs_are_the_references() -> None:
    config = EngineConfig(block=8, max_batch=4, token_budget=64, max_context=128, max_rank=33, adapter_slots=6)
    geometry = replace(EVEN, layers=1)  # the interpreter is slow
    decoder = small_decoder(geometry)
    plain, graphed = Runner(decoder, config, 400), Runner(decoder, config, 400)
    world = World(geometry, 8, plain.pool, plain.tables, list(range(400)), random.Random(0))
    add_some_adapters(world)
    for slot, layout in plain.tables.layouts.items():
        graphed.tables.fill(slot, layout, plain.tables.page_lists[slot], plain.tables.scale[:, slot])
    graphed.pool.copy_(plain.pool)
    graphed._ops = TritonOps(graphed.pool, graphed.tables, geometry, 8, max_rows=64, tuning=Tuning(splits=1))
    graphed.graphs = GraphedSteps(decoder, graphed._ops, config, repeat, scratch=400 * 8)
    requests = [Request(tuple(range(length)), SamplingParams()) for length in (10, 3, 5)]
    for request in requests:
        request.pages = world.take(6)
    slots = [0, -1, 2]
    prompts = [Chunk(request, 0, request.length) for request in requests]
    for chunks in (prompts, None):
        if chunks is None:
            for request in requests:
                request.output.append(7)
            chunks = [Chunk(request, request.length - 1, 1) for request in requests]
        torch.testing.assert_close(graphed.run(chunks, slots), plain.run(chunks, slots), atol=1e-4, rtol=1e-4)
    assert len(graphed.graphs) == 2


def test_groups_that_an_adapter_leaves_alone_are_known_by_its_slot() -> None:
    world = make_world()
    geometry = world.geometry
    world.add(2, ranks_of(geometry, 4, "q_proj", "o_proj"))
    world.add(3, ranks_of(geometry, 4, "down_proj"))
    world.add(4, ranks_of(geometry, 4))
    found = [world.tables.groups_of(slots) for slots in ([], [-1], [2, -1], [3], [3, 2], [4])]
    assert found == [0, 0, 0b0011, 0b1000, 0b1011, 0b1111]
    world.add(4, ranks_of(geometry, 4, "k_proj"))
    assert world.tables.groups_of([4, 4]) == 0b0001
