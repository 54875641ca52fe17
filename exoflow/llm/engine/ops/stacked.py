"""The operations for a CPU: the adapters of a batch lie side by side in a stack, and one ``bmm`` works on all of them.

The pool stays the truth; a stack is a copy of what is in use now, and only what is new is copied into it. Ranks are
padded to a power of two from 8 on, each in a stack of its own, so that the shape of a row's products depends on its
own adapter alone. And all products have one of two shapes: so a row's delta has the same bits whatever else is in the
batch. A sequence's only row is a vector by a matrix, for padding it would only add arithmetic (with 32 adapters in a
batch of 32, tiles of 16 rows took six times as long); the rows of a prompt go in tiles of 16, for a call a row costs
more than the arithmetic of padding (prompts took two and a half times as long).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from exoflow.llm.engine.adapters.layout import Rows
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import Batch
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.ops.attn_together import Party, alike_in, attend_together
from exoflow.llm.engine.ops.reference import ReferenceOps

Key = tuple[int, int]
"""A slot, and the stamp of what it held."""

Ints = NDArray[np.int64]
NO_ROWS: Ints = np.zeros(0, dtype=np.int64)

CALL_TILES = 4
"""Tiles whose product takes about as long as what a call costs beside it."""

TILE = 16
"""Rows of a prompt that are multiplied together. From four on, a row's bits do not depend on how many they are."""

FEW_ROWS = 128
"""So many rows are read, added and written back before ``index_add_``, which sorts on threads, has begun: 0.4 ms."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Tiles that one ``bmm`` works on.

    Attributes:
        rows: ``[tiles, width]``.
        place: of their adapter; None: one tile for each place, in their order.
        used: ``[tiles, width]`` bool: what is a row, and not there to fill a tile or a place; None: all.
    """

    rows: Tensor
    place: int | None = None
    used: Tensor | None = None


@dataclass(slots=True)
class Stack:
    """The adapters of one padded rank that are in use.

    Attributes:
        keys: whose each place is; places of those that are not in this batch are computed in vain.
        a: by group, ``[layers, places, modules * rank, inputs]``.
        b: by module, ``[layers, places, rank, outputs]``, scaled.
        turns: over the rows of this batch that have one of these adapters; each row is in one.
    """

    rank: int
    keys: list[Key] = field(default_factory=list)
    a: list[Tensor] = field(default_factory=list)
    b: list[Tensor] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


