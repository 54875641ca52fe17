"""Virtual token counters of one band: who is lifted, charged, forgotten."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import lcm
from typing import Generic

from exoflow.llm.fair.charges import Charges, Expectation
from exoflow.llm.fair.costs import Cost
from exoflow.llm.fair.line import Line
from exoflow.llm.fair.nodes import Node
from exoflow.llm.fair.policy import Path, W, cached_of

SWEEP_MIN = 256


class Counters(Generic[W]):
    """One band's requests, by Sheng et al., "Fairness in Serving Large Language Models", OSDI '24, algorithms 2 and 4.

    Other than there: clients form a tree, and each group of siblings has counters of its own; a client that finds the
    queue empty is lifted to the counter of who was the last to leave it; a client that has nothing under way, and
    would be lifted anyway, is forgotten.

    A counter is an integer: charges divided by weights, times ``scale``, a multiple of each weight's numerator.
    """

    def __init__(self, cost: Cost, expectation: Expectation[W], weights: Mapping[Path, Fraction]) -> None:
        self._cost = cost
        self._expectation = expectation
        self._weights = dict(weights)
        self.scale = lcm(*(weight.numerator for weight in self._weights.values()))
        self.root: Node[W] = Node(None, self.scale)
        self._charges: dict[int, Charges[Node[W]]] = {}
        self._nodes = 0
        self._sweep_at = SWEEP_MIN

    # The policy.

    def add(self, w: W, now_s: float) -> None:
        self._arrive(self._leaf(w.client), w)

    def requeue(self, w: W, now_s: float) -> None:
        self._arrive(self._charges[w.number].owner, w)

    def peek(self, now_s: float) -> W | None:
        return self._line(self._first()).head() if self.root.waiting else None

    def pop(self, now_s: float) -> W:
        leaf = self._first()
        w = self._line(leaf).pop()
        due = 0
        if w.number not in self._charges:
            charges = Charges(leaf, w.input_tokens, self._expectation.of(w))
            due = charges.admit(self._cost)
            self._charge(leaf, due)
            self._charges[w.number] = charges
            leaf.under_way += 1
        self._depart(leaf, dearer=due > 0)
        return w

    def charge(self, w: W, tokens: int) -> None:
        charges = self._charges[w.number]
        if due := charges.more(self._cost, tokens):
            self._charge(charges.owner, due)

    def finish(self, w: W, billed: int | None = None) -> None:
        charges = self._charges[w.number]
        leaf, due = charges.owner, charges.settle(self._cost, billed, cached_of(w))
        del self._charges[w.number]
        self._charge(leaf, due)
        self._expectation.ended(w.client, charges.got)
        leaf.under_way -= 1
        self._rest(leaf)

    def cancel(self, w: W) -> bool:
        leaf = self._find(w.client)
        if leaf is None or not self._line(leaf).cancel(w):
            return False
        self._depart(leaf, dearer=False)
        if w.number in self._charges:
            self.finish(w)
        else:
            self._rest(leaf)
        return True

    def spend(self, client: Path, amount: int) -> None:
        """Charge somebody for what is not under way here."""
        leaf = self._leaf(client)
        self._charge(leaf, amount)
        self._rest(leaf)

    def counters(self) -> dict[Path, Fraction]:
        """Of each client and group that is remembered."""
        found: dict[Path, Fraction] = {}
        groups: list[tuple[Path, Node[W]]] = [((), self.root)]
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

    def weigh(self, client: Path, weight: Fraction) -> None:
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
        for charges in self._charges.values():
            if charges.reserved:
                used = self._cost(charges.input_tokens, charges.got)
                for node in charges.owner.up():
                    reserved[node] += charges.paid - used
        return reserved

    def _step(self, client: Path) -> int:
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

    def _leaf(self, client: Path) -> Node[W]:
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

    def _find(self, client: Path) -> Node[W] | None:
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
            for charges in self._charges.values():
                for node in charges.owner.up():
                    paid[node] += charges.paid
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
