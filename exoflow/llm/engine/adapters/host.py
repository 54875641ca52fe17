"""Adapters in host memory, packed as the pool has them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from exoflow.llm.engine.adapters.layout import AdapterLayout


@dataclass(frozen=True, slots=True, eq=False)
class HostAdapter:
    """All that the pool and the tables must be given."""

    layout: AdapterLayout
    scale: Tensor
    """``[layers, modules]`` float32."""
    pages: Tensor
    """``[layers, pages, page_elems]``, in the pool's dtype; page-locked beside a GPU."""
    others: tuple[Tensor, ...] = ()
    """The same for the other ranks."""

    @property
    def bytes(self) -> int:
        return self.pages.nbytes * (1 + len(self.others))


class HostCache:
    """By version; when there are too many bytes, what was not used for longest goes. Its owner locks.

    Args:
        stays: whether this version must not go, whatever the bytes.
    """

    def __init__(self, capacity_bytes: int, stays: Callable[[str], bool]) -> None:
        self.capacity_bytes = capacity_bytes
        self.bytes = 0
        self._stays = stays
        self._adapters: OrderedDict[str, HostAdapter] = OrderedDict()

    def __contains__(self, version: str) -> bool:
        return version in self._adapters

    def get(self, version: str) -> HostAdapter | None:
        adapter = self._adapters.get(version)
        if adapter is not None:
            self._adapters.move_to_end(version)
        return adapter

    def put(self, version: str, adapter: HostAdapter) -> None:
        self.drop(version)
        self._adapters[version] = adapter
        self.bytes += adapter.bytes
        self.shrink()

    def drop(self, version: str) -> None:
        adapter = self._adapters.pop(version, None)
        if adapter is not None:
            self.bytes -= adapter.bytes

    def shrink(self) -> None:
        """Let go of what is too much and may go."""
        for version in list(self._adapters) if self.bytes > self.capacity_bytes else ():
            if self.bytes <= self.capacity_bytes:
                return
            if not self._stays(version):
                self.drop(version)
