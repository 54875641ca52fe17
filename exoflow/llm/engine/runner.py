"""One step on the device: a plan in, logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import make_batch
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.models.decoder import Decoder
from exoflow.llm.engine.ops import select
from exoflow.llm.engine.scheduler import Chunk


class Runner:
    """The weights, the pool and the operations on one device.

    Attributes:
        pool: ``[layers, pages, page_elems]``: KV and adapters.
    """

    def __init__(self, decoder: Decoder, config: EngineConfig, pages: int) -> None:
        geometry, device = decoder.geometry, decoder.embedding.device
        page_elems = geometry.page_elems(config.block)
        self.decoder = decoder
        self.device = device
        self.pool = torch.zeros(geometry.layers, pages, page_elems, dtype=decoder.embedding.dtype, device=device)
        self.tables = AdapterTables(geometry, config.adapter_slots, page_elems, config.max_rank, device)
        self._block = config.block
        self._ops = select(self.pool, self.tables, geometry, config.block, config.token_budget)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], slots: Sequence[int]) -> Tensor:
        """Compute the chunks; the logits of those that give a token, in their order (all rows of those that are
        scored).
        """
        batch = make_batch(chunks, slots, self._block, self.device)
        self._ops.begin(batch)
        return self.decoder.forward(batch, self._ops)
