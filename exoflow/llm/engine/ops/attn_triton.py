"""Attention over pages on a GPU: write KV, and attend one row of each sequence (decode), split over its context.

Flash-Decoding (Dao et al., 2023) over PagedAttention's pages (Kwon et al., SOSP '23). A split is always ``SPLIT``
tokens, so that a row's sum does not depend on the other sequences.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from exoflow.llm.engine.geometry import Geometry

SPLIT = 256
BLOCK_T = 64
MIN_DOT = 16
"""Rows that a dot needs at least."""


@triton.jit
def store_kv_kernel(
    k, v, places, pool, k_stride, v_stride, BLOCK: tl.constexpr, WIDTH: tl.constexpr, E: tl.constexpr, W2: tl.constexpr
):
    """Copy row i of k and v, ``WIDTH`` elements each, to token ``places[i] % BLOCK`` of page ``places[i] // BLOCK``."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.load(places + row)
    column = tl.arange(0, W2)
    inside = column < WIDTH
    target = pool + (place // BLOCK) * E + (place % BLOCK) * WIDTH + column
    tl.store(target, tl.load(k + row * k_stride + column, mask=inside), mask=inside)
    tl.store(target + BLOCK * WIDTH, tl.load(v + row * v_stride + column, mask=inside), mask=inside)


@triton.jit
def decode_kernel(
    q,
    pool,
    table,
    contexts,
    part,
    part_max,
    part_sum,
    scale,
    table_width,
    splits,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP16: tl.constexpr,
    DIM: tl.constexpr,
    DIM2: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """One split of one sequence for the query heads of one KV head.

    Shape: q ``[n, KV_HEADS * GROUP, DIM]``; part ``[n, splits, KV_HEADS * GROUP, DIM]`` float32, not yet divided by
    part_sum; part_max and part_sum ``[n, splits, KV_HEADS * GROUP]``.
    """
    sequence = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    split = tl.program_id(2)
    context = tl.load(contexts + sequence)
    begin = split * SPLIT
    if begin >= context:
        return
    end = tl.minimum(begin + SPLIT, context)
    g = tl.arange(0, GROUP16)
    d = tl.arange(0, DIM2)
    heads = head * GROUP + g
    real = (g < GROUP)[:, None] & (d < DIM)[None, :]
    queries = tl.load(q + (sequence * KV_HEADS * GROUP + heads[:, None]) * DIM + d[None, :], mask=real, other=0.0)
    best = tl.full((GROUP16,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((GROUP16,), dtype=tl.float32)
    acc = tl.zeros((GROUP16, DIM2), dtype=tl.float32)
    width: tl.constexpr = KV_HEADS * DIM
    for start in range(begin, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        seen = t < end
        page = tl.load(table + sequence * table_width + t // BLOCK, mask=seen, other=0).to(tl.int64)
        place = page * E + (t % BLOCK) * width + head * DIM
        inside = seen[:, None] & (d < DIM)[None, :]
        keys = tl.load(pool + place[:, None] + d[None, :], mask=inside, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, axis=1))
        weights = tl.exp(scores - higher[:, None])
        fade = tl.exp(best - higher)
        values = tl.load(pool + place[:, None] + BLOCK * width + d[None, :], mask=inside, other=0.0)
        acc = acc * fade[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        total = total * fade + tl.sum(weights, axis=1)
        best = higher
    place_out = (sequence * splits + split) * KV_HEADS * GROUP + heads
    tl.store(part + place_out[:, None] * DIM + d[None, :], acc, mask=real)
    tl.store(part_max + place_out, best, mask=g < GROUP)
    tl.store(part_sum + place_out, total, mask=g < GROUP)


@triton.jit
def combine_kernel(
    part,
    part_max,
    part_sum,
    contexts,
    out,
    splits,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM2: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """The splits of one head of one sequence, in order, into out ``[n, HEADS, DIM]``."""
    sequence = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    context = tl.load(contexts + sequence)
    d = tl.arange(0, DIM2)
    inside = d < DIM
    best = float("-inf")
    total = 0.0
    acc = tl.zeros((DIM2,), dtype=tl.float32)
    for split in range(tl.cdiv(context, SPLIT)):
        place = (sequence * splits + split) * HEADS + head
        here = tl.load(part_max + place)
        higher = tl.maximum(best, here)
        fade, weight = tl.exp(best - higher), tl.exp(here - higher)
        acc = acc * fade + weight * tl.load(part + place * DIM + d, mask=inside, other=0.0)
        total = total * fade + weight * tl.load(part_sum + place)
        best = higher
    target = out + (sequence * HEADS + head) * DIM + d
    tl.store(target, (acc / total).to(out.dtype.element_ty), mask=inside)


class AttentionKernels:
    """Launches over one pool."""

    def __init__(self, pool: Tensor, geometry: Geometry, block: int) -> None:
        self.pool, self.geometry, self.block = pool, geometry, block
        self._dim2 = triton.next_power_of_2(geometry.head_dim)

    def store(self, layer: int, k: Tensor, v: Tensor, places: Tensor) -> None:
        """k, v: ``[rows, kv_heads, head_dim]``, rows may be apart."""
        width = self.geometry.kv_heads * self.geometry.head_dim
        store_kv_kernel[(len(k),)](
            k,
            v,
            places,
            self.pool[layer],
            k.stride(0),
            v.stride(0),
            BLOCK=self.block,
            WIDTH=width,
            E=self.pool.shape[2],
            W2=triton.next_power_of_2(width),
        )

    def decode(self, layer: int, q: Tensor, table: Tensor, contexts: Tensor, most_context: int) -> Tensor:
        """One row of each sequence, ``[n, heads, head_dim]``; ``most_context``: of the longest."""
        geometry = self.geometry
        count, heads, dim = q.shape
        splits = triton.cdiv(most_context, SPLIT)
        part = torch.empty(count, splits, heads, dim, dtype=torch.float32, device=q.device)
        part_max, part_sum = torch.empty(2, count, splits, heads, dtype=torch.float32, device=q.device)
        out = torch.empty_like(q)
        group = heads // geometry.kv_heads
        decode_kernel[(count, geometry.kv_heads, splits)](
            q,
            self.pool[layer],
            table,
            contexts,
            part,
            part_max,
            part_sum,
            dim**-0.5,
            table.shape[1],
            splits,
            E=self.pool.shape[2],
            BLOCK=self.block,
            KV_HEADS=geometry.kv_heads,
            GROUP=group,
            GROUP16=max(MIN_DOT, triton.next_power_of_2(group)),
            DIM=dim,
            DIM2=max(MIN_DOT, self._dim2),
            SPLIT=SPLIT,
            BLOCK_T=BLOCK_T,
        )
        combine_kernel[(count, heads)](
            part, part_max, part_sum, contexts, out, splits, HEADS=heads, DIM=dim, DIM2=self._dim2, SPLIT=SPLIT
        )
        return out
