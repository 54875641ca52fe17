"""One step on the device: a plan in, logits out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from exoflow.errors import LLMError
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import Batch, arrays_of, send
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.graphs import Capture, CudaCapture, GraphedSteps, shapes
from exoflow.llm.engine.models.decoder import Decoder
from exoflow.llm.engine.ops import select
from exoflow.llm.engine.plan import Chunk


@contextmanager
def _memory(wanted: str) -> Iterator[None]:
    """Raises LLMError: there is not so much."""
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:  # torch's, by how much too much it is
        raise LLMError(f"{wanted} need more memory than can be had: {str(error).splitlines()[0]}") from error


class Runner:
    """The weights, the pool and the operations on one device.

    Attributes:
        pool: ``[layers, pages + 1, page_elems]``: KV and adapters, and behind them a page that nobody reads.
        pages: that can be used.
        computes_meanwhile: ``run`` gives back logits that are still being computed.

    Args:
        capture: how steps become graphs; None: by CUDA on a GPU, and not at all on a CPU.
    """

    def __init__(self, decoder: Decoder, config: EngineConfig, pages: int, capture: Capture | None = None) -> None:
        geometry, device = decoder.geometry, decoder.embedding.device
        page_elems = geometry.page_elems(config.block)
        self.decoder = decoder
        self.device = device
        self.pages = pages
        self.computes_meanwhile = device.type == "cuda"
        shape, dtype = (geometry.layers, pages + 1, page_elems), decoder.embedding.dtype
        with _memory(f"pages={pages} and block={config.block}"):
            self.pool = torch.zeros(shape, dtype=dtype, device=device)
        with _memory(f"adapter_slots={config.adapter_slots} and max_rank={config.max_rank}"):
            self.tables = AdapterTables(geometry, config.adapter_slots, page_elems, config.max_rank, device)
        self._block = config.block
        self._ops = select(self.pool, self.tables, geometry, config.block, shapes(config)[-1].rows)
        self.graphs: GraphedSteps | None = None
        if capture is None and device.type == "cuda":
            capture = CudaCapture(device)
        if capture is not None:
            self.graphs = GraphedSteps(decoder, self._ops, config, capture, scratch=pages * config.block)

    def run(self, chunks: Sequence[Chunk], slots: Sequence[int]) -> Tensor:
        """Compute the chunks; the logits of those that give a token, in their order (all rows of those that are
        scored). They are overwritten by the next step.
        """
        arrays = arrays_of(chunks, slots, self._block)
        groups = self.tables.groups_of(slots)
        logits = self.graphs.run(arrays, groups) if self.graphs is not None else None
        return self.compute(replace(send(arrays, self.device), groups=groups)) if logits is None else logits

    def warm_up(self) -> None:
        """Capture the graphs of all steps, where steps are graphs."""
        if self.graphs is not None:
            self.graphs.warm_up()

    @torch.inference_mode()
    def compute(self, batch: Batch) -> Tensor:
        """The logits of a batch that is on the device, launched kernel by kernel."""
        self._ops.begin(batch)
        return self.decoder.forward(batch, self._ops)

    def close(self) -> None:
        """End what lives outside this process: nothing."""
