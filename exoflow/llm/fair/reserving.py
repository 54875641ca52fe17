"""VTC where the most that a call may take is charged when it goes: who comes back is lifted to what will be used."""

from __future__ import annotations

from typing import Any, ClassVar

from exoflow.llm.fair.costs import Cost, cost_of
from exoflow.llm.fair.counters import Counters
from exoflow.llm.fair.nodes import Node
from exoflow.llm.fair.policy import W, cached_of
from exoflow.llm.fair.vtc import VTC

RECENT_MAX = 64
PARTS_MIN = 4096


class _Part:
    """Of what a client, or a group, reserves for answers, the part that it uses. In units of the cost."""

    __slots__ = ("calls", "most", "now", "used")

    def __init__(self) -> None:
        self.now = 0
        """Reserved for answers that are to come."""
        self.calls = self.most = self.used = 0
        """Of the last calls that ended: how many, what they had reserved, what they used of it."""

    def learn(self, most: int, used: int) -> None:
        self.now -= most
        if self.calls == RECENT_MAX:
            self.calls, self.most, self.used = self.calls // 2, self.most // 2, self.used // 2
        self.calls += 1
        self.most += most
        self.used += used

    @property
    def unused(self) -> int:
        """What will be given back, by what is known."""
        return self.now * (self.most - self.used) // self.most if self.most else 0


class _Reserving(Counters[W]):
    """Counters that hold reservations.

    With 64 slots and answers of 10 tokens where 1,000 are allowed, 127,000 of the counter of who is in flight are
    reservations that will be given back. Who was lifted to them would get nothing for thousands of calls (measured:
    1 % of the next 200, 15 % of the next 3,000; lifted to what is expected, half). What is expected is the part that
    the same client's last calls have used of their reservations.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._parts: dict[Node[W], _Part] = {}
        self._sweep_parts_at = PARTS_MIN
        self._promised: dict[int, tuple[list[_Part], int, int]] = {}
        """By request: of whom it is, what its input costs, and the most that its answer may."""

    def pop(self, now_s: float) -> W:
        under_way = len(self._charges)
        w = super().pop(now_s)
        if len(self._charges) > under_way:  # not for one that had to give up its place
            charges = self._charges[w.number]
            base = self._cost(charges.input_tokens, 0)
            parts = [self._part(node) for node in charges.owner.up()]
            for part in parts:
                part.now += charges.paid - base
            self._promised[w.number] = parts, base, charges.paid - base
        return w

    def finish(self, w: W, billed: int | None = None) -> None:
        charges = self._charges[w.number]
        used = billed
        if used is None:
            used = cost_of(self._cost, charges.input_tokens, charges.got, cached_of(w))
        parts, base, most = self._promised.pop(w.number)
        for part in parts:
            part.learn(most, min(most, max(0, used - base)))
        super().finish(w, used)

    def _part(self, node: Node[W]) -> _Part:
        found = self._parts.get(node)
        if found is None:
            if len(self._parts) >= self._sweep_parts_at:
                self._parts = {each: part for each, part in self._parts.items() if part.now}
                self._sweep_parts_at = max(PARTS_MIN, 2 * len(self._parts))
            found = self._parts[node] = _Part()
        return found

    def _floor(self, group: Node[W]) -> int:
        node = group.first() if group.queued else group.last
        if node is None:
            return 0
        part = self._parts.get(node)
        return node.counter - part.unused * node.step if part is not None else node.counter


class ReservingVTC(VTC[W]):
    """``VTC(charge="reserve")``, in front of an endpoint that tells nothing before the end."""

    _counters: ClassVar[type[Counters[Any]]] = _Reserving

    def __init__(self, cost: Cost, *, ageing_s: float | None = None) -> None:
        super().__init__(cost, charge="reserve", ageing_s=ageing_s)
