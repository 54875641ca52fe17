"""The operations of a decoder, by device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from exoflow.llm.engine.adapters.tables import AdapterTables
    from exoflow.llm.engine.geometry import Geometry
    from exoflow.llm.engine.ops.protocol import Ops


def select(pool: Tensor, tables: AdapterTables, geometry: Geometry, block: int, max_rows: int) -> Ops:
    """The fastest that there are for the device of the pool; ``max_rows``: of a step."""
    if pool.device.type == "cuda":
        from exoflow.llm.engine.ops.kernels import TritonOps  # Triton is not everywhere

        return TritonOps(pool, tables, geometry, block, max_rows=max_rows)
    from exoflow.llm.engine.ops.stacked import StackedOps

    return StackedOps(pool, tables, geometry, block)
