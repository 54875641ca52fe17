"""A step as flat arrays: what the model and the kernels read.

Everything is made on the CPU with numpy and sent in one piece; nothing here asks the device for anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exoflow.llm.engine.plan import Chunk

TILE = 16
"""Rows that the adapter kernels work on together; all of one adapter. Fixed, so that a row's sum never depends on its
neighbours.
"""
SPAN = 64
"""Rows of one sequence that the prefill kernel works on together."""
ALIGNMENT = 64
"""Bytes: where an array begins in what is sent. Kernels read 16 at once."""

ATTENTION_GROUPS, ALL_GROUPS = 0b0011, 0b1111
"""``Geometry.groups`` as bits."""

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Int = TypeVar("Int", np.int32, np.int64)


@dataclass(frozen=True, slots=True)
class Arrays:
    """One step on the CPU. Sequences in the order of the plan, their tokens one behind the other; ``n`` sequences,
    ``rows`` tokens. -1 stands for nothing, except where it says otherwise.

    Attributes:
        tokens: ``[rows]``.
        positions: ``[rows]``, in the sequence.
        places: ``[rows]``, where the token's KV goes: page * block + offset.
        wanted: ``[m]``: rows whose logits are wanted.
        tile_rows: ``[tiles, TILE]``: the rows of each tile.
        tile_slots: ``[tiles]``: the slot of each tile. Base rows are in no tile.
        starts: ``[n + 1]``, where each sequence's rows begin.
        contexts: ``[n]``, tokens whose KV can be seen, those of this step among them.
        slots: ``[n]``, slot of each sequence's adapter; -1: base.
        singles: ``[s]``: sequences with one row.
        spans: ``[t, 2]``: of the others, the sequence and the first of at most ``SPAN`` of its rows.
        block_table: ``[n, most pages]``, the pages of each sequence; 0 beyond its last.
    """

    tokens: Longs
    positions: Longs
    places: Longs
    wanted: Longs
    tile_rows: Longs
    tile_slots: Ints
    starts: Ints
    contexts: Ints
    slots: Ints
    singles: Ints
    spans: Ints
    block_table: Ints

    def padded(self, shape: Shape, scratch: int) -> Arrays:
        """The same step in arrays of this shape. Rows that were added belong to no sequence and no tile; their KV
        goes to the place ``scratch``.
        """
        n, rows = shape.sequences, shape.rows
        return Arrays(
            tokens=_padded(self.tokens, rows, 0),
            positions=_padded(self.positions, rows, 0),
            places=_padded(self.places, rows, scratch),
            wanted=_padded(self.wanted, shape.wanted, 0),
            tile_rows=_padded(self.tile_rows, shape.tiles, -1),
            tile_slots=_padded(self.tile_slots, shape.tiles, -1),
            starts=_padded(self.starts, n + 1, self.starts[-1]),
            contexts=_padded(self.contexts, n, 0),
            slots=_padded(self.slots, n, -1),
            singles=_padded(self.singles, shape.singles, -1),
            spans=_padded(self.spans, shape.spans, -1),
            block_table=self.block_table,
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """How long the arrays of a step are."""

    rows: int
    sequences: int
    singles: int
    spans: int
    tiles: int
    wanted: int

    def holds(self, arrays: Arrays) -> bool:
        return (
            len(arrays.tokens) <= self.rows
            and len(arrays.contexts) <= self.sequences
            and len(arrays.singles) <= self.singles
            and len(arrays.spans) <= self.spans
            and len(arrays.tile_slots) <= self.tiles
            and len(arrays.wanted) <= self.wanted
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """One step on the device; see ``Arrays``. ``starts``, ``contexts`` and ``slots`` are here on the CPU as well, for
    operations that are written with loops.

    Attributes:
        context_lens: ``contexts`` on the device.
        row_starts: ``starts`` on the device.
        groups: that any adapter of the batch may change, a bit each.
    """

    tokens: Tensor
    positions: Tensor
    places: Tensor
    wanted: Tensor
    tile_rows: Tensor
    tile_slots: Tensor
    row_starts: Tensor
    context_lens: Tensor
    singles: Tensor
    spans: Tensor
    block_table: Tensor
    starts: Ints
    contexts: Ints
    slots: Ints
    groups: int = ALL_GROUPS

    @property
    def rows(self) -> int:
        return len(self.tokens)


def make_batch(chunks: Sequence[Chunk], slots: Sequence[int], block: int, device: torch.device) -> Batch:
    """The arrays of a plan, on the device; ``slots``: of each chunk's adapter, -1 for none."""
    return send(arrays_of(chunks, slots, block), device)


