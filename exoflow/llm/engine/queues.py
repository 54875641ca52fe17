"""Who is next. The scheduler asks a ``Queue`` and never skips its head.

A policy of ``exoflow.llm.fair`` is one: ``Queue`` is ``Policy[Request]`` without what it can do besides.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from exoflow.llm.engine.request import Request


class Queue(Protocol):
    """Requests that wait for the engine.

    * ``peek`` MUST give the same request until something else is called, and MUST NOT take it.
    * What was ``requeued`` MUST come before whatever its client asked later, and is not to be charged again for its
      admission.
    * Every request that was added leaves by ``finish`` or ``cancel``, exactly once.
    """

    def add(self, request: Request, now_s: float) -> None: ...

    def peek(self, now_s: float) -> Request | None: ...

    def pop(self, now_s: float) -> Request:
        """The one that ``peek`` gives: it is admitted, and its prompt is charged."""
        ...

    def requeue(self, request: Request, now_s: float) -> None:
        """It was popped and has to give up its place."""
        ...

    def charge(self, request: Request, tokens: int) -> None:
        """It has got so many tokens more of its answer."""
        ...

    def finish(self, request: Request) -> None:
        """It was popped and has ended."""
        ...

    def cancel(self, request: Request) -> bool:
        """It is wanted no more; whether it was waiting here."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Request]:
        """Those that wait, in no order."""
        ...


class Fcfs:
    """First come, first served: by arrival, and by number among equals.

    Args:
        cluster_s: among those that arrived in the same span of so many seconds, one whose adapter is in the pool
            comes first: fewer loads, and nobody is passed over by who came more than that later. 0: never.
    """

    def __init__(self, cluster_s: float = 0.0) -> None:
        self.is_near: Callable[[str], bool] = lambda version: False
        """Whether this version is in the pool, or on its way. The scheduler tells."""
        self._cluster_s = cluster_s
        self._waiting: list[tuple[float, int, Request]] = []

    def add(self, request: Request, now_s: float) -> None:
        bisect.insort(self._waiting, _key(request))

    requeue = add

    def peek(self, now_s: float) -> Request | None:
        if not self._waiting:
            return None
        oldest = self._waiting[0][2]
        if not self._cluster_s or oldest.preemptions:
            return oldest
        span = oldest.arrival_s // self._cluster_s
        alike = itertools.takewhile(lambda entry: entry[0] // self._cluster_s == span, self._waiting)
        return next((request for _, _, request in alike if self._is_near(request)), oldest)

    def pop(self, now_s: float) -> Request:
        request = self.peek(now_s)
        assert request is not None
        self.cancel(request)
        return request

    def _is_near(self, request: Request) -> bool:
        return request.adapter is None or self.is_near(request.adapter.version)

    def charge(self, request: Request, tokens: int) -> None:
        pass

    def finish(self, request: Request) -> None:
        pass

    def cancel(self, request: Request) -> bool:
        place = bisect.bisect_left(self._waiting, _key(request))
        if self._waiting[place : place + 1] != [_key(request)]:
            return False
        del self._waiting[place]
        return True

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, _, request in self._waiting)


def _key(request: Request) -> tuple[float, int, Request]:
    return request.arrival_s, request.number, request
