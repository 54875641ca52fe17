"""What the decorators know of a task and of a flow, as the driver needs it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exoflow.kernel.call import Call, Turn
from exoflow.model import Annotations
from exoflow.protocols import Executor

if TYPE_CHECKING:
    from exoflow.driver.handle import Handle
    from exoflow.driver.strands import Strand

PLAIN = Annotations()


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before the n-th retry: ``initial_s * factor ** (n - 1)``, at most ``max_s``, times 1 ± ``jitter``."""

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 60.0
    jitter: float = 0.25


def pause_s(backoff: Backoff, retry: int, seed: str) -> float:
    """Seconds before the n-th retry, the jitter drawn from the seed."""
    chance = random.Random(f"{seed}/{retry}")  # jitter, not a secret
    delay_s: float = min(backoff.max_s, backoff.initial_s * backoff.factor ** (retry - 1))
    return delay_s * (1 + backoff.jitter * (2 * chance.random() - 1))


@dataclass(slots=True, eq=False)
class Chain:
    """An actor, as one incarnation of a flow body has it: its calls, so far."""

    snapshot_every: int
    create: Handle | None = None
    """The call that creates it."""
    last: Call | None = None
    count: int = 0
    """Of its calls; the one that creates it is the first."""
    strand: Strand | None = None
    """In which it was created: the others could call it in another order in a replay."""

    def turn(self, note: Annotations) -> Turn:
        """Of the next call."""
        reads_whole = note.saves == "sync" and note.chooses
        return Turn(self.last, reads_whole or self.count % self.snapshot_every == 0)

    def check(self, strand: Strand) -> None:
        """Refuse a call that another body makes, or another strand."""
        self.strand = self.strand or strand
        if strand is not self.strand:
            name = "the actor" if self.create is None else f"the actor {self.create.call_id}"
            whose = "flow" if strand.body is not self.strand.body else "asyncio task"
            raise RuntimeError(
                f"{name} is called by another {whose} than the one that created it: its calls are ordered as written "
                f"there. Call it there, and pass on what it returns"
            )

    def called(self, handle: Handle) -> None:
        """The next call was made."""
        self.create = self.create or handle
        self.last = handle.call
        self.count += 1


@dataclass(frozen=True, slots=True, eq=False)
class TaskSpec:
    """A task, with the options of one call already in it."""

    name: str
    """Without ``/``, ``#``, ``~`` and ``!``: it becomes part of call ids."""
    function: Callable[..., Any]
    note: Annotations = PLAIN
    is_async: bool = False
    executor: str | Executor | None = None
    timeout_s: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    backoff: Backoff = Backoff()
    undo: Callable[..., Any] | None = None
    undo_retries: int = 9
    """Of its probe, too. With the default backoff it takes nearly a minute until none is left."""
    probe: Callable[..., Any] | None = None
    ref_parameters: frozenset[str] = frozenset()
    """Parameters that get the Ref itself."""
    code: bytes = b""
    """``codec.code_fingerprint``, or the user's version."""
    key: str | None = None
    """The user's key for this call."""
    inside: Callable[..., Any] | None = None
    """The user's own function, where ``function`` is a transaction around it."""
    actor: Chain | None = None
    """Whose call it is."""

    @property
    def effect(self) -> str:
        """For people: idempotent, irrevocable, transaction, rollback or paid; empty: none."""
        if self.inside is not None:
            return "transaction"
        if self.note.paid:
            return "paid"
        return "rollback" if self.note.rollback else self.note.effect or ""


@dataclass(frozen=True, slots=True, eq=False)
class FlowSpec:
    """A flow."""

    name: str
    function: Callable[..., Any]
    is_async: bool = False
    version: str | None = None
    executor: str | Executor | None = None
    undo_on_failure: bool = False
    strict: bool = False
    module: str = ""
    file: str | None = None
    qualname: str = ""
    code: bytes = b""
    task: TaskSpec | None = None
    """The flow as a child flow: ``note.kind`` is ``Kind.FLOW``."""
