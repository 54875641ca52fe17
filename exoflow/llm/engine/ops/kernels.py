"""The operations by Triton, for a GPU (and, under ``TRITON_INTERPRET=1``, for tests on a CPU)."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from exoflow.errors import LLMError
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import Batch
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.ops import norm_triton
from exoflow.llm.engine.ops.attn_triton import AttentionKernels
from exoflow.llm.engine.ops.lora_triton import LoraKernels
from exoflow.llm.engine.ops.reference import ReferenceOps


class TritonOps(ReferenceOps):
    """As ``ReferenceOps``; what is longer than one row of a sequence is attended by torch.

    Raises:
        LLMError: under the interpreter with another type than float32: it computes garbage there, without an error.
    """

    def __init__(self, pool: Tensor, tables: AdapterTables, geometry: Geometry, block: int, *, max_rows: int) -> None:
        if os.environ.get("TRITON_INTERPRET") == "1" and pool.dtype != torch.float32:
            raise LLMError(f"Triton's interpreter knows float32 only, not {pool.dtype}")
        super().__init__(pool, tables, geometry, block)
        self._lora = LoraKernels(pool, tables, max_rows)
        self._attention = AttentionKernels(pool, geometry, block)
        self._most_ranks = [0] * len(geometry.groups)
        self._singles: Tensor | None = None
        self._single_rows: Tensor | None = None
        self._most_context = 0

    def begin(self, batch: Batch) -> None:
        counts = np.diff(batch.starts)
        singles = np.flatnonzero(counts == 1)
        self._most_context = int(batch.contexts[singles].max()) if len(singles) else 0
        if len(singles) == len(counts):
            self._singles = self._single_rows = None
        else:
            self._singles = torch.from_numpy(singles).to(self.pool.device)
            self._single_rows = torch.from_numpy(batch.starts[singles].astype(np.int64)).to(self.pool.device)
        used = [self.tables.layouts[slot].ranks for slot in set(batch.slots.tolist()) if slot >= 0]
        first = 0
        for index, group in enumerate(self.geometry.groups):
            mine = slice(first, first + len(group.modules))
            self._most_ranks[index] = max((sum(ranks[mine]) for ranks in used), default=0)
            first += len(group.modules)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return norm_triton.norm(x, weight, eps)

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return norm_triton.rope(x, cos, sin)

    def silu_mul(self, x: Tensor) -> Tensor:
        return norm_triton.silu_mul(x)

    def store_kv(self, layer: int, k: Tensor, v: Tensor, batch: Batch) -> None:
        self._attention.store(layer, k, v, batch.places)

    def attend(self, layer: int, q: Tensor, batch: Batch) -> Tensor:
        if self._singles is None:
            return self._attention.decode(layer, q, batch.block_table, batch.context_lens, self._most_context)
        out = torch.empty_like(q)
        if len(self._singles):
            rows, singles = self._single_rows, self._singles
            out[rows] = self._attention.decode(
                layer, q[rows], batch.block_table[singles], batch.context_lens[singles], self._most_context
            )
        for index, context in enumerate(batch.contexts.tolist()):
            start, end = int(batch.starts[index]), int(batch.starts[index + 1])
            if end - start > 1:
                out[start:end] = self._attend_one(layer, q[start:end], batch.block_table[index], context)
        return out

    def lora(self, layer: int, group: int, x: Tensor, y: Tensor, batch: Batch) -> None:
        self._lora.add(layer, group, self.geometry.groups[group], x, y, batch, self._most_ranks[group])
