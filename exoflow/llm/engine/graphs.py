"""Steps as CUDA graphs: a few hundred kernels become one launch.

A graph repeats launches with the arguments that they had. So a step is copied into arrays of one of a few shapes that
always lie at the same place, and what the kernels do depends on what those arrays hold, not on who launches them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from exoflow.llm.engine.batch import (
    ALL_GROUPS,
    ATTENTION_GROUPS,
    SPAN,
    TILE,
    Arrays,
    Batch,
    Shape,
    arrays_of,
    bytes_of,
    send,
)
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.models.decoder import Decoder
from exoflow.llm.engine.ops.protocol import Ops


class Capture(Protocol):
    """How a function that only launches becomes something that can be repeated."""

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Run it, once and for good, and return what runs it again over whatever its tensors hold then."""
        ...


class CudaCapture:
    """By ``torch.cuda.CUDAGraph``. All graphs share one pool of memory: they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        with torch.cuda.device(self._device):
            here = torch.cuda.current_stream()
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                function()  # kernels are compiled and loaded: a capture may not do that
            here.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # thread_local: others may copy adapters meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                function()
        return graph.replay


def shapes(config: EngineConfig) -> list[Shape]:
    """All shapes, the smallest first: those of steps in which everybody decodes, then those with prompts."""
    decode = [1, 2, 4, *range(8, config.max_batch, 8), config.max_batch]
    found = [Shape(n, n, n, 0, n, n) for n in sorted(set(decode)) if n <= config.max_batch]
    rows = SPAN
    prompts: list[Shape] = []
    while not prompts or prompts[-1].rows < config.token_budget:
        n = min(rows, config.max_batch)
        prompts.append(Shape(rows, n, n, rows // SPAN + n, rows // TILE + n, n))
        rows += max(SPAN, 1 << (rows // 8).bit_length() - 1)  # an eighth at most is computed in vain
    return found + prompts


@dataclass(slots=True)
class _Graph:
    batch: Batch
    """Where it reads."""
    replay: Callable[[], None] | None = None


class GraphedSteps:
    """Steps by shape, with and without adapters. A graph is captured when it is first needed, which takes a moment.

    Args:
        scratch: a place for KV that nobody reads.
    """

    def __init__(self, decoder: Decoder, ops: Ops, config: EngineConfig, capture: Capture, *, scratch: int) -> None:
        self._decoder, self._ops, self._capture, self._scratch = decoder, ops, capture, scratch
        self.shapes = shapes(config)
        context = min(config.max_context or len(decoder.cos), len(decoder.cos))
        self._width = -(-context // config.block)
        device = decoder.embedding.device
        room = max(bytes_of(shape, self._width) for shape in self.shapes)
        self._room = torch.zeros(room, dtype=torch.uint8, device=device)
        self._table = torch.zeros(config.max_batch, self._width, dtype=torch.int32, device=device)
        self._logits = torch.zeros(config.max_batch, len(decoder.head), dtype=decoder.head.dtype, device=device)
        self._graphs: dict[tuple[Shape, int], _Graph] = {}
        self.last: Callable[[], None] | None = None
        """Does the last step on the device again. For measurements."""

    def __len__(self) -> int:
        """Captured so far."""
        return len(self._graphs)

    @torch.inference_mode()
    def run(self, arrays: Arrays, groups: int) -> Tensor | None:
        """Logits of the wanted rows, until the next run; None: no shape holds this step.

        Args:
            groups: that its adapters change, a bit each.
        """
        shape = next((shape for shape in self.shapes if shape.holds(arrays)), None)
        if shape is None:
            return None
        self._compute(shape, groups, arrays)
        return self._logits[: len(arrays.wanted)]

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Capture all now, with steps of nobody."""
        nothing = arrays_of([], [], 1)
        for shape in self.shapes:
            for groups in (0, ATTENTION_GROUPS, ALL_GROUPS):
                if (shape, groups) not in self._graphs:
                    self._compute(shape, groups, nothing)

    def _compute(self, shape: Shape, groups: int, arrays: Arrays) -> None:
        if groups & ~ATTENTION_GROUPS:
            groups = ALL_GROUPS  # most adapters change attention or everything: that makes three graphs of a shape
        elif groups:
            groups = ATTENTION_GROUPS
        graph = self._fill(shape, groups, arrays.padded(shape, self._scratch))
        if graph.replay is None:
            graph.replay = self._capture(lambda: self._forward(graph.batch))
        else:
            graph.replay()
        self.last = graph.replay

    def _fill(self, shape: Shape, groups: int, arrays: Arrays) -> _Graph:
        """The step lies where the graph reads it."""
        sent = send(arrays, self._room.device, self._room)
        count, width = arrays.block_table.shape
        self._table[:count, :width].copy_(sent.block_table)
        graph = self._graphs.get((shape, groups))
        if graph is None:
            graph = _Graph(replace(sent, block_table=self._table[: shape.sequences], groups=groups))
            self._graphs[shape, groups] = graph
        for name in ("starts", "contexts", "slots"):
            np.copyto(getattr(graph.batch, name), getattr(arrays, name))
        return graph

    def _forward(self, batch: Batch) -> None:
        self._ops.begin(batch)
        self._logits[: len(batch.wanted)] = self._decoder.forward(batch, self._ops)
