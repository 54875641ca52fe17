"""What the Virtual Token Counter is compared with, behind the same protocol."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from math import lcm
from typing import Any, ClassVar, Generic

from exoflow.llm.fair.bands import Bands
from exoflow.llm.fair.charges import Charges
from exoflow.llm.fair.costs import Cost, Linear, checked, weight_of
from exoflow.llm.fair.counters import Counters
from exoflow.llm.fair.line import Line
from exoflow.llm.fair.nodes import Node
from exoflow.llm.fair.policy import Path, W, cached_of, order_of, path_of
from exoflow.llm.fair.vtc import VTC, Weights


class FCFS(Bands[W]):
    """First come, first served, whoever asks; jobs and weights mean nothing."""

    def __init__(self, *, ageing_s: float | None = None) -> None:
        super().__init__(_Arrivals, ageing_s)


class _Unlifted(Counters[W]):
    def _floor(self, group: Node[W]) -> int:
        return 0

    def _sweep(self, group: Node[W], paid: Counter[Node[W]]) -> bool:
        return False  # credit is remembered for ever


class LCF(VTC[W]):
    """Least counter first: VTC without the lift. Who was away comes back with credit, and is served alone until it is
    spent.
    """

    _counters: ClassVar[type[Counters[Any]]] = _Unlifted


class RPM(Bands[W]):
    """First come, first served, of each client no more than so many in a minute of the clock; the others wait.

    Args:
        limit: requests a minute.
    """

    def __init__(self, limit: int, *, ageing_s: float | None = None) -> None:
        if limit < 1:
            raise ValueError(f"limit={limit}: nobody would ever be served")
        minute = _Minute()
        super().__init__(lambda: _Limited(limit, minute), ageing_s)

    def ready_s(self, now_s: float) -> float | None:
        """When ``peek`` may give somebody though nothing is called; None: it does not wait for the clock."""
        waits = len(self) and self.peek(now_s) is None
        return (now_s // MINUTE_S + 1) * MINUTE_S if waits else None


class DRR(Bands[W]):
    """Deficit round robin (Shreedhar and Varghese, SIGCOMM '95), paid afterwards, since nobody knows an answer's cost
    before: each client in turn is given its quantum, and served while any of it is left.

    Args:
        quantum: what a turn gives, in the units of ``cost``; times the client's weight.
    """

    def __init__(
        self,
        cost: Cost | None = None,
        weights: Weights | None = None,
        *,
        quantum: int = 512,
        ageing_s: float | None = None,
    ) -> None:
        if quantum < 1:
            raise ValueError(f"quantum={quantum}: a turn has to give something")
        exact = {path_of(client): weight_of(weight) for client, weight in (weights or {}).items()}
        unit = lcm(*(weight.denominator for weight in exact.values()))
        gains = {client: int(quantum * weight * unit) for client, weight in exact.items()}
        of_cost = checked(cost) if cost is not None else Linear(1, 2)
        super().__init__(lambda: _RoundRobin(of_cost, gains, quantum * unit, unit), ageing_s)


MINUTE_S = 60


class _Arrivals(Generic[W]):
    """Requests by arrival."""

    def __init__(self) -> None:
        self._waiting: dict[int, W] = {}
        self._heap: list[tuple[float, int]] = []
        self._admitted: set[int] = set()

    def add(self, w: W, now_s: float) -> None:
        self._waiting[w.number] = w
        heapq.heappush(self._heap, order_of(w))

    requeue = add

    def peek(self, now_s: float) -> W | None:
        while self._heap:
            w = self._waiting.get(self._heap[0][1])
            if w is not None:
                return w
            heapq.heappop(self._heap)
        return None

    def pop(self, now_s: float) -> W:
        assert self.peek(now_s) is not None, "nobody is next"
        return self._take()

    def _take(self) -> W:
        _, number = heapq.heappop(self._heap)
        self._admitted.add(number)
        return self._waiting.pop(number)

    def charge(self, w: W, tokens: int) -> None:
        pass

    def finish(self, w: W, billed: int | None = None) -> None:
        self._admitted.discard(w.number)

    def cancel(self, w: W) -> bool:
        if self._waiting.pop(w.number, None) is None:
            return False
        self.finish(w)
        return True

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[W]:
        return iter(self._waiting.values())


class _Minute:
    """How many requests of each client were admitted in this minute, in all bands."""

    def __init__(self) -> None:
        self.number = -1
        self.used: Counter[Path] = Counter()

    def look(self, now_s: float) -> int:
        if (number := int(now_s // MINUTE_S)) != self.number:
            self.number = number
            self.used.clear()
        return number


class _Limited(_Arrivals[W]):
    """By arrival, without those whose client has had its share of this minute."""

    def __init__(self, limit: int, minute: _Minute) -> None:
        super().__init__()
        self._limit = limit
        self._minute = minute
        self._later: list[tuple[float, int]] = []
        self._later_than = -1
        """The minute in which they were put off."""

    def peek(self, now_s: float) -> W | None:
        number = self._minute.look(now_s)
        if self._later and number != self._later_than:
            self._heap += self._later
            self._later = []
            heapq.heapify(self._heap)
        self._later_than = number
        while (w := super().peek(now_s)) is not None:
            if w.number in self._admitted or self._minute.used[w.client] < self._limit:
                return w
            self._later.append(heapq.heappop(self._heap))
        return None

    def pop(self, now_s: float) -> W:
        w = self.peek(now_s)
        assert w is not None, "nobody is next"
        self._minute.used[w.client] += w.number not in self._admitted
        return self._take()


class _RoundRobin(Generic[W]):
    """Clients in a ring; the one whose turn it is stands first."""

    def __init__(self, cost: Cost, gains: Mapping[Path, int], gain: int, unit: int) -> None:
        self._cost = cost
        self._gains = gains
        self._gain = gain
        self._unit = unit
        self._ring: deque[Path] = deque()
        self._lines: dict[Path, Line[W]] = {}
        """Of those that wait."""
        self._balance: Counter[Path] = Counter()
        """What they may still use, in 1/unit. Of those that are not in the ring, debts."""
        self._charges: dict[int, Charges[Path]] = {}
        self._waiting = 0

    def add(self, w: W, now_s: float) -> None:
        line = self._lines.get(w.client)
        if line is None:
            line = self._lines[w.client] = Line()
            self._ring.append(w.client)
            if len(self._ring) == 1:
                self._balance[w.client] += self._gains.get(w.client, self._gain)
        line.add(w)
        self._waiting += 1

    requeue = add

    def peek(self, now_s: float) -> W | None:
        return self._lines[self._turn()].head() if self._ring else None

    def pop(self, now_s: float) -> W:
        client = self._turn()
        w = self._lines[client].pop()
        self._departed(client)
        if w.number not in self._charges:
            charges = self._charges[w.number] = Charges(client, w.input_tokens, 0)
            self._charge(client, charges.admit(self._cost))
        return w

    def charge(self, w: W, tokens: int) -> None:
        self._charge(w.client, self._charges[w.number].more(self._cost, tokens))

    def finish(self, w: W, billed: int | None = None) -> None:
        due = self._charges[w.number].settle(self._cost, billed, cached_of(w))
        del self._charges[w.number]
        self._charge(w.client, due)

    def cancel(self, w: W) -> bool:
        line = self._lines.get(w.client)
        if line is None or not line.cancel(w):
            return False
        self._departed(w.client)
        if w.number in self._charges:
            self.finish(w)
        return True

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[W]:
        for line in self._lines.values():
            yield from line

    def _turn(self) -> Path:
        """Whose turn it is: each that comes first in the ring, in debt, gets its quantum at the end of it."""
        passed = 0
        while self._balance[self._ring[0]] <= 0:
            if passed == len(self._ring):
                self._skip()
                passed = 0
            self._ring.rotate(-1)
            self._balance[self._ring[0]] += self._gains.get(self._ring[0], self._gain)
            passed += 1
        return self._ring[0]

    def _skip(self) -> None:
        """Turns in which all would stay in debt, at once."""
        turns = min(-self._balance[client] // self._gains.get(client, self._gain) for client in self._ring)
        for client in self._ring:
            self._balance[client] += turns * self._gains.get(client, self._gain)

    def _departed(self, client: Path) -> None:
        self._waiting -= 1
        if not self._lines[client]:
            del self._lines[client]
            self._ring.remove(client)
            self._forget_credit(client)

    def _charge(self, client: Path, amount: int) -> None:
        self._balance[client] -= amount * self._unit
        if client not in self._lines:
            self._forget_credit(client)

    def _forget_credit(self, client: Path) -> None:
        if self._balance[client] >= 0:
            del self._balance[client]
