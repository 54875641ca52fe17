"""Asks whose budget is reserved by calls in flight: they are out of the queue until there may be room.

While an account has not enough left for the one whose turn it was, nobody below it is served: a small ask would
otherwise pass a large one for ever. The order of each client is kept. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from exoflow.llm.fair.asks import Client, Place, Waiter
from exoflow.llm.fair.ledger import Account, short


@dataclass(slots=True, eq=False)
class _Line:
    """A client's asks that are held."""

    waiting: list[Waiter] = field(default_factory=list)
    """A heap by number; those that are gone are passed over."""
    tried: Waiter | None = None
    """Its first one, which is in the queue again."""


@dataclass(slots=True, eq=False)
class _Block:
    """An account that has not enough left for ``first``."""

    first: Waiter
    clients: dict[Client, None] = field(default_factory=dict)


class Held:
    """Each ask here has left the queue; ``tried_again`` and ``freed`` say which are to be queued again."""

    def __init__(self) -> None:
        self._blocks: dict[Account, _Block] = {}
        self._lines: dict[Client, _Line] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def is_behind(self, waiter: Waiter) -> bool:
        """Whether it has to wait here, although nobody has looked whether there is room for it."""
        return any(account in self._blocks for account in waiter.of.account.upwards)

    def hold(self, waiter: Waiter, lacks: Account | None = None) -> None:
        """It waits: behind others; or first, since this account has not enough left."""
        waiter.place = Place.HELD
        line = self._lines.setdefault(waiter.of, _Line())
        if line.tried is waiter:
            line.tried = None
        heapq.heappush(line.waiting, waiter)
        if lacks is not None:
            self._blocks[lacks] = _Block(waiter)
        for account in waiter.of.account.upwards:
            if account in self._blocks:
                self._blocks[account].clients[waiter.of] = None

    def freed(self, account: Account | None) -> Iterator[Waiter]:
        """Some of what this account, and those above it, had reserved is free again; None: any may have more room."""
        if self._blocks:
            for each in list(self._blocks) if account is None else account.upwards:
                block = self._blocks.get(each)
                if block is not None and self._may_go(each, block.first):
                    del self._blocks[each]
                    for client in block.clients:
                        yield from self._try(client)

    def _may_go(self, account: Account, first: Waiter) -> bool:
        if first.place is not Place.HELD:
            return True
        lack = short(first.of.account, *first.ask.most)
        return lack is None or lack.is_final or lack.account is not account

    def left(self, waiter: Waiter) -> Iterator[Waiter]:
        """It was served, refused or cancelled: whoever had to wait for that is next."""
        if not self._lines:
            return
        line = self._lines.get(waiter.of)
        if line is not None and line.tried is waiter:
            line.tried = None
            yield from self._try(waiter.of)
        for account in waiter.of.account.upwards:
            block = self._blocks.get(account)
            if block is not None and block.first is waiter:
                yield from self.freed(account)

    def _try(self, client: Client) -> Iterator[Waiter]:
        """The client's first, unless one of it is tried already or cannot be."""
        line = self._lines.get(client)
        if line is None or line.tried is not None:
            return
        while line.waiting and line.waiting[0].place is not Place.HELD:
            heapq.heappop(line.waiting)
        if not line.waiting:
            del self._lines[client]
            return
        above = [self._blocks[account] for account in client.account.upwards if account in self._blocks]
        for block in above:
            block.clients[client] = None
        if not above:
            line.tried = heapq.heappop(line.waiting)
            line.tried.place = Place.QUEUED
            yield line.tried
