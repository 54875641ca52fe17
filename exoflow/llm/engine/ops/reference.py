"""The operations in torch, on any device: slow and obvious. The others are tested against these."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exoflow.llm.engine.adapters.layout import Rows
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import Batch
from exoflow.llm.engine.geometry import Geometry


class ReferenceOps:
    """Loops over sequences and over tiles.

    Args:
        pool: ``[layers, pages, page_elems]``.
        tables: of the adapters in it.
        block: tokens in a page of KV.
    """

    def __init__(self, pool: Tensor, tables: AdapterTables, geometry: Geometry, block: int) -> None:
        self.pool = pool
        self.tables = tables
        self.geometry = geometry
        self.block = block
        self.kv_width = geometry.kv_heads * geometry.head_dim
        self._kv_elems = 2 * block * self.kv_width

    def begin(self, batch: Batch) -> None:
        pass

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight

    def add_norm(self, x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x = x + y
        return x, self.norm(x, weight, eps)

    def rope(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]

    def silu_mul(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate) * up

    def kv(self, layer: int) -> Tensor:
        """The pages as KV: ``[pages, 2, block, kv_heads * head_dim]``."""
        return self.pool[layer, :, : self._kv_elems].view(-1, 2, self.block, self.kv_width)

    def store_kv(self, layer: int, k: Tensor, v: Tensor, batch: Batch) -> None:
        pages, offsets = batch.places // self.block, batch.places % self.block
        kv = self.kv(layer)
        kv[pages, 0, offsets] = k.reshape(-1, self.kv_width)
        kv[pages, 1, offsets] = v.reshape(-1, self.kv_width)

    def attend(self, layer: int, q: Tensor, batch: Batch) -> Tensor:
        out = torch.empty_like(q)
        for index, context in enumerate(batch.contexts.tolist()):
            start, end = int(batch.starts[index]), int(batch.starts[index + 1])
            if end > start:
                out[start:end] = self._attend_one(layer, q[start:end], batch.block_table[index], context)
        return out

    def _attend_one(self, layer: int, q: Tensor, table: Tensor, context: int) -> Tensor:
        """The last rows of one sequence, ``[rows, heads, head_dim]``, over its whole context."""
        pages = table[: -(-context // self.block)].long()
        read = self.kv(layer).index_select(0, pages).transpose(0, 1)
        k, v = read.reshape(2, -1, self.geometry.kv_heads, self.geometry.head_dim)
        rows = len(q)
        seen = torch.ones(rows, context, dtype=torch.bool, device=q.device).tril(context - rows)
        q, k, v = (each[None].transpose(1, 2) for each in (q, k[:context], v[:context]))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        return out.transpose(1, 2)[0]

    def lora(self, layer: int, group: int, x: Tensor, y: Tensor, batch: Batch) -> None:
        for slot, rows in zip(batch.tile_slots.tolist(), batch.tile_rows, strict=True):
            if slot < 0:
                continue
            used = rows[rows >= 0]
            tile = x.new_zeros(len(rows), x.shape[1])
            tile[: len(used)] = x[used]
            column = 0
            for module in self.geometry.groups[group].modules:
                a, b, scale = self.matrices(layer, slot, module.name)
                delta = (tile @ a.T @ b) * scale
                y[used, column : column + module.outputs] += delta[: len(used)].to(y.dtype)
                column += module.outputs

    def matrices(self, layer: int, slot: int, module: str) -> tuple[Tensor, Tensor, float]:
        """A ``[rank, inputs]``, B transposed ``[rank, outputs]`` and the scale, read from the adapter's pages."""
        layout = self.tables.layouts[slot]
        pages = list(self.tables.page_lists[slot])
        space = self.pool[layer, pages].reshape(-1)
        found = {rows.matrix: _lines(space, rows) for rows in layout.rows() if rows.module.name == module}
        index = [each.name for each in self.geometry.modules].index(module)
        return found["A"], found["B"], float(self.tables.scale[layer, slot, index])


def _lines(space: Tensor, rows: Rows) -> Tensor:
    return space[rows.base : rows.base + rows.count * rows.stride].view(rows.count, rows.stride)[:, : rows.length]
