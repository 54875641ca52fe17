"""From a directory to what the pool is given."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from exoflow.llm.engine.adapters.format import AdapterSpec, read_adapter
from exoflow.llm.engine.adapters.host import HostAdapter
from exoflow.llm.engine.adapters.layout import AdapterLayout
from exoflow.llm.engine.adapters.packing import pack
from exoflow.llm.engine.adapters.sharding import Shard
from exoflow.llm.engine.cores import one_core
from exoflow.llm.engine.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterReader:
    """Reads adapters for one pool."""

    geometry: Geometry
    """Of the whole base."""
    page_elems: int
    """Of this process's part of the base."""
    dtype: torch.dtype
    max_rank: int
    ranks: int = 1
    """Processes that have a part each; the first reads for all."""
    page_locked: bool = False
    """Into memory that a GPU can read by itself."""

    def read(self, directory: Path) -> tuple[AdapterSpec, HostAdapter]:
        """Raises AdapterError: it is broken, not for this base, or not supported."""
        with nullcontext() if self.page_locked else one_core():  # a GPU's steps are slowed down by nobody here
            return self._read(directory)

    def _read(self, directory: Path) -> tuple[AdapterSpec, HostAdapter]:
        spec, matrices = read_adapter(directory, self.geometry, max_rank=self.max_rank)
        layout = AdapterLayout(self.geometry.shard(self.ranks), spec.ranks)
        pages, *others = (
            pack(
                layout,
                Shard(rank, self.ranks).of(matrices, self.geometry),
                self.page_elems,
                self.dtype,
                pin=self.page_locked and rank == 0,
            )
            for rank in range(self.ranks)
        )
        return spec, HostAdapter(layout, spec.scale, pages, tuple(others))
