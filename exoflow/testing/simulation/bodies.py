"""What the bodies of a simulated program do, and its undos and probes: seen at a sink, and at a till."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from exoflow import codec
from exoflow.codec import Encoded
from exoflow.driver.execution import Execution
from exoflow.driver.spec import FlowSpec
from exoflow.errors import DidNotHappen
from exoflow.kernel.call import Call, State as CallState
from exoflow.model import Bill, CallId, Happened, Held, Inline, Stored, Value
from exoflow.protocols import Attempt, Computed, Outcome, Raised
from exoflow.testing.simulation.doubles import SimulatedExecutor, SimulatedLog, SimulatedStore, body, probe, undo
from exoflow.testing.simulation.oracle import Sink, Till, Violation
from exoflow.testing.simulation.program import (
    Program,
    SimulatedError,
    SimulatedRef,
    flow_of,
    provenance,
    with_actors,
    with_paid,
    write_program,
)
from exoflow.testing.simulation.report import Report


class Bodies:
    """One seed: a program, and the outside that its effects are seen in."""

    has_actors = True
    has_paid = True

    executor: SimulatedExecutor
    log: SimulatedLog
    execution: Execution
    """Of the epoch."""

    def __init__(self, seed: int, trace: bool, plain: bool) -> None:
        self.chance = random.Random(seed)
        self.undo_chance = random.Random(f"{seed}/undo")  # a stream of its own: what it decides moves nothing else
        self.report = Report(seed)
        self.tracing = trace
        self.sink = Sink()
        self.till = Till()
        self.actor_chance = random.Random(f"{seed}/actors")  # likewise
        self.paid_chance = random.Random(f"{seed}/sends")
        program = write_program(self.chance, body, undo, probe)
        if self.has_actors:
            program = with_actors(program, self.actor_chance)
        if self.has_paid:
            program = with_paid(program, random.Random(f"{seed}/paid"))
        self.program: Program = replace(program, plain=plain)
        self.flow: FlowSpec = replace(flow_of(self.program), undo_on_failure=self.undo_chance.random() < 0.7)
        self.store = SimulatedStore()
        self.zombies: list[Attempt] = []

    def trace(self, line: str) -> None:
        if self.tracing:
            self.report.trace.append(line)

    def _act(self, attempt: Attempt, *, zombie: bool = False) -> Outcome:
        """What the task's body does."""
        if attempt.function is undo:
            self.report.undos += 1
            self.sink.undo(str(attempt.args[0]))
            return Computed(Inline(codec.to_bytes(codec.encode(None))), 0.0)
        if attempt.function is probe:
            key = str(attempt.args[0])  # only a sink that dedups by key can stop an attempt that is taken for dead
            self.zombies = [zombie for zombie in self.zombies if zombie.key != key]
            answer = (
                Happened(self.sink.value(str(attempt.args[0])))
                if self.sink.probe(str(attempt.args[0]))
                else DidNotHappen()
            )
            return Computed(Inline(codec.to_bytes(codec.encode(answer))), 0.0)
        name, _, _ = attempt.call.rpartition("/")[2].partition("#")
        name = name.rpartition(":")[2]
        kind, number = name[0], int(name[1:])
        note = (self.program.methods if kind == "m" else self.program.tasks)[number].note
        made_from = self._provenance(attempt)
        if attempt.actor is not None:
            made_from |= self._state_before(attempt)
        own = set() if note.deterministic else {(str(attempt.call), int(attempt.version), 0)}
        value = tuple(sorted(made_from | own))
        if note.effect is not None or note.rollback:
            refused = self.sink.apply(attempt, note, made_from, value, zombie=zombie)
            if refused:
                error = SimulatedError([(f"error {attempt.call}", int(attempt.version), 0)])
                return Raised(codec.encode_error(error), 0.0, True)
        computed = Computed(self._place(value), self.chance.choice((0.0, 0.01, 1.0)))
        if note.paid and self._may_send(attempt):
            self.till.charge(attempt, made_from)
            return replace(computed, bill=Bill(1, nano_usd=int(attempt.version)))
        return self._leave(attempt, computed, set(value)) if attempt.actor is not None else computed

    def _state_before(self, attempt: Attempt) -> set[Any]:
        """The choices in the state that the attempt was given, which is that of the call before it."""
        state = self.executor.given[attempt.version]
        assert state is not None
        turns, choices = state
        before = _turns_before(self.execution.kernel.calls[attempt.call])
        surely = tuple(call for call, ran in before.items() if ran or call in turns)
        if turns != surely:
            raise Violation(f"{attempt.call} got a state that {turns} have left, and {surely} come before it")
        return set(choices)

    def _leave(self, attempt: Attempt, outcome: Any, choices: set[Any]) -> Any:
        """The outcome, with the state that the attempt leaves."""
        assert attempt.actor is not None
        before = self.executor.given[attempt.version]
        assert before is not None
        state = (*before[0], attempt.call), tuple(sorted({*before[1], *choices}))
        snapshot: Value | None = None
        if attempt.actor.snapshot_to is not None and self.actor_chance.random() < 0.8:
            snapshot = Inline(codec.to_bytes(codec.encode(state)))
            if self.actor_chance.random() < 0.5:
                self.store.create(attempt.actor.snapshot_to, *codec.to_parts(codec.encode(state)))
                snapshot = Stored(attempt.actor.snapshot_to, 0)
        return replace(outcome, state=self.executor.keep(state), snapshot=snapshot)

    def _place(self, value: object) -> Value:
        encoded = codec.encode(value)
        if self.chance.random() < 0.5:
            return Inline(codec.to_bytes(encoded))
        return self.executor.hold(encoded)

    def _may_send(self, attempt: Attempt) -> bool:
        return attempt.paid is None or attempt.version in self.executor.sends

    def _provenance(self, attempt: Attempt) -> set[Any]:
        def lookup(id: Any) -> object:
            value = attempt.inputs.get(id)
            if value is None:
                return SimulatedRef(id)
            encoded = self.encoded(value)
            return codec.decode(encoded, lookup=lookup)

        assert isinstance(attempt.encoded, Encoded)
        args, _ = codec.decode(attempt.encoded, lookup=lookup)
        return provenance(list(args))

    def encoded(self, value: Value) -> Encoded:
        if isinstance(value, Held):
            return self.executor.held[value.handle]  # type: ignore[index]  # a handle is whatever its executor makes it
        if isinstance(value, Inline):
            return codec.from_bytes(value)
        return codec.from_object(self.store.read(value.name))

    def _portable(self, attempt: Attempt) -> Attempt:
        """A zombie has its inputs with it."""
        inputs = {
            id: Inline(codec.to_bytes(self.executor.held[value.handle])) if isinstance(value, Held) else value  # type: ignore[index]
            for id, value in attempt.inputs.items()
        }
        return replace(attempt, inputs=inputs)

    def _readable(self, attempt: Attempt) -> bool:
        if attempt.actor is not None and self.executor.given[attempt.version] is None:
            return False
        return all(map(self._is_there, attempt.inputs.values()))

    def _is_there(self, value: Value) -> bool:
        if isinstance(value, Held):
            return value.handle in self.executor.held
        return not isinstance(value, Stored) or value.name in self.store.objects


def _turns_before(call: Call) -> dict[CallId, bool]:
    """The calls of its actor before this one, and whether they surely ran. Who stands aside may be known only later."""
    found: dict[CallId, bool] = {}
    before = call.before
    while before is not None:
        found[before.id] = before.state is CallState.DONE and not before.skipped
        before = before.before
    return dict(reversed(found.items()))
