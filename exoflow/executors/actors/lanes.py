"""The workers that actors live in: each has one of its own, and a thread here that speaks with it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from exoflow.executors.actors.living import key_of, place_of
from exoflow.executors.threads import Take, Threads
from exoflow.model import Held
from exoflow.protocols import ActorPart

T = TypeVar("T")


class _Lane(Generic[T]):
    __slots__ = ("key", "threads")

    def __init__(self, threads: Threads[T]) -> None:
        self.threads = threads
        self.key: str | None = None
        """Of the state that its worker has."""


class Lanes(Generic[T]):
    """By place: ``serve(place, take)`` is the life of a lane's thread."""

    def __init__(self, serve: Callable[[str, Take[T]], None], name: str) -> None:
        self._serve = serve
        self._name = name
        self._lanes: dict[str, _Lane[T]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def put(self, part: ActorPart, item: T) -> str:
        """Give an attempt to the worker that has its state, or to a new one; the place."""
        with self._lock:
            place = None if part.state is None else place_of(part.state)
            lane = None if place is None else self._lanes.get(place)
            if place is None or lane is None:  # a worker that is gone has taken the state along, and a new one says so
                place = f"actor-{next(self._numbers)}"
                threads: Threads[T] = Threads(1, partial(self._serve, place), f"{self._name}-{place}")
                lane = self._lanes[place] = _Lane(threads)
            lane.threads.put(item)
            return place

    def put_behind(self, state: Held, item: T) -> bool:
        """Give something to the worker that has a state; whether there is one."""
        with self._lock:
            lane = self._lanes.get(place_of(state))
            if lane is None or lane.key != key_of(state):
                return False
            lane.threads.put(item)
            return True

    def left(self, place: str, state: Held | None) -> None:
        """An attempt has ended and left this state; None: nobody can use its worker any more, and it ends."""
        with self._lock:
            lane = self._lanes.get(place)
            if lane is None:
                return
            if state is None:
                self._end(place)
            else:
                lane.key = key_of(state)

    def release(self, state: Held) -> None:
        """Nobody needs the state: if it is the one that its worker has, that ends."""
        with self._lock:
            lane = self._lanes.get(place_of(state))
            if lane is not None and lane.key == key_of(state):
                self._end(place_of(state))

    def close(self, timeout_s: float) -> None:
        """End all, and wait for them."""
        with self._lock:
            lanes = list(self._lanes.values())
            self._lanes.clear()
        for lane in lanes:
            lane.threads.close()
        for lane in lanes:
            lane.threads.join(timeout_s)

    def _end(self, place: str) -> None:
        self._lanes.pop(place).threads.close()
