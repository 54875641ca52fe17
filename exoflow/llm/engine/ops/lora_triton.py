"""Adapter deltas on a GPU: two kernels that read an adapter's rows where they lie in the pool.

After the batched kernels of S-LoRA (MLSys '24, section 5.3) and Punica's SGMV, for rows of any rank over the paged
layout of ``adapters/layout.py``. Nothing is padded to a largest rank, no pointers are gathered, no atomics are used: a
row's sum is always made in the same order, whatever else is in the batch.

Grids depend on the shapes of a batch and never on its ranks, so that a captured graph serves any adapters.
"""

# Kernels have no types that mypy could read.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, untyped-decorator"

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import TILE, Batch
from exoflow.llm.engine.geometry import SEGMENT, padded

BLOCK_R = 16
"""Rows of A or B at a time: the least that a dot takes."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What may be changed for speed alone. It must not follow the batch: ``splits`` orders a row's sum."""

    splits: int = 8
    """Parts of the inputs that are summed apart, so that one adapter alone occupies more of the GPU."""
    shrink_warps: int = 2
    shrink_stages: int = 4
    expand_warps: int = 4
    expand_stages: int = 2


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
    MAX_ROWS: tl.constexpr,
    LOW_WIDTH: tl.constexpr,
    PAGES_MOST: tl.constexpr,
    MODULE_FIRST: tl.constexpr,
    MODULES: tl.constexpr,
    MODULES_TOTAL: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    E: tl.constexpr,
    INPUTS: tl.constexpr,
    STRIDE: tl.constexpr,
    SPLITS: tl.constexpr,
    PROGRAMS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """``low[split, row, r] = sum over the split's k of x[row, k] * A[r, k]``, r over the rows of all modules of the
    group.

    Semantics: one program is one tile of rows, each ``PROGRAMS``-th block of 16 rows of A, and one part of k. Shape:
    x ``[rows, INPUTS]``, low ``[SPLITS, MAX_ROWS, LOW_WIDTH]`` float32.
    """
    tile = tl.program_id(0)
    slot = tl.load(tile_slots + tile)
    if slot < 0:
        return
    total = tl.load(rank + slot * MODULES_TOTAL + MODULE_FIRST)
    for module in tl.static_range(1, MODULES):
        total += tl.load(rank + slot * MODULES_TOTAL + MODULE_FIRST + module)
    split = tl.program_id(2)
    base = tl.load(row_base + (slot * GROUPS + GROUP) * 2)
    rows = tl.load(tile_rows + tile * TILE + tl.arange(0, TILE)).to(tl.int64)
    real = rows >= 0
    column = tl.arange(0, SEGMENT)
    share: tl.constexpr = (STRIDE // SEGMENT + SPLITS - 1) // SPLITS  # segments of a split
    k_first = split * share * SEGMENT
    k_last = tl.minimum(k_first + share * SEGMENT, STRIDE) - 1
    if k_first >= STRIDE:
        k_last = k_first  # nothing is left for this split; its sum is zero
    for block in range(tl.program_id(1), tl.cdiv(total, BLOCK_R), PROGRAMS):
        r = block * BLOCK_R + tl.arange(0, BLOCK_R)
        alive = r < total
        # A split of a row lies in two pages at most: they are looked up before the loop, so that its loads can run
        # ahead of its sums. The hint makes them 16 bytes wide; base comes from memory.
        begins = base + r * STRIDE
        table = pages + slot * PAGES_MOST
        page0 = tl.load(table + (begins + k_first) // E, mask=alive, other=0).to(tl.int64)
        page1 = tl.load(table + (begins + k_last) // E, mask=alive, other=0).to(tl.int64)
        within = (begins + k_first) % E
        acc = tl.zeros((TILE, BLOCK_R), dtype=tl.float32)
        for index in range(share):
            k = k_first + index * SEGMENT + column
            at = within + index * SEGMENT
            place = tl.multiple_of(tl.where(at < E, page0 * E, (page1 - 1) * E) + at, SEGMENT)
            a_mask = alive[:, None] & (k < STRIDE)[None, :]
            a = tl.load(pool + place[:, None] + column[None, :], mask=a_mask, other=0.0)
            x_mask = real[:, None] & (k < INPUTS)[None, :]
            xs = tl.load(x + rows[:, None] * INPUTS + k[None, :], mask=x_mask, other=0.0)
            acc = tl.dot(xs, tl.trans(a), acc, input_precision="ieee")
        out = low + (split * MAX_ROWS + rows[:, None]) * LOW_WIDTH + r[None, :]
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
    MAX_ROWS: tl.constexpr,
    LOW_WIDTH: tl.constexpr,
    PAGES_MOST: tl.constexpr,
    MODULE_FIRST: tl.constexpr,
    MODULES: tl.constexpr,
    MODULES_TOTAL: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    E: tl.constexpr,
    N0: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    UNIT: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    SEGMENT: tl.constexpr,
):
    """``y[row, n] += scale * sum over r of low[row, r] * B[r, n]``, for the module that column n belongs to.

    Semantics: one program is one tile of rows and two segments of columns of one of up to three modules of widths N0,
    N1, N2 (multiples of ``UNIT``), side by side in y. The splits of low are added here. Shape: y
    ``[rows, N0 + N1 + N2]``, changed in place.
    """
    BLOCK_N: tl.constexpr = 2 * SEGMENT
    BLOCKS0: tl.constexpr = (N0 + BLOCK_N - 1) // BLOCK_N
    BLOCKS1: tl.constexpr = (N1 + BLOCK_N - 1) // BLOCK_N
    STRIDE0: tl.constexpr = (N0 + SEGMENT - 1) // SEGMENT * SEGMENT
    STRIDE1: tl.constexpr = (N1 + SEGMENT - 1) // SEGMENT * SEGMENT
    tile = tl.program_id(0)
    slot = tl.load(tile_slots + tile)
    if slot < 0:
        return
    block = tl.program_id(1)
    second, third = block >= BLOCKS0, block >= BLOCKS0 + BLOCKS1  # which module this is
    module = second.to(tl.int32) + third.to(tl.int32)
    width = tl.where(third, N2, tl.where(second, N1, N0))
    width = tl.multiple_of(width, UNIT)
    column = tl.where(second, N0, 0) + tl.where(third, N1, 0)  # where it begins in y
    block -= tl.where(second, BLOCKS0, 0) + tl.where(third, BLOCKS1, 0)
    first = slot * MODULES_TOTAL + MODULE_FIRST
    count = tl.load(rank + first + module)
    if count == 0:
        return
    base = tl.load(row_base + (slot * GROUPS + GROUP) * 2 + 1)
    low_first = 0  # where its rank begins in low
    if MODULES > 1:
        before0 = tl.where(second, tl.load(rank + first), 0)
        before1 = tl.where(third, tl.load(rank + first + 1), 0)
        base += before0 * STRIDE0 + before1 * STRIDE1
        low_first = before0 + before1
    stride = tl.cdiv(width, SEGMENT) * SEGMENT
    begin = block * BLOCK_N
    c = tl.arange(0, BLOCK_N)
    rows = tl.load(tile_rows + tile * TILE + tl.arange(0, TILE)).to(tl.int64)
    real = rows >= 0
    target = y + rows[:, None] * (N0 + N1 + N2) + tl.multiple_of(column + begin, UNIT) + c[None, :]
    inside_y = real[:, None] & (begin + c < width)[None, :]
    old = tl.load(target, mask=inside_y, other=0.0).to(tl.float32)
    acc = tl.zeros((TILE, BLOCK_N), dtype=tl.float32)
    for start_r in range(0, count, BLOCK_R):
        r = start_r + tl.arange(0, BLOCK_R)
        alive = r < count
        source = low + rows[:, None] * LOW_WIDTH + low_first + r[None, :]
        h = tl.zeros((TILE, BLOCK_R), dtype=tl.float32)
        for split in tl.static_range(SPLITS):
            h += tl.load(source + split * MAX_ROWS * LOW_WIDTH, mask=real[:, None] & alive[None, :], other=0.0)
        # Both segments of a row, each in a page of its own.
        start0 = tl.multiple_of(base + r * stride + begin, SEGMENT)
        start1 = start0 + SEGMENT
        also = r < tl.where(begin + SEGMENT < stride, count, 0)
        page0 = tl.load(pages + slot * PAGES_MOST + start0 // E, mask=alive, other=0).to(tl.int64)
        page1 = tl.load(pages + slot * PAGES_MOST + start1 // E, mask=also, other=0)
        place0 = page0 * E + start0 % E
        place1 = page1.to(tl.int64) * E + start1 % E - SEGMENT
        place = tl.where(c[None, :] < SEGMENT, place0[:, None], place1[:, None]) + c[None, :]
        place = tl.max_contiguous(tl.multiple_of(place, [1, SEGMENT]), [1, SEGMENT])
        b = tl.load(pool + place, mask=alive[:, None] & (begin + c < stride)[None, :], other=0.0)
        acc = tl.dot(h.to(b.dtype), b, acc, input_precision="ieee")
    acc *= tl.load(scale + first + module)
    tl.store(target, (old + acc).to(y.dtype.element_ty), mask=inside_y)


class LoraKernels:
    """The two launches of a group, over one pool.

    Args:
        max_rows: of a step.
    """

    def __init__(self, pool: Tensor, tables: AdapterTables, max_rows: int, tuning: Tuning | None = None) -> None:
        self.pool, self.tables, self.tuning = pool, tables, tuning or Tuning()
        geometry = tables.geometry
        groups = geometry.groups
        width = max(len(group.modules) for group in groups) * tables.max_rank
        # A split of a row must not lie in more than two pages.
        splits = max(self.tuning.splits, *(-(-padded(group.inputs) // tables.page_elems) for group in groups))
        self._low = torch.empty(splits, max_rows, width, dtype=torch.float32, device=pool.device)
        self._splits = splits
        self._groups = groups
        self._shared = [
            {
                "MAX_ROWS": max_rows,
                "LOW_WIDTH": width,
                "PAGES_MOST": tables.pages.shape[1],
                "MODULE_FIRST": sum(len(each.modules) for each in groups[:index]),
                "MODULES": len(group.modules),
                "MODULES_TOTAL": len(geometry.modules),
                "GROUP": index,
                "GROUPS": len(groups),
                "E": tables.page_elems,
                "SPLITS": splits,
                "TILE": TILE,
                "BLOCK_R": BLOCK_R,
                "SEGMENT": SEGMENT,
            }
            for index, group in enumerate(groups)
        ]

    def add(self, layer: int, group: int, x: Tensor, y: Tensor, batch: Batch) -> None:
        """Add the deltas of group number ``group``; x and y: rows side by side, without gaps."""
        if len(batch.tile_slots):
            self.shrink(layer, group, x, batch)
            self.expand(layer, group, y, batch)

    def shrink(self, layer: int, group: int, x: Tensor, batch: Batch) -> None:
        tables, inputs, modules = self.tables, self._groups[group].inputs, len(self._groups[group].modules)
        assert x.is_contiguous()
        shrink_kernel[(len(batch.tile_slots), 2 * modules, self._splits)](
            x,
            self.pool[layer],
            tables.pages,
            tables.row_base,
            tables.rank,
            batch.tile_slots,
            batch.tile_rows,
            self._low,
            INPUTS=inputs,
            STRIDE=padded(inputs),
            PROGRAMS=2 * modules,
            num_warps=self.tuning.shrink_warps,
            num_stages=self.tuning.shrink_stages,
            **self._shared[group],
        )

    def expand(self, layer: int, group: int, y: Tensor, batch: Batch) -> None:
        tables = self.tables
        widths = [module.outputs for module in self._groups[group].modules] + [0, 0]
        assert y.is_contiguous()
        blocks = sum(triton.cdiv(width, 2 * SEGMENT) for width in widths)
        expand_kernel[(len(batch.tile_slots), blocks)](
            self._low,
            self.pool[layer],
            tables.pages,
            tables.row_base,
            tables.rank,
            tables.scale[layer],
            batch.tile_slots,
            batch.tile_rows,
            y,
            N0=widths[0],
            N1=widths[1],
            N2=widths[2],
            UNIT=math.gcd(SEGMENT, *widths),
            num_warps=self.tuning.expand_warps,
            num_stages=self.tuning.expand_stages,
            **self._shared[group],
        )
