"""VTC where the most that a call may take is charged when it goes: who comes back is lifted to what will be used."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from exoflow.llm.fair.accounts import Account
from exoflow.llm.fair.costs import Cost
from exoflow.llm.fair.counters import Counters, Node
from exoflow.llm.fair.policy import W
from exoflow.llm.fair.vtc import VTC

RECENT_MAX = 64
NODES_MAX = 10_000


class _Reserving(Counters[W]):
    """Counters that hold reservations.

    With 64 slots and answers of 10 tokens where 1,000 are allowed, 127,000 of the counter of who is in flight are
    reservations that will be given back. Who was lifted to them would get nothing for thousands of calls (measured:
    1 % of the next 200, 15 % of the next 3,000; lifted to what is expected, half). What is expected is the part that
    the same client's last calls have used of their reservations.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reserved_now: Counter[Node[W]] = Counter()
        """For answers that are to come, in units of the cost."""
        self._recent: dict[Node[W], tuple[int, int, int]] = {}
        """Calls that ended, what they had reserved for answers, what they used of it."""

    def pop(self, now_s: float) -> W:
        under_way = len(self._accounts)
        w = super().pop(now_s)
        if len(self._accounts) > under_way:  # not for one that had to give up its place
            account = self._accounts[w.number]
            for node in account.owner.up():
                self._reserved_now[node] += self._most(account)
        return w

    def finish(self, w: W, billed: int | None = None) -> None:
        account = self._accounts[w.number]
        most = self._most(account)
        used = min(most, self._cost(account.input_tokens, account.got) - self._cost(account.input_tokens, 0))
        for node in account.owner.up():
            self._reserved_now[node] -= most
            if not self._reserved_now[node]:
                del self._reserved_now[node]
            self._learn(node, most, used)
        super().finish(w, billed)

    def _most(self, account: Account[Node[W]]) -> int:
        return self._cost(account.input_tokens, account.expected) - self._cost(account.input_tokens, 0)

    def _learn(self, node: Node[W], most: int, used: int) -> None:
        """Those that it remembers are bounded: who ended the longest ago goes."""
        calls, most_before, used_before = self._recent.pop(node, (0, 0, 0))
        if calls == RECENT_MAX:
            calls, most_before, used_before = calls // 2, most_before // 2, used_before // 2
        self._recent[node] = (calls + 1, most_before + most, used_before + used)
        if len(self._recent) > NODES_MAX:
            del self._recent[next(iter(self._recent))]

    def _floor(self, group: Node[W]) -> int:
        node = group.first() if group.queued else group.last
        if node is None:
            return 0
        _, most, used = self._recent.get(node, (0, 0, 0))
        unused = self._reserved_now[node] * (most - used) // most if most else 0
        return node.counter - unused * node.step


class ReservingVTC(VTC[W]):
    """``VTC(charge="reserve")``, in front of an endpoint that tells nothing before the end."""

    _counters: ClassVar[type[Counters[Any]]] = _Reserving

    def __init__(self, cost: Cost, *, ageing_s: float | None = None) -> None:
        super().__init__(cost, charge="reserve", ageing_s=ageing_s)
