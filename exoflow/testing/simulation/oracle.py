"""The invariant: one failure-free execution explains everything that was seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from exoflow import codec
from exoflow.driver.execution import Execution
from exoflow.driver.records import UNHEARD, Result
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import State
from exoflow.model import Annotations, CallId, Inline, Status, Value, Version
from exoflow.protocols import Attempt
from exoflow.testing.simulation.program import Pair, SimulatedRef, provenance


class Violation(AssertionError):
    """Something was seen that no failure-free execution explains."""


@dataclass(slots=True)
class Applied:
    """An effect under one key."""

    call: CallId
    note: Annotations
    made_from: set[Pair]
    value: tuple[Pair, ...]
    times: int = 1
    undone: bool = False

    @property
    def own(self) -> set[Pair]:
        """The choice that the attempt was, if it was one."""
        return set(self.value) - self.made_from


@dataclass(slots=True)
class Sink:
    """The world outside: every effect by its key."""

    applied: dict[str, Applied] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def apply(
        self, attempt: Attempt, note: Annotations, made_from: set[Pair], value: tuple[Pair, ...], *, zombie: bool
    ) -> bool:
        """Have an effect; whether the sink refuses it: its key bears a mark."""
        if attempt.key in self.refused:
            return True
        known = self.applied.get(attempt.key)
        if known is None:
            self.applied[attempt.key] = Applied(attempt.call, note, set(made_from), value)
            return False
        if known.made_from != made_from:
            raise Violation(
                f"{attempt.call} was repeated under one key with other inputs: {known.made_from ^ made_from}"
            )
        if note.effect == "irrevocable" and note.on_doubt != "retry":
            known.times += 1
            if known.times > 1:
                raise Violation(f"the irrevocable effect of {attempt.call} happened twice")
        return False

    def undo(self, key: str) -> None:
        self.refused.add(key)
        known = self.applied.get(key)
        if known is None or known.undone:
            return
        known.undone = True
        for other in self.applied.values():
            if not other.undone and other.made_from & known.own:
                raise Violation(f"{key} was undone before the effect of {other.call}, which stands on it")

    def refuse(self, key: str) -> None:
        """A body that raised DidNotHappen makes sure of it."""
        if key not in self.applied:
            self.refused.add(key)

    def probe(self, key: str) -> bool:
        """Whether the effect happened; if not, it will not."""
        return key in self.applied

    def value(self, key: str) -> object:
        return self.applied[key].value


@dataclass(slots=True)
class Till:
    """Who is paid, by the attempts at paid calls."""

    dispatched: dict[CallId, list[Version]] = field(default_factory=dict)
    charged: dict[CallId, dict[Version, set[Pair]]] = field(default_factory=dict)
    """What each was made from."""
    returned: dict[CallId, Value] = field(default_factory=dict)
    """In the present life: what can still be had of it need not be paid for again."""

    def begin(self, attempt: Attempt, records: Iterable[tuple[Any, ...]]) -> None:
        """An attempt begins: it is told of those before it that sent, and whose ends nobody knows (ADR 0024)."""
        assert attempt.paid is not None
        told = [record for record in records if record[0] in _TOLD and record[2] == attempt.call]
        if any(record[0] == Code.SAVED for record in told) or attempt.call in self.returned:
            raise Violation(f"{attempt.call} has a result, and is paid for again")
        known, asked = 0, False
        for record in told:
            if record[0] == Code.INTENT:
                asked = True
            elif not record[16] & UNHEARD:
                known, asked = record[3], False
        if any(version > known for version in self.dispatched.get(attempt.call, ())) and not attempt.paid.in_doubt:
            raise Violation(f"{attempt.call} may be paid for twice, and does not know it")
        if attempt.paid.in_doubt and not asked:
            raise Violation(f"{attempt.call} is said to be in doubt, and no attempt at it was about to send")

    def dispatch(self, attempt: Attempt, durable: Iterable[tuple[Any, ...]]) -> None:
        """It is told that it may send."""
        told = [record for record in durable if record[0] in _TOLD and record[2] == attempt.call]
        if not told or told[-1][0] != Code.INTENT:
            raise Violation(f"{attempt.call} is paid for before its intent is durable")
        self.dispatched.setdefault(attempt.call, []).append(attempt.version)

    def charge(self, attempt: Attempt, made_from: set[Pair]) -> None:
        """Its body has done what costs money."""
        if attempt.version not in self.dispatched.get(attempt.call, ()):
            raise Violation(f"{attempt.call} is paid for, and has no intent")
        self.charged.setdefault(attempt.call, {})[attempt.version] = set(made_from)

    def check_bills(self, told: Iterable[tuple[Any, ...]]) -> None:
        """What is recorded has its bill beside it, or beside the record that told of it before it was saved."""
        results = [Result(*record) for record in told if record[0] in (Code.SAVED, Code.MADE)]
        billed = {(result.call, result.version) for result in results if result.bill}
        for result in results:
            charged = self.charged.get(CallId(result.call))
            if charged and result.version in charged and (result.call, result.version) not in billed:
                raise Violation(f"{result.call} is recorded without what it cost")


_TOLD = (Code.SAVED, Code.FAILED, Code.INTENT)


def check(execution: Execution, sink: Sink, till: Till, seed: int) -> None:
    """Hold what was seen against the invariant.

    Raises:
        Violation: it does not hold.
    """
    calls = execution.kernel.calls
    seen: dict[tuple[str, int], set[int]] = {}

    def witness(pairs: Iterable[Pair], where: str) -> None:
        for call, version, extra in pairs:
            known = seen.setdefault((call, extra if call == "chose" else 0), set())
            known.add(version)
            if len(known) > 1 and call != "chose":
                raise Violation(
                    f"seed {seed}: two versions of {call} were used: {sorted(map(hex, known))}, the last in {where}"
                )

    net: dict[CallId, int] = {}
    for key, applied in sink.applied.items():
        if applied.undone:
            continue
        net[applied.call] = net.get(applied.call, 0) + 1
        if net[applied.call] > 1:
            raise Violation(f"seed {seed}: {applied.call} has more than one effect that stands")
        if execution.status is Status.DONE or applied.note.effect is not None:
            witness(applied.made_from, f"the effect {key}")
    for paid, attempts in till.charged.items():
        for made_from in attempts.values():
            witness(made_from, f"what was paid for {paid}")
    taken = execution.inbox.taken()
    if len(set(taken.values())) != len(taken):
        raise Violation(f"seed {seed}: an event was taken twice: {taken}")
    if execution.status is Status.DONE:
        _check_done(execution, sink, net, seed)
        assert isinstance(execution.outcome, Inline)
        witness(provenance(codec.decode(codec.from_bytes(execution.outcome), lookup=SimulatedRef)), "the result")
    if execution.kernel.unwinding:
        for key, applied in sink.applied.items():
            call = calls.get(applied.call)
            if applied.note.rollback and not applied.undone and not (call is not None and call.released):
                raise Violation(f"seed {seed}: {key} stands though the run was cancelled, or was to be rolled back")


def check_stuck(execution: Execution, sink: Sink, seed: int) -> None:
    """Hold a run that ended because an undo had failed for good against what may stand then.

    Raises:
        Violation: it says something else than that, or what it could not undo was done again.
    """
    if execution.status is not Status.FAILED:
        raise Violation(f"seed {seed}: an undo failed for good, and the run ended {execution.status}")
    standing = [applied.call for applied in sink.applied.values() if not applied.undone]
    for call in {call for call in standing if standing.count(call) > 1}:
        raise Violation(f"seed {seed}: {call} was done again before its effect was undone")


def _check_done(execution: Execution, sink: Sink, net: dict[CallId, int], seed: int) -> None:
    for call in execution.kernel.calls.values():
        acts = call.note.effect is not None or call.note.rollback
        if not acts or call.note.kind != 0:
            continue
        stands = net.get(call.id, 0)
        if not call.attached:
            if execution.kernel._is_orphan(call) and stands:
                raise Violation(f"seed {seed}: {call.id} is not part of the execution, but its effect stands")
        elif call.state is State.DONE and not call.failed and stands != 1:
            raise Violation(f"seed {seed}: {call.id} succeeded and its effect stands {stands} times")


__all__: list[Any] = ["Applied", "Sink", "Till", "Violation", "check", "check_stuck"]
