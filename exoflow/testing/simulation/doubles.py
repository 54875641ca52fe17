"""What a simulated run has around it: its journal, clock, store and executor, and the functions of its tasks.

They keep what they are given; what becomes of it the world decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from exoflow import codec
from exoflow.codec import Encoded
from exoflow.model import CallId, Held, RunId, Stored, Version
from exoflow.protocols import Attempt, Outcome, Vanished
from exoflow.testing.simulation.oracle import Violation

if TYPE_CHECKING:
    from exoflow.testing.simulation.world import World


def body(refs: object, given: object) -> None: ...


def undo(key: str, refs: object, given: object) -> None:
    """What the simulated tasks are undone with; the world says what that does."""


def probe(key: str, refs: object, given: object) -> None: ...


class SimulatedLog:
    """A journal: what was not flushed may or may not survive a crash."""

    def __init__(self, records: list[tuple[Any, ...]]) -> None:
        self.records = records
        self.durable = len(records)
        self.dead = False
        self.waiting: list[tuple[int, Callable[[BaseException | None], None]]] = []

    def append(self, record: tuple[Any, ...]) -> int:
        if not self.dead:
            self.records.append(tuple(record))
        return len(self.records)

    def wait(self, position: int) -> None:
        self.flush()

    def notify(self, position: int, callback: Callable[[BaseException | None], None]) -> None:
        self.waiting.append((position, callback))

    def flush(self, upto: int | None = None) -> None:
        if self.dead:
            return
        self.durable = max(self.durable, len(self.records) if upto is None else upto)
        due = [callback for position, callback in self.waiting if position <= self.durable]
        self.waiting = [entry for entry in self.waiting if entry[0] > self.durable]
        for callback in due:
            callback(None)


class SimulatedClock:
    def __init__(self) -> None:
        self.time = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    monotonic = now

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        entry = (when, callback)
        self.timers.append(entry)
        return lambda: self.timers.remove(entry) if entry in self.timers else None


class SimulatedStore:
    """Objects that are there once created; a create may fail."""

    url = "memory://simulation"
    shared = False

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def create(self, name: str, *parts: Any) -> bool:
        if name in self.objects:
            return False
        self.objects[name] = b"".join(bytes(part) for part in parts)
        return True

    def read(self, name: str) -> memoryview:
        if name not in self.objects:
            raise FileNotFoundError(name)
        return memoryview(self.objects[name])


State = tuple[tuple[CallId, ...], tuple[Any, ...]]
"""Of an actor: the calls that have changed it, and all the choices that it was made from."""


class SimulatedExecutor:
    """Attempts that end when, and as, the world decides. Values over a few bytes are held here, and can be lost."""

    name = "sim"
    has_actors = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: list[tuple[Attempt, Callable[[Outcome], None]]] = []
        self.asking: set[Version] = set()
        """Attempts at paid calls that are about to send, and have not been told that they may."""
        self.sends: set[Version] = set()
        """Those that have been."""
        self.stubborn: set[Version] = set()
        """Attempts that were to be ended and could not."""
        self.saves: list[tuple[Held, str, Callable[[Stored | BaseException], None]]] = []
        self.held: dict[int, Encoded] = {}
        self.actors: dict[int, State] = {}
        """Live ones, until an attempt takes them."""
        self.given: dict[Version, State | None] = {}
        """What attempts have taken; None: it was gone."""
        self._ids = 0

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        self.world.report.attempts += 1
        if self.world.execution.kernel.failing and attempt.function is undo:
            self.world.rolling_back = True
        if self.world.rolling_back and attempt.function is body:
            raise Violation(f"{attempt.call} is run though the run has failed, and is being rolled back")
        if attempt.paid is not None:
            self.world.till.begin(attempt, self.world.log.records)
        if attempt.actor is not None:
            self.given[attempt.version] = self._taken(attempt)
        self.pending.append((attempt, report))

    def _taken(self, attempt: Attempt) -> State | None:
        assert attempt.actor is not None
        if attempt.actor.state is not None:
            found: State | None = self.actors.pop(attempt.actor.state.handle, None)  # type: ignore[call-overload]
            return found
        if attempt.actor.snapshot is None:
            return (), ()
        try:
            taken: State = codec.decode(self.world.encoded(attempt.actor.snapshot))
        except FileNotFoundError:
            return None
        return taken

    def keep(self, state: State) -> Held:
        self._ids += 1
        self.actors[self._ids] = state
        return Held("sim", self._ids, 0)

    def cancel(self, version: Version, run_id: RunId) -> None:
        if self.world.chance.random() < 0.25:
            entry = next((entry for entry in self.pending if entry[0].version == version), None)
            if entry is not None:
                self.pending.remove(entry)
                report = entry[1]
                self.world.later(lambda: report(Vanished("cancelled")))
        else:
            self.stubborn.add(version)

    def hold(self, encoded: Encoded) -> Held:
        self._ids += 1
        self.held[self._ids] = encoded
        return Held("sim", self._ids, encoded.size)

    def fetch(self, value: Held) -> object:
        if value.handle in self.actors:
            return codec.encode(self.actors[value.handle])
        return self.held[value.handle]  # type: ignore[index]

    def save(self, value: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        self.saves.append((value, name, report))

    def save_together(
        self, values: Sequence[Held], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        raise AssertionError("no task of a simulated program puts anything")

    def release(self, value: Held) -> None:
        self.held.pop(value.handle, None)  # type: ignore[call-overload]
        self.actors.pop(value.handle, None)  # type: ignore[call-overload]

    def drop(self, value: Held) -> None:
        self.release(value)

    def close(self) -> None: ...
