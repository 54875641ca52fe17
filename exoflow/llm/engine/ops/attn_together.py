"""Attention on a CPU: of many short chunks at once, padded to one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from exoflow.llm.engine.batch import Batch
from exoflow.llm.engine.geometry import Geometry

MANY_ROWS = 16
"""A chunk with more is worth calls of its own: beside its arithmetic they cost nothing, and padding would."""


@dataclass(frozen=True, slots=True)
class Party:
    """Sequences whose attention is computed at once.

    Attributes:
        rows: ``[sequences, width]``; whoever has fewer has its last one again.
        used: ``[sequences, width]`` bool: what is not there again; None: all.
        pages: ``[sequences * most pages]``.
        read: ``[2, sequences * most pages, block, kv_heads * head_dim]``: where their KV is gathered, layer by layer.
            Fresh memory for each layer would cost more than the copy.
        shortest: tokens that all sequences have.
        beyond: ``[sequences, tokens - shortest, 1, 1]`` bool: what lies in the pages behind the sequence's own tokens.
        mask: ``[sequences, 1, heads for each KV head * width, tokens]``: 0 where the row sees the token, else -inf.
    """

    rows: Tensor
    used: Tensor | None
    pages: Tensor
    read: Tensor
    shortest: int
    beyond: Tensor
    mask: Tensor

    @classmethod
    def of(cls, batch: Batch, sequences: Sequence[int], geometry: Geometry, block: int, dtype: torch.dtype) -> Self:
        starts, contexts = (each[sequences, None] for each in (batch.starts, batch.contexts))
        counts = np.diff(batch.starts)[sequences, None]
        numbers = np.arange(counts.max())
        used, numbers = numbers < counts, np.minimum(numbers, counts - 1)
        pages, shortest = -(-int(contexts.max()) // block), int(contexts.min())
        places = torch.arange(pages * block)
        last = torch.from_numpy(contexts - counts + numbers)
        mask = torch.zeros(*last.shape, len(places), dtype=dtype)
        mask.masked_fill_(places > last[:, :, None], -torch.inf)
        shared = geometry.heads // geometry.kv_heads
        return cls(
            rows=torch.from_numpy(starts + numbers).long(),
            used=None if used.all() else torch.from_numpy(used),
            pages=batch.block_table[sequences, :pages].flatten().long(),
            read=torch.empty(2, len(sequences) * pages, block, geometry.kv_heads * geometry.head_dim, dtype=dtype),
            shortest=shortest,
            beyond=(places[shortest:] >= torch.from_numpy(contexts))[:, :, None, None],
            mask=mask[:, None].expand(-1, shared, -1, -1).reshape(len(sequences), 1, -1, len(places)),
        )


def alike_in(batch: Batch) -> tuple[list[list[int]], list[int]]:
    """Sequences that have about as many rows and about as long a context; and those of which each has many rows."""
    alike: dict[tuple[int, int], list[int]] = {}
    others = []
    for index, (count, context) in enumerate(zip(np.diff(batch.starts).tolist(), batch.contexts.tolist(), strict=True)):
        if count > MANY_ROWS:
            others.append(index)
        elif count:
            alike.setdefault(((count - 1).bit_length(), (context - 1).bit_length()), []).append(index)
    return list(alike.values()), others


def attend_together(kv: Tensor, q: Tensor, party: Party) -> Tensor:
    """Causal attention of each row to its own sequence.

    Args:
        kv: ``[pages, 2, block, kv_heads * head_dim]``.
        q: ``[sequences, width, heads, head_dim]``, the shape of what comes back.
    """
    count, width, _, size = q.shape
    for side, read in enumerate(party.read):
        torch.index_select(kv[:, side], 0, party.pages, out=read)
    k, v = party.read.view(2, count, party.mask.shape[-1], -1, size)
    for each in (k, v):  # what others left there may be infinite, and no mask makes that harmless
        each[:, party.shortest :].masked_fill_(party.beyond, 0)
    # The heads that share keys and values stand as rows of one head: nothing has to be repeated for them.
    rows = q.view(count, width, k.shape[2], -1, size).permute(0, 2, 3, 1, 4).reshape(count, k.shape[2], -1, size)
    out = functional.scaled_dot_product_attention(rows, k.transpose(1, 2), v.transpose(1, 2), attn_mask=party.mask)
    return out.view(count, k.shape[2], -1, width, size).permute(0, 3, 1, 2, 4).reshape(q.shape)