def arrays_of(chunks: Sequence[Chunk], slots: Sequence[int], block: int) -> Arrays:
    """The arrays of a plan; ``slots``: of each chunk's adapter, -1 for none."""
    counts = np.array([chunk.count for chunk in chunks], dtype=np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    begins = np.array([chunk.start for chunk in chunks], dtype=np.int64)
    sequence = np.repeat(np.arange(len(chunks)), counts)
    positions = np.arange(starts[-1]) - starts[sequence] + begins[sequence]
    table = _block_table(chunks)
    tokens = (t for c in chunks for t in c.request.tokens_between(c.start, c.start + c.count))
    wanted = [
        np.arange(start, start + chunk.count) if chunk.request.scores else np.array([start + chunk.count - 1])
        for start, chunk in zip(starts[:-1], chunks, strict=True)
        if chunk.gives_token or chunk.request.scores
    ]
    slot_array = np.array(slots, dtype=np.int32)
    tile_slots, tile_rows = tiles(slot_array[sequence])
    spans = [(i, first) for i in np.flatnonzero(counts > 1).tolist() for first in range(0, counts[i], SPAN)]
    return Arrays(
        tokens=np.fromiter(tokens, np.int64, int(starts[-1])),
        positions=positions.astype(np.int64),
        places=table[sequence, positions // block].astype(np.int64) * block + positions % block,
        wanted=np.concatenate(wanted).astype(np.int64) if wanted else np.zeros(0, np.int64),
        tile_rows=tile_rows,
        tile_slots=tile_slots,
        starts=starts,
        contexts=(begins + counts).astype(np.int32),
        slots=slot_array,
        singles=np.flatnonzero(counts == 1).astype(np.int32),
        spans=np.array(spans, dtype=np.int32).reshape(-1, 2),
        block_table=table,
    )


SENT = {
    "tokens": "tokens",
    "positions": "positions",
    "places": "places",
    "wanted": "wanted",
    "tile_rows": "tile_rows",
    "tile_slots": "tile_slots",
    "starts": "row_starts",
    "contexts": "context_lens",
    "singles": "singles",
    "spans": "spans",
    "block_table": "block_table",
}
"""Fields of ``Arrays`` and of ``Batch``. The table is last: its width follows the contexts, and where the others lie
must not.
"""


def send(arrays: Arrays, device: torch.device, room: Tensor | None = None) -> Batch:
    """All arrays to the device in one copy.

    Args:
        room: bytes on the device that are used for it; what was sent to it before is overwritten.
    """
    parts = {name: getattr(arrays, name) for name in SENT}
    ends = list(itertools.accumulate(-(-part.nbytes // ALIGNMENT) * ALIGNMENT for part in parts.values()))
    host = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = host
    view = host.numpy()
    for begin, part in zip([0, *ends], parts.values(), strict=False):
        view[begin : begin + part.nbytes] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    if room is not None:
        there = room[: len(host)].copy_(host, non_blocking=True)
    elif device.type != "cpu":
        there = host.to(device, non_blocking=True)
    sent = {
        SENT[name]: there[begin : begin + part.nbytes].view(_TORCH[part.dtype]).view(part.shape)
        for begin, (name, part) in zip([0, *ends], parts.items(), strict=False)
    }
    return Batch(**sent, starts=arrays.starts, contexts=arrays.contexts, slots=arrays.slots, groups=ALL_GROUPS)


_TORCH = {np.dtype(np.int32): torch.int32, np.dtype(np.int64): torch.int64}


def bytes_of(shape: Shape, table_width: int) -> int:
    """Room that a step of this shape takes at most."""
    longs = 3 * shape.rows + shape.wanted + shape.tiles * TILE
    ints = shape.tiles + 2 * shape.sequences + 1 + shape.singles + 2 * shape.spans + shape.sequences * table_width
    return 8 * longs + 4 * ints + ALIGNMENT * len(SENT)


def tiles(row_slots: Ints) -> tuple[Ints, Longs]:
    """Cut rows into tiles of at most ``TILE`` rows of one slot, slot by slot: ``[tiles]`` and ``[tiles, TILE]``. Slot
    -1 is left out.
    """
    order = np.argsort(row_slots, kind="stable")
    order = order[np.searchsorted(row_slots[order], 0) :]
    kinds, counts = np.unique(row_slots[order], return_counts=True)
    per_kind = -(-counts // TILE)
    tile_slots = np.repeat(kinds, per_kind).astype(np.int32)
    tile_rows = np.full((len(tile_slots), TILE), -1, dtype=np.int64)
    in_kind = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    tile = np.repeat(np.cumsum(per_kind) - per_kind, counts) + in_kind // TILE
    tile_rows[tile, in_kind % TILE] = order
    return tile_slots, tile_rows


def _block_table(chunks: Sequence[Chunk]) -> Ints:
    lengths = np.array([len(chunk.request.pages) for chunk in chunks], dtype=np.int64)
    pages = itertools.chain.from_iterable(chunk.request.pages for chunk in chunks)
    table = np.zeros((len(chunks), lengths.max(initial=0)), dtype=np.int32)
    table[np.arange(table.shape[1]) < lengths[:, None]] = np.fromiter(pages, np.int32, int(lengths.sum()))
    return table


def _padded(array: NDArray[Int], length: int, value: int) -> NDArray[Int]:
    more = np.full((length - len(array), *array.shape[1:]), value, dtype=array.dtype)
    return np.concatenate([array, more])
