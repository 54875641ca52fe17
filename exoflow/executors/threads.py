"""Threads that start when they are needed, and a clock for deadlines."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Generic, TypeVar, cast

from exoflow.attempts.spare import spare

T = TypeVar("T")
Take = Callable[[], T | None]
"""The next item; None: the thread is to end."""


class Threads(Generic[T]):
    """Up to ``limit`` daemon threads, each serving items from one queue. A thread starts only if none is idle."""

    def __init__(self, limit: int, serve: Callable[[Take[T]], None], name: str) -> None:
        self._limit = limit
        self._serve = serve
        self._name = name
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0
        self._all: list[threading.Thread] = []
        self._closed = False

    def put(self, item: T) -> None:
        if spare.pool is self and spare.item is None and self._queue.empty():  # else others have waited longer
            spare.item = item  # to wake another thread, and to fight with it for the interpreter, takes longer
            return
        self._queue.put(item)
        if self._count < self._limit:
            self._wake()

    def replace_one(self) -> None:
        """One of the threads will not come back, and ends when it is free: another may take its place."""
        with self._lock:
            self._count -= 1
        self._wake()

    def has_work(self) -> bool:
        """Whether items wait for a thread."""
        return not self._queue.empty()

    def close(self) -> None:
        """Let each thread end when it is free."""
        with self._lock:
            self._closed = True
            started = len(self._all)
        for _ in range(started):
            self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """After ``close``, wait until they have ended, together at most ``timeout_s``; not for the calling thread."""
        deadline = monotonic() + timeout_s
        for thread in self._all:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - monotonic()))

    def _wake(self) -> None:
        with self._lock:
            if self._queue.qsize() <= self._idle or self._count >= self._limit or self._closed:
                return
            self._count += 1
            name = f"{self._name}-{len(self._all) + 1}"
            thread = threading.Thread(target=self._serve, args=(self._take,), name=name, daemon=True)
            self._all.append(thread)
            thread.start()

    @contextmanager
    def spare(self) -> Iterator[None]:
        """A block in which a thread of the pool ends what it was given: the next item that it puts, it runs itself."""
        spare.pool = self
        try:
            yield
        finally:
            spare.pool = None

    def _take(self) -> T | None:
        if spare.item is not None:
            mine, spare.item = spare.item, None
            return cast(T, mine)
        try:
            return self._queue.get_nowait()
        except Empty:
            if self._closed:
                return None
            with self._lock:
                self._idle += 1
            item = self._queue.get()
            with self._lock:
                self._idle -= 1
            if self._count < self._limit:
                self._wake()  # somebody may have counted on this thread for the item behind
            return item


def run_all(take: Take[Callable[[], object]]) -> None:
    """What a thread serves whose items are work to be done."""
    while (work := take()) is not None:
        work()
        del work  # an idle thread must not keep a value alive


class Deadlines(Generic[T]):
    """One thread that calls ``expire(item)`` for each item whose time has come, unless ``alive(item)`` is False."""

    def __init__(self, expire: Callable[[T], None], alive: Callable[[T], bool], name: str) -> None:
        self._expire = expire
        self._alive = alive
        self._name = name
        self._heap: list[tuple[float, int, T]] = []
        self._changed = threading.Condition()
        self._number = 0
        self._purge_at = 64
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, seconds: float, item: T) -> None:
        with self._changed:
            if len(self._heap) >= self._purge_at:
                self._heap = [entry for entry in self._heap if self._alive(entry[2])]
                heapq.heapify(self._heap)
                self._purge_at = 64 + 2 * len(self._heap)
            self._number += 1
            heapq.heappush(self._heap, (monotonic() + seconds, self._number, item))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
                self._thread.start()
            elif self._heap[0][1] == self._number:
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left = self._heap[0][0] - monotonic() if self._heap else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                item = heapq.heappop(self._heap)[2]
            if self._alive(item):
                self._expire(item)
