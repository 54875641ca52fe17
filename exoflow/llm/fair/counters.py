"""Virtual token counters: siblings in a heap, and groups of siblings in a tree."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import lcm
from typing import Generic

from exoflow.llm.fair.accounts import Account, Expectation
from exoflow.llm.fair.costs import Cost
from exoflow.llm.fair.line import Line
from exoflow.llm.fair.policy import Client, Order, W, order_of

_serials = itertools.count()
SWEEP_MIN = 256


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


class Counters(Generic[W]):
    """One band's requests, by Sheng et al., "Fairness in Serving Large Language Models", OSDI '24, algorithms 2 and 4.

    Other than there: clients form a tree, and each group of siblings has counters of its own; a client that finds the
    queue empty is lifted to the counter of who was the last to leave it; a client that has nothing under way, and
    would be lifted anyway, is forgotten.

    A counter is an integer: charges divided by weights, times ``scale``, a multiple of each weight's numerator.
    """

    def __init__(self, cost: Cost, expectation: Expectation[W], weights: Mapping[Client, Fraction]) -> None:
        self._cost = cost
        self._expectation = expectation
        self._weights = dict(weights)
        self.scale = lcm(*(weight.numerator for weight in self._weights.values()))
        self.root: Node[W] = Node(None, self.scale)
        self._accounts: dict[int, Account[Node[W]]] = {}
        self._nodes = 0
        self._sweep_at = SWEEP_MIN

    # The policy.

    def add(self, w: W, now_s: float) -> None:
        self._arrive(self._leaf(w.client), w)

    def requeue(self, w: W, now_s: float) -> None:
        self._arrive(self._accounts[w.number].owner, w)

    def peek(self, now_s: float) -> W | None:
        return self._line(self._first()).head() if self.root.waiting else None

    def pop(self, now_s: float) -> W:
        leaf = self._first()
        w = self._line(leaf).pop()
        due = 0
        if w.number not in self._accounts:
            account = Account(leaf, w.input_tokens, self._expectation.of(w))
            due = account.admit(self._cost)
            self._charge(leaf, due)
            self._accounts[w.number] = account
            leaf.under_way += 1
        self._depart(leaf, dearer=due > 0)
        return w

    def charge(self, w: W, tokens: int) -> None:
        account = self._accounts[w.number]
        if due := account.more(self._cost, tokens):
            self._charge(account.owner, due)

    def finish(self, w: W, billed: int | None = None) -> None:
        account = self._accounts.pop(w.number)
        leaf = account.owner
        self._charge(leaf, account.settle(self._cost, billed))
        self._expectation.ended(w.client, account.got)
        leaf.under_way -= 1
        self._rest(leaf)

    def cancel(self, w: W) -> bool:
        leaf = self._find(w.client)
        if leaf is None or not self._line(leaf).cancel(w):
            return False
        self._depart(leaf, dearer=False)
        if w.number in self._accounts:
            self.finish(w)
        else:
            self._rest(leaf)
        return True

    def spend(self, client: Client, amount: int) -> None:
        """Charge somebody for what is not under way here."""
        leaf = self._leaf(client)
        self._charge(leaf, amount)
        self._rest(leaf)

    def counters(self) -> dict[Client, Fraction]:
        """Of each client and group that is remembered."""
        found: dict[Client, Fraction] = {}
        groups: list[tuple[Client, Node[W]]] = [((), self.root)]
        for path, group in groups:
            for name, child in group.children.items():
                if name is not None:
                    found[*path, name] = Fraction(child.counter, self.scale)
                    groups.append(((*path, name), child))
                elif group is self.root:
                    found[()] = Fraction(child.counter, self.scale)
        return found

    def __len__(self) -> int:
        return self.root.waiting

    def __iter__(self) -> Iterator[W]:
        nodes = [self.root]
        for node in nodes:
            nodes.extend(child for child in node.children.values() if child.waiting)
            yield from node.line or ()

    # Weights.

    def weigh(self, client: Client, weight: Fraction) -> None:
        """From now on its charges are divided by this. Counters stay, exactly; what is reserved for answers that are
        under way is charged anew.
        """
        self._weights[client] = weight
        factor = lcm(self.scale, weight.numerator) // self.scale
        if factor > 1:
            self.scale *= factor
            self._rescale(self.root, factor)
        node: Node[W] | None = self.root
        for name in client:
            node = node.children.get(name) if node is not None else None
        if node is None or node is self.root:
            return
        before, node.step = node.step, self._step(client)
        node.counter += self._reserved()[node] * (node.step - before)
        node.changed()
        for each in node.up():
            if each.waiting:
                each.enter()

    def _rescale(self, root: Node[W], factor: int) -> None:
        nodes = [root]
        for node in nodes:
            nodes.extend(node.children.values())
            node.counter *= factor
            node.step *= factor
            live = [child for child in node.children.values() if child.entry is not None]
            for child in live:
                assert child.entry is not None
                child.entry = (child.entry[0] * factor, *child.entry[1:])
            node.heap = [child.entry for child in live if child.entry is not None]
            heapq.heapify(node.heap)

    def _reserved(self) -> Counter[Node[W]]:
        """What has been charged for tokens that are still to come, by node."""
        reserved: Counter[Node[W]] = Counter()
        for account in self._accounts.values():
            if account.reserved:
                used = self._cost(account.input_tokens, account.got)
                for node in account.owner.up():
                    reserved[node] += account.paid - used
        return reserved

    def _step(self, client: Client) -> int:
        weight = self._weights.get(client, Fraction(1))
        return int(self.scale / weight)

    # Coming and going.

    def _arrive(self, leaf: Node[W], w: W) -> None:
        line = self._line(leaf)
        line.add(w)
        is_next = line.head() is w
        if is_next:
            leaf.changed()
        for node in leaf.up():
            assert node.parent is not None
            if not node.waiting:
                node.counter = max(node.counter, self._floor(node.parent))
            node.waiting += 1
            if is_next:
                node.enter()
        self.root.waiting += 1

    def _floor(self, group: Node[W]) -> int:
        """What a sibling is lifted to when it begins to wait: it keeps its debts, and loses its credit."""
        if group.queued:
            return group.first().counter
        return group.last.counter if group.last is not None else 0

    def _depart(self, leaf: Node[W], *, dearer: bool) -> None:
        """One less waits.

        Args:
            dearer: all counters above have grown, so that no key is less than it was.
        """
        leaf.changed()
        for node in leaf.up():
            node.waiting -= 1
            if not node.waiting:
                node.leave()
            elif not dearer:
                node.enter()
        self.root.waiting -= 1

    def _charge(self, leaf: Node[W], amount: int) -> None:
        """Below 0, it is given back, and nobody is lifted for it."""
        if not amount:
            return
        node = leaf
        while (parent := node.parent) is not None:
            node.counter += amount * node.step
            parent._head = None
            node = parent
        if amount < 0:
            for node in leaf.up():
                if node.waiting:
                    node.enter()

    def _first(self) -> Node[W]:
        node = self.root
        while node.line is None:
            node = node.first()
        return node

    # The tree.

    def _leaf(self, client: Client) -> Node[W]:
        node = self.root
        for depth, name in enumerate((*client, None), 1):
            child = node.children.get(name)
            if child is None:
                step = self.scale if name is None else self._step(client[:depth])
                child = node.children[name] = Node(node, step)
                self._nodes += 1
            node = child
        if node.line is None:
            node.line = Line()
        return node

    def _find(self, client: Client) -> Node[W] | None:
        node: Node[W] | None = self.root
        for name in (*client, None):
            node = node.children.get(name) if node is not None else None
        return node

    def _line(self, leaf: Node[W]) -> Line[W]:
        assert leaf.line is not None, "a leaf has a line"
        return leaf.line

    # Forgetting.

    def _rest(self, leaf: Node[W]) -> None:
        """A leaf may have nothing to do any more."""
        if leaf.waiting or leaf.under_way:
            return
        self._line(leaf).forget()
        if self._nodes > self._sweep_at:
            paid: Counter[Node[W]] = Counter()
            for account in self._accounts.values():
                for node in account.owner.up():
                    paid[node] += account.paid
            self._sweep(self.root, paid)
            self._sweep_at = max(SWEEP_MIN, 2 * self._nodes)

    def _sweep(self, group: Node[W], paid: Counter[Node[W]]) -> bool:
        """Forget children that would be lifted when they come again, whatever happens until then; whether nothing is
        left to be remembered of this group but its own counter.

        No floor will be below the least that is certain now: the counters of those that wait, of those that may be
        refunded, and, while nobody waits, of the last, each less all that it may be refunded.
        """
        holding = [child for child in group.children.values() if child.waiting or child in paid]
        if not group.waiting and group.last is not None:
            holding.append(group.last)
        certain = min((child.counter - paid[child] * child.step for child in holding), default=-1)
        bare = not group.waiting
        for name, child in list(group.children.items()):
            alone = self._sweep(child, paid) if child.line is None else not (child.waiting or child.under_way)
            if not group.waiting and child is group.last:
                bare = bare and alone
            elif alone and child not in paid and child.counter <= certain:
                del group.children[name]
                group.last = None if child is group.last else group.last
                self._nodes -= 1
            else:
                bare = False
        return bare
