"""A world in which everything that can go wrong goes wrong, in an order that one integer decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from exoflow import codec
from exoflow.driver import records
from exoflow.driver.execution import Execution
from exoflow.driver.history import History
from exoflow.errors import Corrupt, InDoubt, RunError, StorageError
from exoflow.journal.inbox import Message
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import State as CallState
from exoflow.kernel.kernel import Kernel
from exoflow.model import Kind, RunId
from exoflow.testing.simulation.doubles import SimulatedClock, SimulatedExecutor, SimulatedLog
from exoflow.testing.simulation.oracle import Violation, check, check_stuck
from exoflow.testing.simulation.report import Report
from exoflow.testing.simulation.workers import Workers

STEPS_MAX = 3000


class Crashed(BaseException):
    """The process is dead."""


class _Traced(Execution):
    """Writes down what the kernel orders."""

    def _traced(self, command: Any) -> None:
        self.trace(f"   {command}")  # type: ignore[attr-defined]
        Execution.carry_out[type(command)](self, command)

    carry_out = dict.fromkeys(Execution.carry_out, _traced)


class World(Workers):
    """One seed, from crash to crash."""

    def __init__(
        self, seed: int, kernel: type[Kernel], log: type[SimulatedLog], trace: bool, plain: bool = False
    ) -> None:
        super().__init__(seed, trace, plain)
        self.kernel_type = kernel
        self.log_type = log
        self.undo_crashes_left = self.undo_chance.choice((0, 1, 1, 2))
        self.rolling_back = False
        """Something was undone because the run has failed: from now on no body may run, whatever crashes."""
        self.clock = SimulatedClock()
        self.will_cancel = self.chance.random() < 0.08
        self.messages: list[Message] = []
        """What somebody outside has sent the run: it outlives its processes."""

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


__all__ = ["World", "simulate"]
