"""What the kernels know of resident adapters, by slot. Of fixed size, so that captured graphs stay valid."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from exoflow.llm.engine.adapters.layout import AdapterLayout
from exoflow.llm.engine.geometry import Geometry


class AdapterTables:
    """On the device, ``S`` slots, ``M`` modules in the order of ``Geometry.modules``, ``G`` groups.

    Attributes:
        pages: ``[S, most pages]`` int32: the page of each E elements of the adapter's address space.
        row_base: ``[S, G, 2]`` int32: offsets of the group's rows of A and of B.
        rank: ``[S, M]`` int32; 0: the module is left alone.
        scale: ``[L, S, M]`` float32: alpha / rank (or / sqrt(rank)) in that layer; 0 where a layer lacks the module.
    """

    def __init__(self, geometry: Geometry, slots: int, page_elems: int, max_rank: int, device: torch.device) -> None:
        modules = geometry.modules
        most = AdapterLayout(geometry, (max_rank,) * len(modules)).pages(page_elems)
        self.geometry = geometry
        self.page_elems = page_elems
        self.max_rank = max_rank
        self.pages = torch.zeros(slots, most, dtype=torch.int32, device=device)
        self.row_base = torch.zeros(slots, len(geometry.groups), 2, dtype=torch.int32, device=device)
        self.rank = torch.zeros(slots, len(modules), dtype=torch.int32, device=device)
        self.scale = torch.zeros(geometry.layers, slots, len(modules), dtype=torch.float32, device=device)
        self._stamp = itertools.count()
        self.layouts: dict[int, AdapterLayout] = {}
        """By slot, on the CPU: for kernels that are written with loops."""
        self.page_lists: dict[int, tuple[int, ...]] = {}
        self.stamps: dict[int, int] = {}
        """By slot: a number that no other content of it ever had."""
        self._groups: dict[int, int] = {}
        """By slot: the groups that it changes, a bit each."""

    def fill(self, slot: int, layout: AdapterLayout, pages: Sequence[int], scale: Tensor) -> None:
        """The slot's adapter: its rows, its pages, its scale ``[L, M]``."""
        self.pages[slot, : len(pages)] = torch.tensor(pages, dtype=torch.int32).to(self.pages.device)
        self.row_base[slot] = torch.tensor(layout.row_bases(), dtype=torch.int32).to(self.row_base.device)
        self.rank[slot] = torch.tensor(layout.ranks, dtype=torch.int32).to(self.rank.device)
        self.scale[:, slot] = scale.to(self.scale.device)
        self.layouts[slot], self.page_lists[slot] = layout, tuple(pages)
        self.stamps[slot] = next(self._stamp)
        ranks = iter(layout.ranks)
        self._groups[slot] = sum(
            (sum(next(ranks) for _ in group.modules) > 0) << index for index, group in enumerate(self.geometry.groups)
        )

    def groups_of(self, slots: Iterable[int]) -> int:
        """The groups that any of these adapters changes, a bit each; slot -1 changes none."""
        found = 0
        for slot in set(slots):
            found |= self._groups.get(slot, 0)
        return found
