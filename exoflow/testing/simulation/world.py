"""A world in which everything that can go wrong goes wrong, in an order that one integer decides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from exoflow import codec
from exoflow.attempts.actors import STATE
from exoflow.codec import Encoded
from exoflow.driver import records
from exoflow.driver.execution import Execution
from exoflow.driver.history import History
from exoflow.driver.spec import FlowSpec
from exoflow.errors import Corrupt, DidNotHappen, InDoubt, RunError, StorageError
from exoflow.journal.inbox import Message
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import Call, State as CallState
from exoflow.kernel.kernel import Kernel
from exoflow.model import Bill, CallId, Happened, Held, Inline, Kind, RunId, Stored, Value
from exoflow.protocols import Attempt, Computed, Outcome, Raised, Vanished
from exoflow.testing.simulation.doubles import (
    SimulatedClock,
    SimulatedExecutor,
    SimulatedLog,
    SimulatedStore,
    body,
    probe,
    undo,
)
from exoflow.testing.simulation.oracle import Sink, Till, Violation, check, check_stuck
from exoflow.testing.simulation.program import (
    UNDO_RETRIES,
    Program,
    SimulatedError,
    SimulatedRef,
    flow_of,
    provenance,
    with_actors,
    with_paid,
    write_program,
)

STEPS_MAX = 3000


class Crashed(BaseException):
    """The process is dead."""


@dataclass(slots=True)
class Report:
    """What happened under one seed."""

    seed: int
    status: str = ""
    calls: int = 0
    faults: int = 0
    epochs: int = 0
    attempts: int = 0
    undos: int = 0
    given_up: int = 0
    """Ends with an undo that had failed for good; the run was resumed."""
    paid: int = 0
    """Attempts that somebody charged for."""
    trace: list[str] = field(default_factory=list)


class _Traced(Execution):
    """Writes down what the kernel orders."""

    def _traced(self, command: Any) -> None:
        self.trace(f"   {command}")  # type: ignore[attr-defined]
        Execution.carry_out[type(command)](self, command)

    carry_out = dict.fromkeys(Execution.carry_out, _traced)


class World:
    """One seed: a program, its runs from crash to crash, and the outside that its effects are seen in."""

    has_actors = True
    has_paid = True

    def __init__(
        self, seed: int, kernel: type[Kernel], log: type[SimulatedLog], trace: bool, plain: bool = False
    ) -> None:
        self.chance = random.Random(seed)
        self.undo_chance = random.Random(f"{seed}/undo")  # a stream of its own: what it decides moves nothing else
        self.report = Report(seed)
        self.kernel_type = kernel
        self.log_type = log
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
        self.undo_faults_left = self.undo_chance.choice((0, 0, 1, 2, 4))
        self.undo_crashes_left = self.undo_chance.choice((0, 1, 1, 2))
        self.undo_fails: dict[str, int] = {}
        """How often the undo of an attempt is still going to fail; more often than it is tried: for good."""
        self.rolling_back = False
        """Something was undone because the run has failed: from now on no body may run, whatever crashes."""
        self.store = SimulatedStore()
        self.clock = SimulatedClock()
        self.zombies: list[Attempt] = []
        self.faults_left = self.chance.choice((0, 2, 3, 3, 4, 6, 9))
        self.will_cancel = self.chance.random() < 0.08
        self.soon: list[Callable[[], None]] = []
        self.messages: list[Message] = []
        """What somebody outside has sent the run: it outlives its processes."""

    def trace(self, line: str) -> None:
        if self.tracing:
            self.report.trace.append(line)

    def later(self, event: Callable[[], None]) -> None:
        self.soon.append(event)

    async def live(self) -> Report:
        """Run, crash, resume, ... until the run has ended; then ask the oracle."""
        records: list[tuple[Any, ...]] = []
        epoch = 0
        while True:
            epoch += 1
            self.report.epochs = epoch
            execution = self._execution(records, epoch)
            crashed = await self._epoch(execution)
            if not crashed and execution.given_up is None:
                break
            if not crashed:
                check_stuck(execution, self.sink, self.report.seed)
                self.report.given_up += 1
            records = self._survivors(execution)
            history = History(records)
            if history.ended is not None and history.ended.status == "cancelled":
                break
            if history.forgiving:
                records = records[:-1]
        self.report.status = str(execution.status)
        self.report.calls = sum(call.attached for call in execution.kernel.calls.values())
        self.till.check_bills(self.log.records)
        check(execution, self.sink, self.till, self.report.seed)
        self.report.paid = sum(map(len, self.till.charged.values()))
        return self.report

    def _execution(self, records: list[tuple[Any, ...]], epoch: int) -> Execution:
        self.executor = SimulatedExecutor(self)
        self.till.returned.clear()
        self.log = self.log_type(records)
        history = History(records)
        driver = type("Simulated", (_Traced if self.tracing else Execution,), {"kernel_type": self.kernel_type})
        execution: Execution = driver(
            run_id=RunId("sim"),
            epoch=epoch,
            index=0,
            flow=self.flow,
            args=(),
            kwargs={},
            log=self.log,
            store=self.store,
            clock=self.clock,
            executors={"sim": self.executor},
            default="sim",
            seed=self.report.seed,
            history=history,
            values_prefix=f"e{epoch}",
        )
        self.execution = execution
        execution.trace = self.trace  # type: ignore[attr-defined]
        execution.begun(None if history.start else _start(self.report.seed))
        if history.cancelled:
            execution.cancel()
        elif history.failing is not None:
            execution.go_on_failing(history.failing)
        if self.messages:
            execution.receive(self.messages)
        self.trace(f"== epoch {epoch}, {len(records)} records")
        return execution

    async def _epoch(self, execution: Execution) -> bool:
        """Live until the run ends (False) or the process dies (True)."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(execution.run_async())
        for _ in range(STEPS_MAX):
            while loop._ready:  # type: ignore[attr-defined]  # noqa: ASYNC110 -- until all that can go on has gone on
                await asyncio.sleep(0)
            if execution.ended.is_set():
                break
            if not self._happen(execution):
                self.log.dead = True
                execution.stop(Crashed())
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return True
        else:
            raise Violation(f"no end after {STEPS_MAX} steps")
        await asyncio.gather(task, return_exceptions=True)
        if (
            isinstance(execution.fatal, StorageError)
            and not isinstance(execution.fatal, Corrupt)
            or type(execution.fatal) in (RunError, InDoubt)  # of the latter: its probe has failed
        ):
            self.trace(f"stopped: {execution.fatal}")
            self.log.dead = True
            return True  # it says so, and can be resumed
        if execution.fatal is not None:
            raise Violation(f"the run stopped: {execution.fatal!r}") from execution.fatal
        return False

    def _happen(self, execution: Execution) -> bool:
        """One event of the world; False: the process dies."""
        if self.soon:
            self.soon.pop(0)()
            return True
        chance, executor = self.chance, self.executor
        events: list[tuple[float, Callable[[], None]]] = []
        if any(attempt.version not in executor.asking for attempt, _ in executor.pending):
            events.append((4, lambda: self._end_attempt(execution)))
        if self.log.durable < len(self.log.records) or any(at <= self.log.durable for at, _ in self.log.waiting):
            events.append((2 if self.log.waiting else 0.5, self._flush))
        if executor.saves:
            events.append((1, self._end_save))
        if self.zombies and chance.random() < 0.3:
            events.append((1, self._wake_zombie))
        if self.clock.timers:
            events.append((0.3 if events else 1, self._ring))
        if self.faults_left > 0 and chance.random() < 0.12:
            self.faults_left -= 1
            self.report.faults += 1
            if chance.random() < 0.55:
                self.trace("crash")
                return False
            if self._losable(execution):
                self._lose(execution)
                return True
        undoing = execution.kernel._undoing or execution.kernel.failing
        if undoing and self.undo_crashes_left > 0 and self.undo_chance.random() < 0.3:
            self.undo_crashes_left -= 1
            self.report.faults += 1
            self.trace("crash in an undo")
            return False
        waiting = _waiting_events(execution)
        if waiting:
            events.append((0.3 if events else 1, lambda: self._send(execution, chance.choice(waiting))))
        if self.will_cancel and chance.random() < 0.1:
            self.will_cancel = False
            self.trace("cancel")
            execution.cancel()
            return True
        if not events:
            raise Violation(f"deadlock: nothing can happen; {_unfinished(execution)}")
        chance.choices([event for _, event in events], [weight for weight, _ in events])[0]()
        return True

    def _send(self, execution: Execution, name: str) -> None:
        """Somebody outside sends an event, perhaps twice."""
        number = len(self.messages) + 1
        payload = bytes(codec.to_bytes(codec.encode(((f"sent {number}", number, 0),))))
        message = Message("event", self.clock.time, name, payload, f"id {number}", number=number)
        self.trace(f"send {name} as {number}")
        self.messages.append(message)
        if self.chance.random() < 0.2:
            self.messages.append(message._replace(number=number + 1))
        execution.receive(self.messages)

    def _flush(self) -> None:
        whole = self.chance.random() < 0.7 or self.log.durable == len(self.log.records)
        upto = None if whole else self.chance.randint(self.log.durable + 1, len(self.log.records))
        self.trace(f"flush {upto}")
        self.log.flush(upto)

    def _ring(self) -> None:
        when, callback = min(self.clock.timers, key=lambda timer: timer[0])
        self.clock.timers.remove((when, callback))
        self.clock.time = max(self.clock.time, when)
        callback()

    def _losable(self, execution: Execution) -> list[int]:
        """What is held nowhere else."""
        kept = {value.handle for value in execution.values.kept.values()}
        return sorted({*self.executor.held, *self.executor.actors} - kept)

    def _lose(self, execution: Execution) -> None:
        id = self.chance.choice(self._losable(execution))
        for kept in execution.values.kept.values():
            self.executor.drop(kept)  # nobody need notice: the store has it, too
        self.executor.held.pop(id, None)
        for call, value in list(self.till.returned.items()):
            if isinstance(value, Held) and value.handle == id:
                del self.till.returned[call]
        self.executor.actors.pop(id, None)
        owner = [call for call, value in execution.values.at.items() if isinstance(value, Held) and value.handle == id]
        owner += [CallId(f"{call}{STATE}") for call, held in execution.values.states.items() if held.handle == id]
        self.trace(f"lose {owner}")
        if owner and self.chance.random() < 0.6:
            execution.value_lost(owner[0])

    def _end_save(self) -> None:
        value, name, report = self.executor.saves.pop(self.chance.randrange(len(self.executor.saves)))
        if self.faults_left > 0 and self.chance.random() < 0.1:
            self.faults_left -= 1
            report(OSError("the store hiccups"))
            return
        try:
            encoded = self.executor.fetch(value)
        except KeyError as error:
            report(error)
            return
        assert isinstance(encoded, Encoded)
        self.store.create(name, *codec.to_parts(encoded))
        report(Stored(name, encoded.size))

    def _wake_zombie(self) -> None:
        """An attempt of a dead epoch goes on where nobody could end it: only its key can stop its effect."""
        attempt = self.zombies.pop(self.chance.randrange(len(self.zombies)))
        self.trace(f"zombie {attempt.call}")
        self._act(attempt, zombie=True)

    def _end_attempt(self, execution: Execution) -> None:
        attempt, report = self.executor.pending.pop(self._next_to_end())
        lost = tuple(id for id, value in attempt.inputs.items() if not self._is_there(value))
        part = attempt.actor
        gone = part is not None and self.executor.given[attempt.version] is None
        if lost or gone:
            self.trace(f"lost inputs of {attempt.call}: {lost} {gone}")
            report(self._not_begun(attempt, lost, gone))
            return
        if self.faults_left > 0 and self.chance.random() < 0.15:
            self.faults_left -= 1
            self.report.faults += 1
            self._fail(attempt, report)
            return
        if not self._may_send(attempt) and self.paid_chance.random() < 0.9:  # else it sends nothing
            self._ask(attempt, report)
            return
        if attempt.function is undo and self._undo_fails(attempt.key):
            self.trace(f"undo fails {attempt.call} {attempt.version:x}")
            if self.undo_chance.random() < 0.5:
                self._act(attempt)  # and does not know
            report(Raised(codec.encode_error(SimulatedError([])), 0.0))
            return
        self.trace(f"end {attempt.call} {attempt.version:x}")
        outcome = self._act(attempt)
        if attempt.paid is not None and isinstance(outcome, Computed):
            self.till.returned[attempt.call] = outcome.value
        report(outcome)

    def _may_send(self, attempt: Attempt) -> bool:
        return attempt.paid is None or attempt.version in self.executor.sends

    def _ask(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        """The body of a paid call is about to send."""
        assert attempt.paid is not None
        executor, log = self.executor, self.log

        def told(error: BaseException | None) -> None:
            executor.asking.discard(attempt.version)
            if error is None:
                self.trace(f"sends {attempt.call} {attempt.version:x}")
                executor.sends.add(attempt.version)
                self.till.dispatch(attempt, log.records[: log.durable])
            else:
                executor.pending.remove(entry)
                self.later(lambda: report(Raised(codec.encode_error(error), 0.0)))

        entry = attempt, report
        executor.pending.append(entry)
        executor.asking.add(attempt.version)
        self.trace(f"is about to send {attempt.call} {attempt.version:x}")
        attempt.paid.run.ask(told)

    def _not_begun(self, attempt: Attempt, lost: tuple[CallId, ...], gone: bool) -> Vanished:
        part = attempt.actor
        if part is None:
            return Vanished("inputs lost", lost=lost)
        if gone:
            return Vanished("state lost", lost=(*lost, CallId(f"{part.holder}{STATE}")))
        state = self.executor.given.pop(attempt.version)
        if part.state is None or state is None:
            return Vanished("inputs lost", lost=lost)
        self.executor.actors[part.state.handle] = state  # type: ignore[index]  # as above
        return Vanished("inputs lost", lost=lost, state=part.state)

    def _undo_fails(self, key: str) -> bool:
        """Whether this try of an undo fails: of the few that do, some do so a few times, and some for good."""
        if key not in self.undo_fails and self.undo_faults_left > 0 and self.undo_chance.random() < 0.5:
            self.undo_faults_left -= 1
            self.report.faults += 1
            self.undo_fails[key] = self.undo_chance.choice((1, UNDO_RETRIES + 1))
        left = self.undo_fails.get(key, 0)
        self.undo_fails[key] = max(0, left - 1)
        return left > 0

    def _next_to_end(self) -> int:
        """Which pending attempt: one that could not be ended goes on until its call runs again, to do harm there."""
        pending, stubborn = self.executor.pending, self.executor.stubborn
        wanted = {attempt.call for attempt, _ in pending if attempt.version not in stubborn}
        free = [n for n, (a, _) in enumerate(pending) if a.version not in self.executor.asking]
        likely = [n for n in free if pending[n][0].version not in stubborn or pending[n][0].call in wanted]
        return self.chance.choice(likely or free)

    def _fail(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        acted = self.chance.random() < 0.5 and self._may_send(attempt)
        if acted:
            self._act(_leaves_nothing(attempt))
        self.trace(f"fail {attempt.call} {attempt.version:x} acted={acted}")
        if self.chance.random() < 0.5:
            if not acted and self.chance.random() < 0.4 and self._may_haunt(attempt):
                self.zombies.append(self._portable(attempt))
            report(Vanished("its worker died"))
        elif acted or attempt.function is not body or self.chance.random() < 0.7:
            choice = (f"error {attempt.call}", int(attempt.version), 0)
            outcome = Raised(codec.encode_error(SimulatedError([choice])), 0.0)
            report(self._leave(attempt, outcome, {choice}) if attempt.actor is not None else outcome)
        elif attempt.actor is not None:
            report(Vanished("its worker died"))
        else:
            self.sink.refuse(attempt.key)
            report(
                Raised(
                    codec.encode_error(SimulatedError([(f"error {attempt.call}", int(attempt.version), 0)])), 0.0, True
                )
            )

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

    def _survivors(self, execution: Execution) -> list[tuple[Any, ...]]:
        """What the next epoch finds: all that was flushed, and as much of the rest as the page cache kept."""
        log = self.log
        kept = self.chance.randint(log.durable, len(log.records))
        for attempt, _ in self.executor.pending:
            if self.chance.random() < 0.4:
                self._act(attempt) if self._readable(attempt) and self._may_send(attempt) else None
            elif self.chance.random() < 0.2 and self._may_haunt(attempt):
                self.zombies.append(self._portable(attempt))
        return list(log.records[:kept])

    def _may_haunt(self, attempt: Attempt) -> bool:
        return (
            attempt.function is body and attempt.actor is None and self._readable(attempt) and self._may_send(attempt)
        )

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


def _start(seed: int) -> records.Start:
    return records.Start(
        Code.START, 0, "sim", 1, 0.0, "sim", "sim", None, "sim", None, b"f", None, {}, seed, "/", "sim"
    )


def _waiting_events(execution: Execution) -> list[str]:
    """The names of the events that somebody waits for."""
    if execution.over():
        return []
    calls = (call for call in execution.kernel.calls.values() if call.note.kind is Kind.EVENT)
    return [
        execution.handles[call.id].event_name for call in calls if call.attached and call.state is CallState.RUNNING
    ]


def _unfinished(execution: Execution) -> list[object]:
    kernel = execution.kernel
    scopes = [(s.path, s.active, s.returned, s.ended, s.deferred) for s in kernel.scopes.values()]
    state = {
        name: getattr(kernel, name) for name in ("_to_undo", "stale", "_held_back", "finishing", "_unsaved", "_undoing")
    }
    return [
        scopes,
        state,
        *(call for call in execution.kernel.calls.values() if call.attached and call.state.name != "DONE"),
    ]


def _turns_before(call: Call) -> dict[CallId, bool]:
    """The calls of its actor before this one, and whether they surely ran. Who stands aside may be known only later."""
    found: dict[CallId, bool] = {}
    before = call.before
    while before is not None:
        found[before.id] = before.state is CallState.DONE and not before.skipped
        before = before.before
    return dict(reversed(found.items()))


def _leaves_nothing(attempt: Attempt) -> Attempt:
    """The attempt without the snapshot that it would take in the end."""
    return attempt if attempt.actor is None else replace(attempt, actor=replace(attempt.actor, snapshot_to=None))


def simulate(
    seed: int,
    *,
    kernel: type[Kernel] = Kernel,
    log: type[SimulatedLog] = SimulatedLog,
    trace: bool = False,
    plain: bool = False,
    world: type[World] = World,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Report:
    """Live through one seed. ``plain``: its calls are plain ones, that nobody has a Ref to.

    Raises:
        Violation: the invariant does not hold, or nothing can happen any more.
    """
    lived = world(seed, kernel, log, trace, plain)
    own = loop is None
    loop = loop or asyncio.new_event_loop()
    try:
        return loop.run_until_complete(lived.live())
    except Violation as violation:
        violation.add_note("\n".join(lived.report.trace))
        raise
    finally:
        left = asyncio.all_tasks(loop)  # bodies that a violation has left waiting
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        if own:
            loop.close()


__all__ = ["Report", "simulate"]
