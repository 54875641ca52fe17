"""The operations by Triton, for a GPU (and, under ``TRITON_INTERPRET=1``, for tests on a CPU)."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from exoflow.errors import LLMError
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import Batch
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.ops import norm_triton
from exoflow.llm.engine.ops.attn_triton import AttentionKernels
from exoflow.llm.engine.ops.lora_triton import LoraKernels, Tuning


class TritonOps:
    """Nothing here asks the device for anything, and no launch depends on what the batch's arrays hold: only on their
    shapes. So a step can be captured.

    Raises:
        LLMError: under the interpreter with another type than float32: it computes garbage there, without an error.
    """

    def __init__(
        self,
        pool: Tensor,
        tables: AdapterTables,
        geometry: Geometry,
        block: int,
        *,
        max_rows: int,
        tuning: Tuning | None = None,
    ) -> None:
        if os.environ.get("TRITON_INTERPRET") == "1" and pool.dtype != torch.float32:
            raise LLMError(f"Triton's interpreter knows float32 only, not {pool.dtype}")
        self._lora = LoraKernels(pool, tables, max_rows, tuning)
        self._attention = AttentionKernels(pool, geometry, block)
        # Rows that pad a step are attended by nobody: what they are given are numbers, not what was in memory.
        self._attended = torch.zeros(max_rows, geometry.heads, geometry.head_dim, dtype=pool.dtype, device=pool.device)

    def begin(self, batch: Batch) -> None:
        pass

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return norm_triton.norm(x, weight, eps)

    def add_norm(self, x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        return norm_triton.add_norm(x, y, weight, eps)

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return norm_triton.rope(x, cos, sin)

    def silu_mul(self, x: Tensor) -> Tensor:
        return norm_triton.silu_mul(x)

    def store_kv(self, layer: int, k: Tensor, v: Tensor, batch: Batch) -> None:
        self._attention.store(layer, k, v, batch.places)

    def attend(self, layer: int, q: Tensor, batch: Batch) -> Tensor:
        out = self._attended[: len(q)]
        if len(batch.singles):
            self._attention.decode(layer, q, batch, out)
        if len(batch.spans):
            self._attention.prefill(layer, q, batch, out)
        return out  # until the next layer

    def lora(self, layer: int, group: int, x: Tensor, y: Tensor, batch: Batch) -> None:
        if batch.groups >> group & 1:
            self._lora.add(layer, group, x, y, batch)
