"""A tree of counters: siblings in a heap, who has had the least first."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic

from exoflow.llm.fair.line import Line
from exoflow.llm.fair.policy import Order, W, order_of

_serials = itertools.count()


class Node(Generic[W]):
    """A client, or a group of them, among its siblings. The leaf of a client hangs below its node, as ``None``."""

    __slots__ = (
        "_head", "children", "counter", "entry", "heap", "last", "line", "parent", "queued", "step", "under_way",
        "waiting",
    )  # fmt: skip

    def __init__(self, parent: Node[W] | None, step: int) -> None:
        self.parent = parent
        self.step = step
        """What a charge of 1 adds to the counter."""
        self.counter = 0
        self.children: dict[str | None, Node[W]] = {}
        self.heap: list[tuple[int, Order, int, Node[W]]] = []
        """Of the children that wait, by counter, then by who came first. An entry may lie below its child's key, never
        above it; one that is not its child's ``entry`` any more is passed over.
        """
        self.entry: tuple[int, Order, int, Node[W]] | None = None
        """Its own, in the parent's heap."""
        self.queued = 0
        """Children that wait."""
        self.last: Node[W] | None = None
        """The child that was the last to wait no more."""
        self.waiting = 0
        """Requests, in all leaves below."""
        self.line: Line[W] | None = None
        """A leaf's."""
        self.under_way = 0
        """A leaf's requests that have been admitted and have not ended."""
        self._head: Order | None = None

    def first(self) -> Node[W]:
        """The child with the least counter, of those that wait; of equals, whose head request came first."""
        while True:
            entry = self.heap[0]
            child = entry[3]
            if child.entry is not entry:
                heapq.heappop(self.heap)
                continue
            head = child._head or child.head()
            if child.counter == entry[0] and head == entry[1]:
                return child
            child.entry = (child.counter, head, next(_serials), child)
            heapq.heapreplace(self.heap, child.entry)

    def head(self) -> Order:
        """Of the request that would be next here. It is known until a line or a counter below has changed."""
        if self._head is None:
            self._head = order_of(self.line.head()) if self.line is not None else self.first().head()
        return self._head

    def changed(self) -> None:
        """Something below has: heads from here on up may be others."""
        node: Node[W] | None = self
        while node is not None:
            node._head = None
            node = node.parent

    def enter(self) -> None:
        """Stand in the parent's heap at its key. Call it when that may have become less."""
        parent, entry, head = self.parent, self.entry, self.head()
        assert parent is not None
        if entry is not None and (entry[0], entry[1]) <= (self.counter, head):
            return
        parent.queued += entry is None
        self.entry = (self.counter, head, next(_serials), self)
        heapq.heappush(parent.heap, self.entry)
        if len(parent.heap) > 2 * parent.queued + 32:
            parent.heap = [each for each in parent.heap if each[3].entry is each]
            heapq.heapify(parent.heap)

    def leave(self) -> None:
        """Nothing waits here any more."""
        assert self.parent is not None
        self.parent.queued -= 1
        self.parent.last, self.entry = self, None

    def up(self) -> Iterator[Node[W]]:
        """It and those above it, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent
