"""How attempts end: as they should, not at all, or with what nobody wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exoflow import codec
from exoflow.attempts.actors import STATE
from exoflow.codec import Encoded
from exoflow.driver.execution import Execution
from exoflow.model import CallId, Held, Stored
from exoflow.protocols import Attempt, Computed, Outcome, Raised, Vanished
from exoflow.testing.simulation.bodies import Bodies
from exoflow.testing.simulation.doubles import body, undo
from exoflow.testing.simulation.program import UNDO_RETRIES, SimulatedError


class Workers(Bodies):
    """They run the bodies, die over them, and lose what these made."""

    def __init__(self, seed: int, trace: bool, plain: bool) -> None:
        super().__init__(seed, trace, plain)
        self.undo_faults_left = self.undo_chance.choice((0, 0, 1, 2, 4))
        self.undo_fails: dict[str, int] = {}
        """How often the undo of an attempt is still going to fail; more often than it is tried: for good."""
        self.faults_left = self.chance.choice((0, 2, 3, 3, 4, 6, 9))
        self.soon: list[Callable[[], None]] = []

    def later(self, event: Callable[[], None]) -> None:
        self.soon.append(event)

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
        self.executor.actors[part.state.handle] = state  # type: ignore[index]  # a handle is whatever its executor makes it
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

    def _wake_zombie(self) -> None:
        """An attempt of a dead epoch goes on where nobody could end it: only its key can stop its effect."""
        attempt = self.zombies.pop(self.chance.randrange(len(self.zombies)))
        self.trace(f"zombie {attempt.call}")
        self._act(attempt, zombie=True)

    def _may_haunt(self, attempt: Attempt) -> bool:
        return (
            attempt.function is body and attempt.actor is None and self._readable(attempt) and self._may_send(attempt)
        )

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


def _leaves_nothing(attempt: Attempt) -> Attempt:
    """The attempt without the snapshot that it would take in the end."""
    return attempt if attempt.actor is None else replace(attempt, actor=replace(attempt.actor, snapshot_to=None))
