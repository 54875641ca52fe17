"""Adapter deltas on a GPU: two kernels that read an adapter's rows where they lie in the pool.

After the batched kernels of S-LoRA (MLSys '24, section 5.3) and Punica's SGMV, for rows of any rank over the paged
layout of ``adapters/layout.py``. Nothing is padded to a largest rank, no pointers are gathered, no atomics are used: a
row's sum is always made in the same order, whatever else is in the batch.
"""

# Kernels have no types that mypy could read.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import TILE, Batch
from exoflow.llm.engine.geometry import Group, padded

BLOCK_K = 64
"""A segment: elements that lie in one page for certain."""
BLOCK_R = 16
BLOCK_N = 128


@triton.jit
def shrink_kernel(
    x,
    pool,
    pages,
    row_base,
    rank,
    tile_slots,
    tile_rows,
    low,
    inputs,
    rows_total,
    low_width,
    pages_most,
    module_first,
    modules_total,
    group,
    groups_total,
    E: tl.constexpr,
    STRIDE: tl.constexpr,
    MODULES: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """``low[split, row, r] = sum over the split's k of x[row, k] * A[r, k]``, r over the rows of all modules of the
    group.

    Semantics: one program is one tile of rows, 16 rows of A, and one part of k. Shape: x ``[rows, inputs]``, low
    ``[SPLITS, rows, low_width]`` float32.
    """
    tile = tl.program_id(0)
    slot = tl.load(tile_slots + tile)
    if slot < 0:
        return
    total = 0
    for module in tl.static_range(MODULES):
        total += tl.load(rank + slot * modules_total + module_first + module)
    r = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    if tl.program_id(1) * BLOCK_R >= total:
        return
    split = tl.program_id(2)
    base = tl.load(row_base + (slot * groups_total + group) * 2)
    rows = tl.load(tile_rows + tile * TILE + tl.arange(0, TILE))
    real = rows >= 0
    begins = base + r * STRIDE
    alive = r < total
    acc = tl.zeros((TILE, BLOCK_R), dtype=tl.float32)
    segments = STRIDE // BLOCK_K
    for segment in range(split, segments, SPLITS):
        k = segment * BLOCK_K + tl.arange(0, BLOCK_K)
        start = begins + segment * BLOCK_K
        page = tl.load(pages + slot * pages_most + start // E, mask=alive, other=0).to(tl.int64)
        place = page * E + start % E
        a = tl.load(pool + place[:, None] + tl.arange(0, BLOCK_K)[None, :], mask=alive[:, None], other=0.0)
        xs = tl.load(
            x + rows[:, None].to(tl.int64) * inputs + k[None, :], mask=real[:, None] & (k < inputs)[None, :], other=0.0
        )
        acc += tl.dot(xs, tl.trans(a), input_precision="ieee")
    out = low + (split * rows_total + rows[:, None].to(tl.int64)) * low_width + r[None, :]
    tl.store(out, acc, mask=real[:, None] & alive[None, :])


@triton.jit
def expand_kernel(
    low,
    pool,
    pages,
    row_base,
    rank,
    scale,
    tile_slots,
    tile_rows,
    y,
    outputs,
    rows_total,
    low_width,
    pages_most,
    module_first,
    modules_total,
    group,
    groups_total,
    E: tl.constexpr,
    N0: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    SEGMENT: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """``y[row, n] += scale * sum over r of low[row, r] * B[r, n]``, for the module that column n belongs to.

    Semantics: one program is one tile of rows and ``BLOCK_N`` columns of one of up to three modules of widths N0, N1,
    N2, side by side in y. The splits of low are added here. Shape: y ``[rows, outputs]``, changed in place.
    """
    tile = tl.program_id(0)
    slot = tl.load(tile_slots + tile)
    if slot < 0:
        return
    blocks0: tl.constexpr = (N0 + BLOCK_N - 1) // BLOCK_N
    blocks1: tl.constexpr = (N1 + BLOCK_N - 1) // BLOCK_N
    block = tl.program_id(1)
    first = slot * modules_total + module_first
    base = tl.load(row_base + (slot * groups_total + group) * 2 + 1)
    column = 0  # where the module begins in y
    low_first = 0  # where its rank begins in low
    width = N0
    module = 0
    if block >= blocks0:
        rank0 = tl.load(rank + first)
        base += rank0 * (((N0 + SEGMENT - 1) // SEGMENT) * SEGMENT)
        low_first += rank0
        column += N0
        width = N1
        module = 1
        block -= blocks0
        if block >= blocks1:
            rank1 = tl.load(rank + first + 1)
            base += rank1 * (((N1 + SEGMENT - 1) // SEGMENT) * SEGMENT)
            low_first += rank1
            column += N1
            width = N2
            module = 2
            block -= blocks1
    count = tl.load(rank + first + module)
    if count == 0:
        return
    stride = ((width + SEGMENT - 1) // SEGMENT) * SEGMENT
    n = block * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = tl.load(tile_rows + tile * TILE + tl.arange(0, TILE))
    real = rows >= 0
    acc = tl.zeros((TILE, BLOCK_N), dtype=tl.float32)
    for start in range(0, count, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        alive = r < count
        h = tl.zeros((TILE, BLOCK_R), dtype=tl.float32)
        for split in tl.static_range(SPLITS):
            source = low + (split * rows_total + rows[:, None].to(tl.int64)) * low_width + low_first + r[None, :]
            h += tl.load(source, mask=real[:, None] & alive[None, :], other=0.0)
        offset = base + r[:, None] * stride + n[None, :]
        inside = alive[:, None] & (n < width)[None, :]
        page = tl.load(pages + slot * pages_most + offset // E, mask=inside, other=0).to(tl.int64)
        b = tl.load(pool + page * E + offset % E, mask=inside, other=0.0)
        acc += tl.dot(h.to(b.dtype), b, input_precision="ieee")
    acc *= tl.load(scale + slot * modules_total + module)
    target = y + rows[:, None].to(tl.int64) * outputs + column + n[None, :]
    inside_y = real[:, None] & (n < width)[None, :]
    old = tl.load(target, mask=inside_y, other=0.0).to(tl.float32)
    tl.store(target, (old + acc).to(y.dtype.element_ty), mask=inside_y)


class LoraKernels:
    """The two launches of a group, over one pool."""

    def __init__(self, pool: Tensor, tables: AdapterTables, max_rows: int, *, splits: int = 4) -> None:
        self.pool, self.tables, self.splits = pool, tables, splits
        geometry = tables.geometry
        widest = max(len(group.modules) for group in geometry.groups)
        self._low_width = widest * tables.max_rank
        self._low = torch.empty(splits, max_rows, self._low_width, dtype=torch.float32, device=pool.device)
        self._firsts = [sum(len(each.modules) for each in geometry.groups[:index]) for index in range(4)]

    def add(self, layer: int, index: int, group: Group, x: Tensor, y: Tensor, batch: Batch, most_rank: int) -> None:
        """Add the deltas of group number ``index``; ``most_rank``: the largest sum of ranks of its modules in the
        batch.
        """
        count = len(batch.tile_slots)
        if not count or not most_rank:
            return
        tables, geometry = self.tables, self.tables.geometry
        widths = [module.outputs for module in group.modules] + [0, 0]
        modules_total, first = len(geometry.modules), self._firsts[index]
        shared = (
            len(x),
            self._low_width,
            tables.pages.shape[1],
            first,
            modules_total,
            index,
            len(geometry.groups),
        )
        low = self._low.view(-1)
        shrink_kernel[(count, triton.cdiv(most_rank, BLOCK_R), self.splits)](
            x,
            self.pool[layer],
            tables.pages,
            tables.row_base,
            tables.rank,
            batch.tile_slots,
            batch.tile_rows,
            low,
            x.shape[1],
            *shared,
            E=tables.page_elems,
            STRIDE=padded(group.inputs),
            MODULES=len(group.modules),
            SPLITS=self.splits,
            TILE=TILE,
            BLOCK_R=BLOCK_R,
            BLOCK_K=BLOCK_K,
        )
        blocks = sum(triton.cdiv(width, BLOCK_N) for width in widths)
        expand_kernel[(count, blocks)](
            low,
            self.pool[layer],
            tables.pages,
            tables.row_base,
            tables.rank,
            tables.scale[layer, :, first:],
            batch.tile_slots,
            batch.tile_rows,
            y,
            y.shape[1],
            *shared,
            E=tables.page_elems,
            N0=widths[0],
            N1=widths[1],
            N2=widths[2],
            SEGMENT=64,
            SPLITS=self.splits,
            TILE=TILE,
            BLOCK_R=BLOCK_R,
            BLOCK_N=BLOCK_N,
        )
