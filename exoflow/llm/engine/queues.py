"""Who is next. The scheduler asks a ``Queue`` and never skips its head; a fair one stands in for ``Fcfs``."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
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
    """First come, first served: by arrival, and by number among equals."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._waiting: set[Request] = set()

    def add(self, request: Request, now_s: float) -> None:
        heapq.heappush(self._heap, (request.arrival_s, request.number, request))
        self._waiting.add(request)

    requeue = add

    def peek(self, now_s: float) -> Request | None:
        while self._heap and self._heap[0][2] not in self._waiting:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop(self, now_s: float) -> Request:
        request = self.peek(now_s)
        assert request is not None
        heapq.heappop(self._heap)
        self._waiting.remove(request)
        return request

    def charge(self, request: Request, tokens: int) -> None:
        pass

    def finish(self, request: Request) -> None:
        pass

    def cancel(self, request: Request) -> bool:
        if request not in self._waiting:
            return False
        self._waiting.remove(request)
        return True

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._waiting)
