"""The operations for a CPU: the adapters of a batch lie side by side in a stack, and one ``bmm`` works on all of them.

The pool stays the truth; a stack is a copy of what is in use now, and only what is new is copied into it. Ranks are
padded to a power of two from 8 on, each in a stack of its own, so that the shape of a tile's products depends on its
own adapter alone: with that, and tiles of always ``TILE`` rows, a row's delta has the same bits whatever else is in
the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from exoflow.llm.engine.adapters.layout import Rows
from exoflow.llm.engine.adapters.tables import AdapterTables
from exoflow.llm.engine.batch import TILE, Batch
from exoflow.llm.engine.geometry import Geometry
from exoflow.llm.engine.ops.reference import ReferenceOps

Key = tuple[int, int]
"""A slot, and the stamp of what it held."""


@dataclass(slots=True)
class Stack:
    """The adapters of one padded rank that are in use.

    Attributes:
        keys: whose each place is; places of those that are not in this batch are computed in vain.
        a: by group, ``[layers, places, modules * rank, inputs]``.
        b: by module, ``[layers, places, rank, outputs]``, scaled.
        rounds: of this batch: at most one tile of each adapter a round, ``[places * TILE]`` rows of x; none: the row
            behind its last.
    """

    rank: int
    keys: list[Key] = field(default_factory=list)
    a: list[Tensor] = field(default_factory=list)
    b: list[Tensor] = field(default_factory=list)
    rounds: list[Tensor] = field(default_factory=list)


class StackedOps(ReferenceOps):
    """As ``ReferenceOps``, by products of whole batches."""

    def __init__(self, pool: Tensor, tables: AdapterTables, geometry: Geometry, block: int) -> None:
        super().__init__(pool, tables, geometry, block)
        self._stacks: dict[int, Stack] = {}
        self._singles = torch.zeros(0, dtype=torch.int64)

    # Adapters.

    def begin(self, batch: Batch) -> None:
        self._singles = torch.from_numpy(np.flatnonzero(np.diff(batch.starts) == 1))
        tiles: dict[int, dict[Key, list[Tensor]]] = {}
        for slot, rows in zip(batch.tile_slots.tolist(), batch.tile_rows, strict=True):
            if slot < 0:
                continue
            rank = _padded_rank(max(self.tables.layouts[slot].ranks))
            key = (slot, self.tables.stamps[slot])
            tiles.setdefault(rank, {}).setdefault(key, []).append(torch.where(rows < 0, batch.rows, rows))
        for stack in self._stacks.values():
            stack.rounds = []
        for rank, by_key in tiles.items():
            stack = self._stacks.setdefault(rank, Stack(rank))
            self._fill(stack, by_key)
            stack.rounds = _rounds(stack.keys, by_key, batch.rows)

    def lora(self, layer: int, group: int, x: Tensor, y: Tensor, batch: Batch) -> None:
        for stack in self._stacks.values():
            for rows in stack.rounds:
                self._add(stack, layer, group, rows, x, y)

    def _add(self, stack: Stack, layer: int, group: int, rows: Tensor, x: Tensor, y: Tensor) -> None:
        modules = self.geometry.groups[group].modules
        first = sum(len(each.modules) for each in self.geometry.groups[:group])
        used = rows < len(x)
        tile = functional.pad(x, (0, 0, 0, 1))[rows].view(-1, TILE, x.shape[1])  # the row behind the last is zero
        low = torch.bmm(tile, stack.a[group][layer].transpose(1, 2))
        column = 0
        for index, module in enumerate(modules):
            part = low[:, :, index * stack.rank : (index + 1) * stack.rank]
            delta = torch.bmm(part, stack.b[first + index][layer]).view(-1, module.outputs)
            y[rows[used], column : column + module.outputs] += delta[used]
            column += module.outputs

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
        """Sequences with one row all at once, the others one by one."""
        singles = self._singles
        if len(singles) == len(batch.contexts):
            return self._attend_singles(layer, q, batch.block_table, batch.context_lens)
        out = torch.empty_like(q)
        rows = torch.from_numpy(batch.starts)[singles].long()
        if len(rows):
            out[rows] = self._attend_singles(layer, q[rows], batch.block_table[singles], batch.context_lens[singles])
        for index, context in enumerate(batch.contexts.tolist()):
            start, end = int(batch.starts[index]), int(batch.starts[index + 1])
            if end - start > 1:
                out[start:end] = self._attend_one(layer, q[start:end], batch.block_table[index], context)
        return out

    def _attend_singles(self, layer: int, q: Tensor, table: Tensor, contexts: Tensor) -> Tensor:
        count, most = len(table), -(-int(contexts.max()) // self.block)
        kv = self.kv(layer)[table[:, :most].flatten().long()]  # [count * most, 2, block, kv width]
        shape = (count, most * self.block, self.geometry.kv_heads, self.geometry.head_dim)
        k, v = (kv[:, side].reshape(shape) for side in (0, 1))
        seen = torch.arange(most * self.block) < contexts[:, None]
        for each in (k, v):
            each[~seen] = 0  # what others left there may be infinite, and no mask makes that harmless
        k, v, seen = k.transpose(1, 2), v.transpose(1, 2), seen[:, None, None]
        return functional.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=seen, enable_gqa=True)[:, :, 0]


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


def _rounds(keys: Sequence[Key], tiles: dict[Key, list[Tensor]], nowhere: int) -> list[Tensor]:
    """Rows by round: the k-th tiles of all adapters of the stack, ``[adapters * TILE]`` each."""
    nothing = torch.full((TILE,), nowhere, dtype=torch.int64)
    most = max(len(rows) for rows in tiles.values())
    rounds: list[Tensor] = []
    for number in range(most):
        rows = (tiles.get(key, []) for key in keys)
        rounds.append(torch.cat([each[number] if number < len(each) else nothing for each in rows]))
    return rounds
