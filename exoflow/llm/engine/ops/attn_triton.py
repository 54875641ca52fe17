"""Attention over pages on a GPU: write KV, attend one row of a sequence (decode), attend many (prefill).

Decode is Flash-Decoding (Dao et al., 2023), prefill FlashAttention (Dao, 2023), both over PagedAttention's pages
(Kwon et al., SOSP '23). How a row's context is cut depends on its length alone, so a row's sum does not depend on the
other sequences; and grids depend on the shapes of a batch, never on its contexts, so that a captured graph serves any.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from exoflow.llm.engine.batch import SPAN, Batch
from exoflow.llm.engine.geometry import Geometry

SPLITS = 16
"""Parts of a context at most."""
LEAST_PART = 256
"""Tokens in a part at least: what a part leaves behind should be small beside what it reads."""
BLOCK_T = 64
MIN_DOT = 16
"""Rows that a dot needs at least."""


@triton.jit
def store_kv_kernel(
    k,
    v,
    places,
    pool,
    K_STRIDE: tl.constexpr,
    V_STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    E: tl.constexpr,
    W2: tl.constexpr,
):
    """Copy row i of k and v, ``WIDTH`` elements each, to token ``places[i] % BLOCK`` of page ``places[i] // BLOCK``."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.load(places + row)
    column = tl.arange(0, W2)
    inside = column < WIDTH
    target = pool + (place // BLOCK) * E + (place % BLOCK) * WIDTH + column
    tl.store(target, tl.load(k + row * K_STRIDE + column, mask=inside), mask=inside)
    tl.store(target + BLOCK * WIDTH, tl.load(v + row * V_STRIDE + column, mask=inside), mask=inside)


@triton.jit
def part_length(context, SPLITS: tl.constexpr, LEAST_PART: tl.constexpr, BLOCK_T: tl.constexpr):
    """Tokens in each part of a context, so that there are at most ``SPLITS``."""
    return tl.maximum(LEAST_PART, tl.cdiv(tl.cdiv(context, SPLITS), BLOCK_T) * BLOCK_T)


@triton.jit(do_not_specialize=["table_width"])
def decode_kernel(
    q,
    pool,
    table,
    table_width,
    contexts,
    starts,
    singles,
    part,
    part_max,
    part_sum,
    SCALE: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP16: tl.constexpr,
    DIM: tl.constexpr,
    DIM2: tl.constexpr,
    SPLITS: tl.constexpr,
    LEAST_PART: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """One part of the context of one sequence, for the query heads of one KV head.

    Shape: q ``[rows, KV_HEADS * GROUP, DIM]``; part ``[singles, SPLITS, KV_HEADS * GROUP, DIM]`` float32, not yet
    divided by part_sum; part_max (of scores in base 2) and part_sum ``[singles, SPLITS, KV_HEADS * GROUP]``.
    """
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    split = tl.program_id(2)
    sequence = tl.load(singles + index)
    if sequence < 0:
        return
    context = tl.load(contexts + sequence)
    length = part_length(context, SPLITS, LEAST_PART, BLOCK_T)
    begin = split * length
    if begin >= context:
        return
    end = tl.minimum(begin + length, context)
    row = tl.load(starts + sequence).to(tl.int64)
    pages = table + sequence.to(tl.int64) * table_width
    g = tl.arange(0, GROUP16)
    d = tl.arange(0, DIM2)
    heads = head * GROUP + g
    real = (g < GROUP)[:, None] & (d < DIM)[None, :]
    queries = tl.load(q + (row * KV_HEADS * GROUP + heads[:, None]) * DIM + d[None, :], mask=real, other=0.0)
    best = tl.full((GROUP16,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((GROUP16,), dtype=tl.float32)
    acc = tl.zeros((GROUP16, DIM2), dtype=tl.float32)
    WIDTH: tl.constexpr = KV_HEADS * DIM
    for start in range(begin, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        seen = t < end
        page = tl.load(pages + t // BLOCK, mask=seen, other=0).to(tl.int64)
        place = page * E + (t % BLOCK) * WIDTH + head * DIM
        inside = seen[:, None] & (d < DIM)[None, :]
        keys = tl.load(pool + place[:, None] + d[None, :], mask=inside, other=0.0)
        values = tl.load(pool + place[:, None] + BLOCK * WIDTH + d[None, :], mask=inside, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * SCALE
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, axis=1))
        weights = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(best - higher)
        acc = tl.dot(weights.to(values.dtype), values, acc * fade[:, None], input_precision="ieee")
        total = total * fade + tl.sum(weights, axis=1)
        best = higher
    place_out = (index * SPLITS + split) * KV_HEADS * GROUP + heads
    tl.store(part + place_out[:, None] * DIM + d[None, :], acc, mask=real)
    tl.store(part_max + place_out, best, mask=g < GROUP)
    tl.store(part_sum + place_out, total, mask=g < GROUP)


@triton.jit
def combine_kernel(
    part,
    part_max,
    part_sum,
    contexts,
    starts,
    singles,
    out,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM2: tl.constexpr,
    SPLITS: tl.constexpr,
    LEAST_PART: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The parts of one head of one sequence into its row of out ``[rows, HEADS, DIM]``."""
    index = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    sequence = tl.load(singles + index)
    if sequence < 0:
        return
    context = tl.load(contexts + sequence)
    split = tl.arange(0, SPLITS)
    here = split * part_length(context, SPLITS, LEAST_PART, BLOCK_T) < context
    d = tl.arange(0, DIM2)
    inside = d < DIM
    place = (index * SPLITS + split) * HEADS + head
    highest = tl.load(part_max + place, mask=here, other=float("-inf"))
    weight = tl.exp2(highest - tl.max(highest, axis=0))
    total = tl.sum(weight * tl.load(part_sum + place, mask=here, other=0.0), axis=0)
    parts = tl.load(part + place[:, None] * DIM + d[None, :], mask=here[:, None] & inside[None, :], other=0.0)
    result = tl.sum(parts * weight[:, None], axis=0) / total
    row = tl.load(starts + sequence).to(tl.int64)
    tl.store(out + (row * HEADS + head) * DIM + d, result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["table_width"])
def prefill_kernel(
    q,
    pool,
    table,
    table_width,
    contexts,
    starts,
    spans,
    out,
    SCALE: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    DIM2: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Up to ``SPAN`` rows of one sequence, one query head; each sees what is before it and itself.

    Shape: q and out ``[rows, KV_HEADS * GROUP, DIM]``; spans ``[n, 2]``: the sequence, and the first of its rows.
    """
    span = tl.program_id(0)
    head = tl.program_id(1)
    sequence = tl.load(spans + span * 2)
    if sequence < 0:
        return
    first = tl.load(spans + span * 2 + 1)
    begin = tl.load(starts + sequence)
    count = tl.load(starts + sequence + 1) - begin
    context = tl.load(contexts + sequence)
    pages = table + sequence.to(tl.int64) * table_width
    i = first + tl.arange(0, SPAN)
    position = context - count + i
    rows = (begin + i).to(tl.int64)
    d = tl.arange(0, DIM2)
    real = (i < count)[:, None] & (d < DIM)[None, :]
    at = (rows[:, None] * (KV_HEADS * GROUP) + head) * DIM + d[None, :]
    queries = tl.load(q + at, mask=real, other=0.0)
    best = tl.full((SPAN,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((SPAN,), dtype=tl.float32)
    acc = tl.zeros((SPAN, DIM2), dtype=tl.float32)
    WIDTH: tl.constexpr = KV_HEADS * DIM
    end = tl.minimum(context, context - count + first + SPAN)
    for start in range(0, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        page = tl.load(pages + t // BLOCK, mask=t < end, other=0).to(tl.int64)
        place = page * E + (t % BLOCK) * WIDTH + head // GROUP * DIM
        inside = (t < end)[:, None] & (d < DIM)[None, :]
        keys = tl.load(pool + place[:, None] + d[None, :], mask=inside, other=0.0)
        values = tl.load(pool + place[:, None] + BLOCK * WIDTH + d[None, :], mask=inside, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * SCALE
        seen = (t[None, :] <= position[:, None]) & (t < end)[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, axis=1))
        weights = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(best - higher)
        acc = tl.dot(weights.to(values.dtype), values, acc * fade[:, None], input_precision="ieee")
        total = total * fade + tl.sum(weights, axis=1)
        best = higher
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=real)


class AttentionKernels:
    """Launches over one pool."""

    def __init__(self, pool: Tensor, geometry: Geometry, block: int) -> None:
        self.pool, self.block = pool, block
        self.kv_heads, self.heads, self.dim = geometry.kv_heads, geometry.heads, geometry.head_dim
        self.group = geometry.heads // geometry.kv_heads
        self._dim2 = max(MIN_DOT, triton.next_power_of_2(self.dim))
        self._shape = {
            "SCALE": self.dim**-0.5 * math.log2(math.e),
            "E": pool.shape[2],
            "BLOCK": block,
            "KV_HEADS": self.kv_heads,
            "GROUP": self.group,
            "DIM": self.dim,
            "DIM2": self._dim2,
            "BLOCK_T": BLOCK_T,
        }

    def store(self, layer: int, k: Tensor, v: Tensor, places: Tensor) -> None:
        """k, v: ``[rows, kv_heads, head_dim]``, rows may be apart."""
        width = self.kv_heads * self.dim
        store_kv_kernel[(len(k),)](
            k,
            v,
            places,
            self.pool[layer],
            K_STRIDE=k.stride(0),
            V_STRIDE=v.stride(0),
            BLOCK=self.block,
            WIDTH=width,
            E=self.pool.shape[2],
            W2=triton.next_power_of_2(width),
        )

    def decode(self, layer: int, q: Tensor, batch: Batch, out: Tensor) -> None:
        """The rows of ``batch.singles``."""
        count = len(batch.singles)
        part = torch.empty(count, SPLITS, self.heads, self.dim, dtype=torch.float32, device=q.device)
        part_max = torch.empty(count, SPLITS, self.heads, dtype=torch.float32, device=q.device)
        part_sum = torch.empty_like(part_max)
        where = (batch.context_lens, batch.row_starts, batch.singles)
        decode_kernel[(count, self.kv_heads, SPLITS)](
            q,
            self.pool[layer],
            batch.block_table,
            batch.block_table.stride(0),
            *where,
            part,
            part_max,
            part_sum,
            GROUP16=max(MIN_DOT, triton.next_power_of_2(self.group)),
            SPLITS=SPLITS,
            LEAST_PART=LEAST_PART,
            num_warps=4,
            num_stages=3,
            **self._shape,
        )
        combine_kernel[(count, self.heads)](
            part,
            part_max,
            part_sum,
            *where,
            out,
            HEADS=self.heads,
            DIM=self.dim,
            DIM2=self._dim2,
            SPLITS=SPLITS,
            LEAST_PART=LEAST_PART,
            BLOCK_T=BLOCK_T,
            num_warps=2,
        )

    def prefill(self, layer: int, q: Tensor, batch: Batch, out: Tensor) -> None:
        """The rows of ``batch.spans``."""
        prefill_kernel[(len(batch.spans), self.heads)](
            q,
            self.pool[layer],
            batch.block_table,
            batch.block_table.stride(0),
            batch.context_lens,
            batch.row_starts,
            batch.spans,
            out,
            SPAN=SPAN,
            num_warps=4,
            num_stages=2,
            **self._shape,
        )
