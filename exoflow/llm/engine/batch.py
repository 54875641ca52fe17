"""A step as flat arrays: what the model and the kernels read.

Everything is made on the CPU with numpy and sent in one piece; nothing here asks the device for anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exoflow.llm.engine.scheduler import Chunk

TILE = 16
"""Rows that the adapter kernels work on together; all of one adapter. Fixed, so that a row's sum never depends on its
neighbours.
"""

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. Sequences in the order of the plan, their tokens one behind the other; ``n`` sequences, ``rows``
    tokens.

    Attributes:
        tokens: ``[rows]`` int64.
        positions: ``[rows]`` int64, in the sequence.
        places: ``[rows]`` int64, where the token's KV goes: page * block + offset.
        starts: ``[n + 1]``, where each sequence's rows begin (on the CPU).
        contexts: ``[n]``, tokens whose KV can be seen, those of this step among them (on the CPU).
        block_table: ``[n, most pages]`` int32, the pages of each sequence; 0 beyond its last.
        context_lens: ``contexts`` on the device, int32.
        slots: ``[n]``, slot of each sequence's adapter, -1: base (on the CPU).
        tile_slots: ``[tiles]`` int32: the slot of each tile of rows. Base rows are in no tile.
        tile_rows: ``[tiles, TILE]`` int64: its rows; -1: none.
        wanted: ``[m]`` int64: rows whose logits are wanted.
    """

    tokens: Tensor
    positions: Tensor
    places: Tensor
    starts: Ints
    contexts: Ints
    block_table: Tensor
    context_lens: Tensor
    slots: Ints
    tile_slots: Tensor
    tile_rows: Tensor
    wanted: Tensor

    @property
    def rows(self) -> int:
        return len(self.tokens)

    @property
    def decodes(self) -> bool:
        """Each sequence has one row."""
        return len(self.contexts) == self.rows


def make_batch(chunks: Sequence[Chunk], slots: Sequence[int], block: int, device: torch.device) -> Batch:
    """The arrays of a plan; ``slots``: of each chunk's adapter, -1 for none."""
    counts = np.array([chunk.count for chunk in chunks], dtype=np.int32)
    starts = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    begins = np.array([chunk.start for chunk in chunks], dtype=np.int64)
    sequence = np.repeat(np.arange(len(chunks)), counts)
    positions = np.arange(starts[-1]) - starts[sequence] + begins[sequence]
    table = _block_table(chunks)
    places = table[sequence, positions // block].astype(np.int64) * block + positions % block
    tokens = np.array([t for c in chunks for t in c.request.tokens_between(c.start, c.start + c.count)], dtype=np.int64)
    wanted = [
        np.arange(start, start + chunk.count) if chunk.request.scores else np.array([start + chunk.count - 1])
        for start, chunk in zip(starts[:-1], chunks, strict=True)
        if chunk.gives_token or chunk.request.scores
    ]
    tile_slots, tile_rows = tiles(np.array(slots, dtype=np.int32)[sequence])
    contexts = (begins + counts).astype(np.int32)

    def send(array: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    return Batch(
        tokens=send(tokens),
        positions=send(positions.astype(np.int64)),
        places=send(places),
        starts=starts,
        contexts=contexts,
        block_table=send(table),
        context_lens=send(contexts),
        slots=np.array(slots, dtype=np.int32),
        tile_slots=send(tile_slots),
        tile_rows=send(tile_rows),
        wanted=send(np.concatenate(wanted) if wanted else np.zeros(0, dtype=np.int64)),
    )


def tiles(row_slots: Ints) -> tuple[Ints, NDArray[np.int64]]:
    """Cut rows into tiles of at most ``TILE`` rows of one slot, slot by slot: ``[tiles]`` and ``[tiles, TILE]``. Slot
    -1 is left out.
    """
    order = np.argsort(row_slots, kind="stable")
    ordered = row_slots[order]
    kinds, first, counts = np.unique(ordered, return_index=True, return_counts=True)
    slots: list[int] = []
    rows: list[NDArray[np.int64]] = []
    for slot, start, count in zip(kinds.tolist(), first.tolist(), counts.tolist(), strict=True):
        if slot < 0:
            continue
        for begin in range(start, start + count, TILE):
            tile = np.full(TILE, -1, dtype=np.int64)
            part = order[begin : min(begin + TILE, start + count)]
            tile[: len(part)] = part
            slots.append(slot)
            rows.append(tile)
    if not slots:
        return np.zeros(0, dtype=np.int32), np.zeros((0, TILE), dtype=np.int64)
    return np.array(slots, dtype=np.int32), np.stack(rows)


def _block_table(chunks: Sequence[Chunk]) -> Ints:
    most = max(len(chunk.request.pages) for chunk in chunks)
    table = np.zeros((len(chunks), most), dtype=np.int32)
    for row, chunk in zip(table, chunks, strict=True):
        row[: len(chunk.request.pages)] = chunk.request.pages
    return table
