"""One rank's part of an adapter: S-LoRA's tensor parallelism (MLSys '24, section 6), without its communication.

The base's own all-reduce of o and down completes their deltas as well, since B is whole and A is split by input.
"""

from __future__ import annotations

from dataclasses import dataclass

from exoflow.llm.engine.adapters.packing import Matrices
from exoflow.llm.engine.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Shard:
    """Which of how many ranks."""

    rank: int = 0
    ranks: int = 1

    def of(self, matrices: Matrices, geometry: Geometry) -> Matrices:
        """B split by output where the base is (qkv, gate_up), A by input elsewhere; views of the whole."""
        if self.ranks == 1:
            return matrices
        by_output = {
            module for group in geometry.groups if group.name in ("qkv", "gate_up") for module in group.modules
        }
        names = {module.name for module in by_output}
        return {
            (layer, name): (a, b.chunk(self.ranks)[self.rank])
            if name in names
            else (a.chunk(self.ranks, dim=1)[self.rank], b)
            for (layer, name), (a, b) in matrices.items()
        }
