"""Where an adapter's rows lie: S-LoRA (MLSys '24), section 5.1, with rows that are padded instead of split.

An adapter is a list of rows, the same in each layer, laid end to end in an address space of its own that is cut into
pages of ``page_elems``. For each group of modules: the rows of A, module after module (``rank`` rows of length
``inputs``), then those of B transposed (``rank`` rows of length ``outputs``). Each row takes a multiple of 64
elements; what pads it is zero. So

    offset = base + row * stride + k
    page = pages[offset // page_elems]
    element = pool[layer, page, offset % page_elems]

and all 64 elements from a multiple of 64 on lie in one page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from exoflow.llm.engine.geometry import Geometry, Module, padded


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one matrix of one module."""

    module: Module
    matrix: Literal["A", "B"]
    base: int
    """Offset of the first row."""
    count: int
    """The module's rank; 0: the adapter leaves the module alone."""
    length: int

    @property
    def stride(self) -> int:
        return padded(self.length)


@dataclass(frozen=True, slots=True)
class AdapterLayout:
    """One adapter's rows. Ranks by module, in the order of ``Geometry.modules``."""

    geometry: Geometry
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, geometry: Geometry, ranks: Mapping[str, int]) -> AdapterLayout:
        return cls(geometry, tuple(ranks.get(module.name, 0) for module in geometry.modules))

    def rows(self) -> Iterator[Rows]:
        """All matrices in the order in which they lie."""
        ranks = iter(self.ranks)
        base = 0
        for group in self.geometry.groups:
            mine = [(module, next(ranks)) for module in group.modules]
            for matrix in ("A", "B"):
                for module, rank in mine:
                    rows = Rows(module, matrix, base, rank, module.inputs if matrix == "A" else module.outputs)
                    base += rank * rows.stride
                    yield rows

    def row_bases(self) -> list[tuple[int, int]]:
        """For each group: where its rows of A begin, and where its rows of B begin."""
        found: dict[tuple[str, str], int] = {}
        names = {module.name: group.name for group in self.geometry.groups for module in group.modules}
        for rows in self.rows():
            found.setdefault((names[rows.module.name], rows.matrix), rows.base)
        return [(found[group.name, "A"], found[group.name, "B"]) for group in self.geometry.groups]

    @property
    def elems(self) -> int:
        """Elements of one layer."""
        return sum(rows.count * rows.stride for rows in self.rows())

    def pages(self, page_elems: int) -> int:
        return max(1, -(-self.elems // page_elems))
