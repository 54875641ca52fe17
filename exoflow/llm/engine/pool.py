"""Who owns which page. One pool for KV and adapters: S-LoRA (MLSys '24), section 5.1, unified paging.

The allocator lives on the CPU and never looks at the tensor: a page id is an index into ``[layers, pages, page_elems]``
and is valid in each layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from exoflow.errors import OutOfPages


class PagePool:
    """Free pages, and a count of owners for each that is not free."""

    def __init__(self, pages: int) -> None:
        self.size = pages
        self._free: NDArray[np.int32] = np.arange(pages - 1, -1, -1, dtype=np.int32)  # a stack: the top is at the end
        self._height = pages
        self._owners: NDArray[np.int32] = np.zeros(pages, dtype=np.int32)

    @property
    def free(self) -> int:
        """Pages that nobody owns."""
        return self._height

    @property
    def used(self) -> int:
        return self.size - self._height

    def alloc(self, count: int) -> list[int]:
        """Take ``count`` pages, each with one owner.

        Raises:
            OutOfPages: there are fewer; none is taken.
        """
        if count > self._height:
            raise OutOfPages(f"{count} pages are needed and {self._height} of {self.size} are free")
        taken: list[int] = self._free[self._height - count : self._height][::-1].tolist()
        self._height -= count
        self._owners[taken] = 1
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """One owner more for each."""
        assert all(self._owners[page] > 0 for page in pages), "a free page cannot be shared"
        np.add.at(self._owners, list(pages), 1)

    def release(self, pages: Iterable[int]) -> int:
        """One owner less for each; how many became free by it."""
        freed = 0
        for page in pages:
            assert self._owners[page] > 0, f"page {page} has no owner"
            self._owners[page] -= 1
            if self._owners[page] == 0:
                self._free[self._height] = page
                self._height += 1
                freed += 1
        return freed

    def owners(self, page: int) -> int:
        return int(self._owners[page])

    def check(self, owned: Iterable[Sequence[int]]) -> None:
        """Every page is free once, or has as many owners as there are in ``owned``. For tests; O(pages)."""
        counts = np.zeros(self.size, dtype=np.int32)
        for pages in owned:
            np.add.at(counts, list(pages), 1)
        free = self._free[: self._height]
        assert len(set(free.tolist())) == self._height, "a page is free twice"
        assert not self._owners[free].any(), "a free page has an owner"
        wrong = np.flatnonzero(counts != self._owners)
        assert not len(wrong), f"pages {wrong[:8]}: owners {self._owners[wrong[:8]]}, but {counts[wrong[:8]]} are known"
        assert np.count_nonzero(self._owners) + self._height == self.size, "a page is lost"
