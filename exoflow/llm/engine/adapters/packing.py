"""Between matrices and pages."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from exoflow.llm.engine.adapters.layout import AdapterLayout

Matrices = Mapping[tuple[int, str], tuple[Tensor, Tensor]]
"""(layer, module name) → A ``[rank, inputs]`` and B ``[outputs, rank]``. What lacks is zero."""


def pack(
    layout: AdapterLayout, matrices: Matrices, page_elems: int, dtype: torch.dtype, *, pin: bool = False
) -> Tensor:
    """The pages of an adapter, ``[layers, pages, page_elems]`` in host memory, as they are copied into the pool."""
    layers, pages = layout.geometry.layers, layout.pages(page_elems)
    packed = torch.zeros(layers, pages * page_elems, dtype=dtype, pin_memory=pin)
    for (layer, name), (a, b) in matrices.items():
        for rows in layout.rows():
            if rows.module.name == name:
                matrix = a if rows.matrix == "A" else b.T
                _lines(packed[layer], rows.base, rows.count, rows.stride)[: len(matrix), : rows.length] = matrix
    return packed.view(layers, pages, page_elems)


def unpack(layout: AdapterLayout, packed: Tensor, layer: int, module: str) -> tuple[Tensor, Tensor]:
    """A ``[rank, inputs]`` and B ``[outputs, rank]`` of one module, from pages ``[pages, page_elems]`` of that layer
    in order.
    """
    flat = packed[layer].reshape(-1)
    found = {
        rows.matrix: _lines(flat, rows.base, rows.count, rows.stride)[:, : rows.length]
        for rows in layout.rows()
        if rows.module.name == module
    }
    return found["A"], found["B"].T


def _lines(flat: Tensor, base: int, count: int, stride: int) -> Tensor:
    return flat[base : base + count * stride].view(count, stride)
