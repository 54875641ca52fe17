"""Steps in arrays of a few fixed shapes, as CUDA graphs need them, on a CPU."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from llm_zoo import ADAPTERS

from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine.batch import SPAN, TILE, Arrays, arrays_of, bytes_of, send, tiles
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.graphs import GraphedSteps, shapes
from exoflow.llm.engine.plan import Chunk
from exoflow.llm.engine.request import Request

NAMES = [None, *ADAPTERS, None, "r8", "r33"]


class Repeated:
    """Captures as a GPU would, but what is repeated is computed again: it sees only what lies in the arrays."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        function()

        def replay() -> None:
            self.replayed += 1
            function()

        return replay


def with_graphs(engine: Engine) -> Repeated:
    runner, capture = engine._core._runner, Repeated()
    scratch = runner.pages * engine.config.block
    runner.graphs = GraphedSteps(runner.decoder, runner._ops, engine.config, capture, scratch=scratch)
    return capture


def asked(seed: int) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(256) for _ in range(chance.randint(1, 70))] for _ in NAMES]


def test_tokens_are_the_same_with_graphs_and_without(open_engine: Callable[..., Engine]) -> None:
    settings = {"max_batch": 9, "token_budget": 80, "max_context": 128}
    plain, graphed = open_engine(**settings), open_engine(**settings)
    capture = with_graphs(graphed)
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True)
    for seed in (0, 1):
        for one, other in zip(
            plain.generate(asked(seed), params, NAMES), graphed.generate(asked(seed), params, NAMES), strict=True
        ):
            assert one.token_ids == other.token_ids
    assert graphed.generate([1, 2, 3], params)[0].token_ids == plain.generate([1, 2, 3], params)[0].token_ids
    assert 4 <= capture.captured < capture.replayed


def test_after_a_warm_up_no_request_waits_for_a_graph(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(max_batch=9, token_budget=80, max_context=128)
    engine.warm_up()  # on a CPU there are no graphs
    capture = with_graphs(engine)
    engine.warm_up()
    captured = capture.captured
    assert captured == 3 * len(shapes(engine.config))
    engine.warm_up()
    engine.generate(asked(0), SamplingParams(max_tokens=8, temperature=0, ignore_eos=True), NAMES)
    assert capture.captured == captured


def test_rows_that_pad_a_step_change_no_page_that_somebody_owns(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(max_batch=9, token_budget=80, max_context=128)
    with_graphs(engine)
    pool = engine._core._runner.pool
    pool.fill_(7.0)
    engine.generate([1, 2, 3], SamplingParams(max_tokens=2, temperature=0, ignore_eos=True))  # no adapter is loaded
    changed = {page for _, page in (pool != 7.0).any(-1).nonzero().tolist()}
    assert len(changed) == 2
    assert engine._core._runner.pages in changed, "the page that nobody reads"


def test_scores_of_all_rows_are_computed_without_a_graph(open_engine: Callable[..., Engine]) -> None:
    plain, graphed = open_engine(max_batch=4, token_budget=80), open_engine(max_batch=4, token_budget=80)
    with_graphs(graphed)
    prompts = asked(2)
    for one, other in zip(plain.logits(prompts, NAMES), graphed.logits(prompts, NAMES), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def some_arrays(chance: random.Random, config: EngineConfig, *, decodes: bool) -> Arrays:
    chunks, budget = [], config.token_budget
    for _ in range(chance.randint(1, config.max_batch)):
        rows = min(1 if decodes or chance.random() < 0.6 else chance.randint(1, 300), budget)
        if rows:
            request = Request(tuple(range(chance.randint(rows, 400))), SamplingParams())
            request.pages = list(range(100))
            chunks.append(Chunk(request, len(request.prompt) - rows, rows))
            budget -= rows
    return arrays_of(chunks, [chance.randint(-1, 6) for _ in chunks], 4)


@pytest.mark.parametrize("seed", range(6))
def test_a_shape_holds_any_step_that_the_scheduler_plans(seed: int) -> None:
    chance = random.Random(seed)
    config = EngineConfig(max_batch=chance.choice([1, 7, 16, 40]), token_budget=chance.choice([64, 300, 1024, 5000]))
    found = shapes(config)
    assert len(found) < 60
    assert found[-1].rows >= config.token_budget
    for _ in range(30):
        decodes = chance.random() < 0.5
        arrays = some_arrays(chance, config, decodes=decodes)
        shape = next(shape for shape in found if shape.holds(arrays))
        assert shape.rows <= (len(arrays.tokens) + 7 if decodes else 1.13 * len(arrays.tokens) + SPAN)
        batch = send(arrays.padded(shape, 5), torch.device("cpu"))
        assert len(batch.tokens) == shape.rows
        assert batch.places[len(arrays.tokens) :].eq(5).all()
        for name in ("tokens", "places", "wanted", "tile_rows", "singles", "spans", "block_table"):
            array = getattr(arrays, name)
            assert np.array_equal(getattr(batch, name)[: len(array)].numpy(), array)
            assert getattr(batch, name).data_ptr() % 64 == 0 or name == "block_table"
        sent = send(arrays.padded(shape, 5), torch.device("cpu"), torch.zeros(bytes_of(shape, 100), dtype=torch.uint8))
        assert torch.equal(sent.block_table, batch.block_table)


def test_tiles_hold_each_row_of_an_adapter_once_and_no_row_of_the_base() -> None:
    slots = np.array([3] * 20 + [-1] * 5 + [0] * 16 + [3] * 14, dtype=np.int32)
    np.random.default_rng(0).shuffle(slots)
    tile_slots, tile_rows = tiles(slots)
    assert tile_slots.tolist() == [0, 3, 3, 3]
    assert tile_rows.shape == (4, TILE)
    for slot in (0, 3):
        rows = tile_rows[tile_slots == slot]
        assert sorted(rows[rows >= 0].tolist()) == np.flatnonzero(slots == slot).tolist()
