"""The nouns. Nothing here does anything."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NewType

RunId = NewType("RunId", str)
"""Names a run, for ever."""

CallId = NewType("CallId", str)
"""Names a task call inside its run: flow path, strand, task name, n-th such call of that strand, or the user's key."""

Version = NewType("Version", int)
"""Names one attempt at a call; never reused. ``(epoch << 40) | number``, so that a later attempt is always greater."""

NO_VERSION = Version(0)
"""Older than every attempt."""

FIRST_VERSION = Version(1)
"""Older than every attempt, but something."""

EPOCH_SHIFT = 40

Checkpoint = Literal["auto", "sync", "async", "never"]
Saves = Literal["sync", "async", "never", "cost"]
Effect = Literal["idempotent", "irrevocable"]

INLINE_MAX_BYTES = 64 * 1024
"""An encoded value up to this size rides in its journal record; a larger one is an object of its own."""


def version(epoch: int, number: int) -> Version:
    return Version(epoch << EPOCH_SHIFT | number)


def show_version(v: Version) -> str:
    return f"{v >> EPOCH_SHIFT}.{v & ((1 << EPOCH_SHIFT) - 1)}"


class Kind(enum.IntEnum):
    """What runs when a call starts."""

    TASK = 0
    FLOW = 1  # a child flow: its body runs beside its parent's, not on an executor
    TIMER = 2  # completes when the clock says so
    NOTE = 3  # a reading of the world by the body itself: a clock, as_completed's choice, done(), a timeout
    EVENT = 4  # completes when somebody outside has sent it


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a task says of itself; ``semantics.md`` has the meaning. One object a task, shared by its calls."""

    deterministic: bool = False
    checkpoint: Checkpoint = "auto"
    effect: Effect | None = None
    rollback: bool = False
    on_doubt: Literal["stop", "retry", "probe"] = "stop"
    retries: int = 0
    losses: int = 3
    kind: Kind = Kind.TASK
    actor: bool = False
    """Its attempts begin with the state that the call before it has left, and leave one (V7)."""
    paid: bool = False
    """Somebody charges for each attempt: no effect, but it starts like one (G3), behind a durable intent (ADR 0024)."""
    saves: Saves = field(init=False, default="async")
    """What ``checkpoint`` comes to for this task."""
    chooses: bool = field(init=False, default=True)
    """Another attempt may give another result. A child flow is a function of what its body reads."""
    may_be_left: bool = field(init=False, default=False)
    """It runs only while somebody waits for it, and a body may end without: a timer, or an event."""
    stands_firm: bool = field(init=False, default=False)
    """It starts only when every choice behind it is committed (G3)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "chooses", not self.deterministic and self.kind is not Kind.FLOW)
        object.__setattr__(self, "saves", self._saves())
        object.__setattr__(self, "may_be_left", self.kind in (Kind.TIMER, Kind.EVENT))
        object.__setattr__(self, "stands_firm", self.effect is not None or self.paid)

    def _saves(self) -> Saves:
        if self.effect == "irrevocable":
            return "sync"  # G8: its completion is recorded before anyone uses it, whatever checkpoint says
        if self.checkpoint != "auto":
            return "async" if self.checkpoint == "never" and self.effect is not None else self.checkpoint
        choice = not self.deterministic or self.actor or self.effect is not None or self.rollback
        return "async" if choice else "cost"


NANO_USD_PER_USD = 10**9
"""Money is counted in whole billionths, so that sums are exact."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a call has cost, or used, as its body says."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input, for which another price may hold."""
    nano_usd: int = 0
    maybe_rebilled: bool = False
    """An earlier attempt may have been charged for, too."""
    labels: tuple[tuple[str, str], ...] = ()
    """Of the call's own, beside the run's: who is charged."""
    charged: bool = True
    """To somebody's budget or share. Not what an engine of one's own has used: its queue has seen to that."""

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.nano_usd + other.nano_usd,
            self.maybe_rebilled or other.maybe_rebilled,
            self.labels if self.labels == other.labels else (),
            self.charged or other.charged,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """The sum of some bills. Of an attempt whose process died before its bill was durable nobody knows."""

    calls: int = 0
    bill: Bill = field(default_factory=Bill)
    maybe_rebilled: int = 0
    """Calls of which an earlier attempt may have been charged for, too."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.bill + other.bill, self.maybe_rebilled + other.maybe_rebilled)

    @classmethod
    def on(cls, bills: Iterable[Bill]) -> Spent:
        """Calls that were billed so."""
        return sum((cls(1, bill, int(bill.maybe_rebilled)) for bill in bills), cls())


class Status(enum.StrEnum):
    """Of a run."""

    RUNNING = "running"
    WAITING = "waiting"
    IN_DOUBT = "in_doubt"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BROKEN_OFF = "broken_off"


Inline = bytes
"""An encoded value of at most 64 KiB, here. No object around it: a run may hold very many, and the garbage collector
need not look at bytes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A value that is an object of the store, or a part of one."""

    name: str
    size: int
    at: tuple[int, int] | None = None
    """Where it begins in an object that several values share, and how many bytes are its; None: it has one alone."""


@dataclass(frozen=True, slots=True)
class Held:
    """A value that lies with an executor; only ``executor`` can read ``handle``."""

    executor: str
    handle: object
    size: int
    """Bytes; 0 where that is unknown: what an engine's object stands for."""


Value = Inline | Stored | Held


@dataclass(frozen=True, slots=True)
class Happened:
    """A probe's answer: the effect happened, and this is what the call returned."""

    value: object = None
