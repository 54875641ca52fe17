"""Where an attempt is to run: with whom there is room, and who has its inputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING

from exoflow.executors.dask.marks import Marks
from exoflow.executors.dask.worker import Place

if TYPE_CHECKING:
    from exoflow.executors.dask.entry import Entry

AHEAD_S = 0.1
"""How much work a worker may have beyond what it can begin at once. An attempt that lies there waits for what lies
before it, and may be lost with it (``Marks`` tell only on this machine that it has not begun): so only one that may,
and never behind one that was tried before. Without any, a worker idles while it is told what to do next."""

AHEAD_MAX = 100
"""Attempts, for each thread."""

_ALIASES = {"num_gpus": "GPU"}
_THREADS, _MEMORY = "num_cpus", "memory"


def needs_of(resources: Mapping[str, float], *, is_actor: bool = False) -> dict[str, float]:
    """What an attempt takes of a worker: its threads, its memory, and the resources that it was started with.

    An actor's call has a thread of its own. Of the rest it takes what it needs while it runs, and waits for none of it.
    """
    own = {} if is_actor else {_THREADS: 1.0}
    return {**own, **{_ALIASES.get(name, name): float(amount) for name, amount in resources.items()}}


class Seat:
    """A worker process, and what was placed there."""

    def __init__(self, address: str, place: Place) -> None:
        self.address = address
        self.place = place
        self.marks: Marks | None = None
        """Of its process, if that is on this machine."""
        self.placed: dict[int, Entry] = {}
        self.capacity = {_THREADS: float(place.threads), _MEMORY: place.memory, **place.resources}
        self._used = dict.fromkeys(self.capacity, 0.0)
        self._seconds = 0.0
        self._alone = 0
        self._is_filling = True

    def can_ever(self, needs: Mapping[str, float]) -> bool:
        return all(amount <= self.capacity.get(name, 0.0) for name, amount in needs.items())

    def has_room(self, entry: Entry, seconds: float) -> bool:
        threads, needs = self.place.threads, entry.needs
        if all(self._used[name] + amount <= self.capacity[name] for name, amount in needs.items()):
            return True
        if self._alone or not entry.attempt.batchable:
            return False
        if len(needs) > 1 or self._seconds + seconds > AHEAD_S * threads or len(self.placed) >= AHEAD_MAX * threads:
            self._is_filling = False
        elif not self._is_filling:  # many at a time: each message has its price
            self._is_filling = max(self._seconds / AHEAD_S, len(self.placed) / AHEAD_MAX) <= threads / 2
        return self._is_filling

    def dask_resources(self, needs: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
        """Those that Dask counts, too, so that others who use the cluster are not overrun."""
        return tuple((name, amount) for name, amount in needs.items() if name in self.place.resources)

    def take(self, entry: Entry) -> None:
        self.placed[entry.serial] = entry
        self._add(entry, 1)

    def behind(self) -> list[Entry]:
        """What cannot have begun unless something before it has ended."""
        return list(self.placed.values())[self.place.threads :]

    def may_have_begun(self, entry: Entry) -> bool:
        """Asked when its process is gone."""
        return self.marks is None or self.marks.has(entry.serial)

    def give_back(self, entry: Entry) -> None:
        if self.placed.pop(entry.serial, None) is not None:
            self._add(entry, -1)

    @property
    def load(self) -> float:
        return self._used[_THREADS] / max(1, self.place.threads)

    @property
    def created(self) -> int:
        """The actors that are being created here, or again."""
        return sum(entry.attempt.actor is not None and entry.state is None for entry in self.placed.values())

    @property
    def floor(self) -> int:
        """Every serial below has been settled."""
        return min(self.placed, default=0)

    def _add(self, entry: Entry, sign: int) -> None:
        self._seconds += sign * entry.expected_s
        if entry.attempt.number > 1:
            self._alone += sign
        if _THREADS not in entry.needs:  # it has a thread, and all share the cores
            self._used[_THREADS] += sign
        for name, amount in entry.needs.items():
            self._used[name] += sign * amount


class Waiting:
    """Attempts without a place, the oldest first among those with the same needs."""

    def __init__(self) -> None:
        self._lines: dict[tuple[tuple[str, float], ...], deque[Entry]] = {}

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def needs(self) -> list[dict[str, float]]:
        return [dict(needs) for needs, line in self._lines.items() if line]

    def tasks(self, limit: int) -> list[str]:
        """Of which tasks the first of them are."""
        return [entry.attempt.task for entry in islice(chain.from_iterable(self._lines.values()), limit)]

    def put(self, entry: Entry, *, first: bool = False) -> None:
        line = self._lines.setdefault(_sorted(entry.needs), deque())
        (line.appendleft if first else line.append)(entry)

    def take(self, choose: Callable[[Entry], Seat | None]) -> Iterator[tuple[Entry, Seat]]:
        """Those for which there is a place now."""
        for needs, line in list(self._lines.items()):
            while line:
                if line[0].settled:
                    line.popleft()
                    continue
                seat = choose(line[0])
                if seat is None:
                    break
                yield line.popleft(), seat
            if not line:
                del self._lines[needs]

    def take_all(self, needs: Mapping[str, float]) -> list[Entry]:
        return list(self._lines.pop(_sorted(needs), ()))


def nearest(seats: Iterable[Seat], entry: Entry, expected_s: float, lies_at: Callable[[str, str], bool]) -> Seat | None:
    """Of the seats with room, the one that holds most of the inputs, and of those the one with the least to do."""
    best: tuple[float, float] | None = None
    found: Seat | None = None
    for seat in seats:
        if seat.can_ever(entry.needs) and seat.has_room(entry, expected_s):
            missing = sum(size for key, size in entry.held.items() if not lies_at(key, seat.address))
            rank = (float(missing), seat.load)
            if best is None or rank < best:
                best, found = rank, seat
    return found


def show_needs(needs: Mapping[str, float]) -> str:
    return ", ".join(f"{name}: {amount:g}" for name, amount in sorted(needs.items()))


def _sorted(needs: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(needs.items()))