class StackedOps(ReferenceOps):
    """As ``ReferenceOps``, by products of whole batches."""

    def __init__(self, pool: Tensor, tables: AdapterTables, geometry: Geometry, block: int) -> None:
        super().__init__(pool, tables, geometry, block)
        self._stacks: dict[int, Stack] = {}
        self._rows = torch.from_numpy(NO_ROWS)
        self._parties: list[Party] = []
        self._others: list[int] = []

    # Adapters.

    def begin(self, batch: Batch) -> None:
        counts = np.diff(batch.starts)
        alike, self._others = alike_in(batch)
        self._parties = [Party.of(batch, sequences, self.geometry, self.block, self.pool.dtype) for sequences in alike]
        slots, alone = np.repeat(batch.slots, counts), np.repeat(counts == 1, counts)
        found: dict[int, dict[Key, Ints]] = {}
        for slot in np.unique(batch.slots).tolist():
            if slot >= 0:
                rank = _padded_rank(max(self.tables.layouts[slot].ranks))
                found.setdefault(rank, {})[slot, self.tables.stamps[slot]] = np.flatnonzero(slots == slot)
        for stack in self._stacks.values():
            stack.turns = []
        for rank, by_key in found.items():
            stack = self._stacks.setdefault(rank, Stack(rank))
            self._fill(stack, by_key)
            rows = [by_key.get(key, NO_ROWS) for key in stack.keys]
            stack.turns = [
                *_turns([_tiles(each[alone[each]], 1) for each in rows]),
                *_turns([_tiles(each[~alone[each]], TILE) for each in rows]),
            ]
        turns = [turn for stack in self._stacks.values() for turn in stack.turns]
        used = [turn.rows.flatten() if turn.used is None else turn.rows[turn.used] for turn in turns]
        self._rows = torch.cat(used) if used else torch.from_numpy(NO_ROWS)

    def lora(self, layer: int, group: int, x: Tensor, y: Tensor, batch: Batch) -> None:
        deltas = [self._delta(stack, layer, group, turn, x) for stack in self._stacks.values() for turn in stack.turns]
        if deltas:
            delta = deltas[0] if len(deltas) == 1 else torch.cat(deltas)
            if len(delta) > FEW_ROWS:
                y.index_add_(0, self._rows, delta)
            else:
                y.index_copy_(0, self._rows, delta.add_(y.index_select(0, self._rows)))

    def _delta(self, stack: Stack, layer: int, group: int, turn: Turn, x: Tensor) -> Tensor:
        """``[rows, outputs]``, by the turn's rows in their order."""
        modules = self.geometry.groups[group].modules
        first = sum(len(each.modules) for each in self.geometry.groups[:group])

        def for_tiles(matrices: Tensor) -> Tensor:
            if turn.place is None:
                return matrices
            return matrices[turn.place].expand(len(turn.rows), -1, -1)

        low = torch.bmm(x[turn.rows], for_tiles(stack.a[group][layer]).transpose(1, 2))
        parts = torch.split(low, stack.rank, dim=2)
        deltas = [torch.bmm(part, for_tiles(stack.b[first + index][layer])) for index, part in enumerate(parts)]
        delta = deltas[0] if len(modules) == 1 else torch.cat(deltas, dim=2)
        return delta.flatten(0, 1) if turn.used is None else delta[turn.used]

    def _fill(self, stack: Stack, needed: Collection[Key]) -> None:
        """Make the stack hold these adapters; what it holds already is not read from the pool again."""
        kept = [index for index, key in enumerate(stack.keys) if key in needed]
        if len(stack.keys) > 2 * len(needed) + 4:  # too much would be computed in vain
            self._resize(stack, kept, len(kept))
        missing = [key for key in needed if key not in stack.keys]
        unused = [index for index, key in enumerate(stack.keys) if key not in needed]
        if len(missing) > len(unused):
            size = len(stack.keys)
            self._resize(stack, list(range(size)), size + len(missing) - len(unused))
            unused += range(size, len(stack.keys))
        for key, index in zip(missing, unused, strict=False):
            stack.keys[index] = key
            self._copy(stack, index, key[0])

    def _resize(self, stack: Stack, kept: list[int], places: int) -> None:
        layers, groups = self.geometry.layers, self.geometry.groups
        shapes_a = [(len(group.modules) * stack.rank, group.inputs) for group in groups]
        shapes_b = [(stack.rank, module.outputs) for module in self.geometry.modules]
        for tensors, shapes in ((stack.a, shapes_a), (stack.b, shapes_b)):
            bigger = [self.pool.new_zeros(layers, places, *shape) for shape in shapes]
            for old, new in zip(tensors, bigger, strict=False):
                new[:, : len(kept)] = old[:, kept]
            tensors[:] = bigger
        stack.keys = [stack.keys[index] for index in kept] + [(-1, -1)] * (places - len(kept))

    def _copy(self, stack: Stack, index: int, slot: int) -> None:
        """From the pool's pages into one place of the stack."""
        layout, rank = self.tables.layouts[slot], stack.rank
        space = self.pool[:, list(self.tables.page_lists[slot])].flatten(1)
        found = {(rows.module.name, rows.matrix): rows for rows in layout.rows()}
        number = 0
        for group, a in zip(self.geometry.groups, stack.a, strict=True):
            for place, module in enumerate(group.modules):
                b = stack.b[number][:, index]
                _fill_lines(a[:, index, place * rank : (place + 1) * rank], space, found[module.name, "A"])
                _fill_lines(b, space, found[module.name, "B"])
                b *= self.tables.scale[:, slot, number, None, None]
                number += 1

    # Attention.

    def attend(self, layer: int, q: Tensor, batch: Batch) -> Tensor:
        """Sequences of about one size at once, those with many rows one by one."""
        out = torch.empty_like(q)
        for party in self._parties:
            found = attend_together(self.kv(layer), q[party.rows], party)
            if party.used is None:
                out[party.rows] = found
            else:
                out[party.rows[party.used]] = found[party.used]
        for index in self._others:
            start, end, context = int(batch.starts[index]), int(batch.starts[index + 1]), int(batch.contexts[index])
            out[start:end] = self._attend_one(layer, q[start:end], batch.block_table[index], context)
        return out


def _padded_rank(rank: int) -> int:
    padded = 8
    while padded < rank:
        padded *= 2
    return padded


def _fill_lines(target: Tensor, space: Tensor, rows: Rows) -> None:
    """``target`` ``[layers, rank, length]``: the rows of one matrix, and zeros below."""
    lines = space[:, rows.base : rows.base + rows.count * rows.stride].view(len(space), rows.count, rows.stride)
    target[:, : rows.count] = lines[:, :, : rows.length]
    target[:, rows.count :] = 0


def _tiles(rows: Ints, width: int) -> Ints:
    """``[tiles, width]``; -1 fills the last one."""
    filled = np.full(-(-len(rows) // width) * width, -1)
    filled[: len(rows)] = rows
    return filled.reshape(-1, width)


def _turns(tiles: Sequence[Ints]) -> list[Turn]:
    """``tiles``: by place. Some rounds over all places, and for each place that has more tiles a turn of its own."""
    counts = [len(each) for each in tiles]

    def cost(rounds: int) -> int:
        """In products of one tile; a call costs as much as some of them."""
        alone = [count - rounds for count in counts if count > rounds]
        return rounds * (len(counts) + CALL_TILES) + sum(alone) + CALL_TILES * len(alone)

    rounds = min({0, *counts}, key=cost)
    missing = np.full(tiles[0].shape[1], -1) if tiles else NO_ROWS
    turns = [
        _turn(np.stack([each[number] if len(each) > number else missing for each in tiles])) for number in range(rounds)
    ]
    return turns + [_turn(each[rounds:], place) for place, each in enumerate(tiles) if len(each) > rounds]


def _turn(rows: Ints, place: int | None = None) -> Turn:
    used = rows >= 0
    return Turn(torch.from_numpy(rows.clip(0)), place, None if used.all() else torch.from_numpy(used))
