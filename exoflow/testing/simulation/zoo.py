"""Kernels and journals broken on purpose, each in one rule. One that the simulator does not catch is a bug in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from exoflow.driver.spec import TaskSpec
from exoflow.journal.records import Kind as Code
from exoflow.kernel.call import Call, Scope, State
from exoflow.kernel.kernel import Kernel
from exoflow.model import CallId, Kind, Version, version
from exoflow.testing.simulation.doubles import SimulatedLog, undo
from exoflow.testing.simulation.program import flow_of
from exoflow.testing.simulation.world import World

# -- gates -------------------------------------------------------------------------------------------------------------


class EffectsBeforeTheirChoices(Kernel):
    """Breaks G3: an effect starts while choices behind it are not durable."""

    def _may_act(self, call: Call) -> bool:
        still_open, call.open = call.open, 0
        may = super()._may_act(call)
        call.open = still_open
        return may


class OnlyDirectInputsCommitted(Kernel):
    """Breaks G3 in depth: an effect waits for the choices among its direct inputs, not for those behind them."""

    def _may_act(self, call: Call) -> bool:
        still_open = call.open
        if all(source.committed or not source.must_commit for source in call.inputs):
            call.open = 0
        may = super()._may_act(call)
        call.open = still_open
        return may


class NeverMeansNever(Kernel):
    """Breaks G4: a choice that is never saved is not saved for an effect either."""

    def _save(self, call: Call) -> None:
        if call.note.saves != "never":
            super()._save(call)


class RollbackIsNoCommit(Kernel):
    """Breaks G6: an effect starts while a rollback-able call behind it is not durable."""

    def _close(self, call: Call) -> None:
        if call.note.rollback and call.state is State.DONE:
            call.committed = True
        super()._close(call)


class NothingIsReleased(Kernel):
    """Breaks G6: what an effect stands on is undone on a cancel."""

    def _sweep(self, call: Call) -> tuple[CallId, ...]:
        return ()


class ReadsAreNoLineage(Kernel):
    """Breaks G10: what a body has read is not lineage of its later calls."""

    def read(self, scope: Scope, call: Call) -> None:
        call.seen = True
        call.wanted = False


# -- logging -----------------------------------------------------------------------------------------------------------


class AppendedIsEnough(Kernel):
    """Breaks L2: a choice counts as saved when its record is appended, and an idempotent effect waits for no more."""

    def _append_save(self, call: Call) -> None:
        super()._append_save(call)
        call.committed = True
        if call.state is State.DONE:
            self._settle(call)

    def _may_act(self, call: Call) -> bool:
        call.gate_seq = -1  # behind the Start record only
        return super()._may_act(call)


class IntentAfterTheBody(Kernel):
    """Breaks L4: the body starts when its intent is appended, not when it is durable."""

    def _intend(self, call: Call, names: tuple[CallId, ...], releases: tuple[CallId, ...]) -> None:
        super()._intend(call, names, releases)
        call.intent_durable = True
        self._run(call)


class AcknowledgedEarly(SimulatedLog):
    """Breaks the journal's first promise: it says that records are durable before they are."""

    def notify(self, position: int, callback: Callable[[BaseException | None], None]) -> None:
        really, self.durable = self.durable, len(self.records)
        callback(None)
        self.durable = really


class OldestRecordWins(SimulatedLog):
    """Breaks replay: the first result of a call is told, not the last."""

    def __init__(self, records: list[tuple[Any, ...]]) -> None:
        oldest: dict[object, object] = {}
        records[:] = [r for r in records if r[0] != Code.SAVED or oldest.setdefault(r[2], r[3]) == r[3]]
        super().__init__(records)


# -- recovery ----------------------------------------------------------------------------------------------------------


class NoAgreementCheck(Kernel):
    """Breaks I3: a record is used whatever became of the choices that it stands on."""

    def _lineage_stamp(self, call: Call) -> Version:
        return Version(0)


class VersionsReused(Kernel):
    """Breaks the identity of attempts: their numbers begin anew after a crash."""

    def _next_version(self) -> Version:
        self._number += 1
        return version(1, self._number)


class LostChoicesNotMadeAgain(Kernel):
    """Breaks V2: a choice that is lost while an effect waits for its save is not made again."""

    def lost(self, id: CallId) -> None:
        call = self.calls[id]
        waited_for, call.forced = call.forced, False
        super().lost(id)
        call.forced = waited_for


class RetiredChoicesStillUsed(Kernel):
    """Breaks V3: a choice is made again, and what was derived from the old one stays."""

    def _retire_derived(self, choice: Call) -> None:
        choice.has_derived = False


class OnlyConsumersFall(Kernel):
    """Breaks the fixpoint of V3: what consumed a choice falls, what was derived from that does not."""

    def _void(self, call: Call) -> None:
        super()._void(call)
        call.takers, call.late_takers = [], []


class UndoSkipped(Kernel):
    """Breaks V4: what a retired attempt did stays."""

    def _queue_undo(self, call: Call) -> None:
        super()._queue_undo(call)
        if self._to_undo.pop(call.intent, None):
            self._forget_intent(call, call.intent)


class NotUndoneBeforeRetry(Kernel):
    """Breaks V4: an attempt that was lost, or failed, is tried again on top of what it did."""

    def _again(self, call: Call, why: str, *, may: bool) -> None:
        if call.note.rollback:
            call.intent = Version(0)
        super()._again(call, why, may=may)


class OldestUndoneFirst(Kernel):
    """Breaks V4: undoes in the order in which things were done."""

    def _undo_next(self) -> None:
        waiting, self._to_undo = self._to_undo, dict(sorted(self._to_undo.items(), key=lambda item: item[0])[:1])
        super()._undo_next()
        self._to_undo = waiting


class FailedAndForgotten(Kernel):
    """Breaks V15: a run that had failed, and dies while it is rolled back, is tried again: it books anew."""

    def goes_on_failing(self) -> None: ...


class UndoneBeforeItHasFailed(Kernel):
    """Breaks V15: a failed run is rolled back before it is durable that it has failed."""

    def _finish(self, *, failed: bool) -> None:
        super()._finish(failed=failed)
        self._failing_seq = 0


class GivenUpIsUndone(Kernel):
    """Breaks V4: an undo that has failed for good is taken for one that was carried out."""

    def undo_failed(self, id: CallId, version: Version) -> None:
        self.undone(id, version)


class OlderUndoneAllTheSame(Kernel):
    """Breaks V4: when an undo has failed for good, those behind it are carried out before the run ends."""

    def undo_failed(self, id: CallId, version: Version) -> None:
        self._to_undo.pop(version)
        self._undoing = Version(0)
        super().undo_failed(id, version)

    def _undo_next(self) -> None:
        self.stuck, was_stuck = False, self.stuck
        super()._undo_next()
        self.stuck = was_stuck

    def _is_at_work(self) -> bool:
        return bool(self._undoing) or super()._is_at_work()


class CommittedWithoutASnapshot(Kernel):
    """Breaks V7: the choice of an actor's call is committed with its own record, whatever becomes of the actor."""

    def _is_committed(self, call: Call) -> bool:
        super()._is_committed(call)
        return True


class SnapshotOfARetiredVersion(Kernel):
    """Breaks V7: a call that is made again keeps the snapshot of the version that was retired."""

    def _forget_state(self, call: Call) -> None:
        had = call.snapshot
        super()._forget_state(call)
        call.snapshot = had

    def _left(self, call: Call, *, state: bool, snapshot: bool) -> None:
        had = call.snapshot
        super()._left(call, state=state, snapshot=snapshot)
        if had and not snapshot:
            call.snapshot = call.version


class DeadAttemptsCount(Kernel):
    """Breaks V10: the result of an attempt that was declared dead is taken for that of the next one."""

    def _is_live(self, call: Call, version: Version) -> bool:
        was_dead = version in self.stale and call.state is State.RUNNING and call.note.kind is Kind.TASK
        return super()._is_live(call, version) or was_dead


class NoDoubt(Kernel):
    """Breaks V13: an irrevocable effect that may have happened is tried again without a question."""

    def _doubt(self, call: Call) -> None:
        call.state = State.NEEDED
        self._run(call)


# -- what is paid for --------------------------------------------------------------------------------------------------


class PaidOnSand(Kernel):
    """Breaks G3: a paid call starts while choices behind it are not durable: it may be retired when it was paid for."""

    def _may_act(self, call: Call) -> bool:
        still_open = call.open
        if call.note.paid:
            call.open = 0
        may = super()._may_act(call)
        call.open = still_open
        return may


class PaidBeforeItsIntent(Kernel):
    """Breaks L4: a paid call sends when its intent is appended: after a crash nobody knows that it was paid for."""

    def dispatching(self, id: CallId, version: Version) -> bool:
        may = super().dispatching(id, version)
        if may and not self.calls[id].intent_durable:
            self._dispatch(self.calls[id])
        return may


class PaidInSilence(Kernel):
    """Breaks ADR 0024: a paid call that may have been paid for before does not know it."""

    def _run(self, call: Call) -> None:
        call.recalled = False
        super()._run(call)
        call.begun_before = False


class PaidUnasked(Kernel):
    """Breaks ADR 0024: a paid call has its intent when it starts, and is in doubt where it has only waited."""

    def _run(self, call: Call) -> None:
        super()._run(call)
        call.begun_before = call.note.paid and call.recalled
        if call.note.paid and not call.intent:
            self._intend(call, (), ())


class PaidAgain(Kernel):
    """Breaks V1: after a crash, a paid call that has a record is made all the same."""

    def recall_result(self, id: CallId, path: str, version: Version, **what: Any) -> None:
        super().recall_result(id, path, version, **what)
        call = self.calls[id]
        if call.note.paid and not call.failed:
            call.state = State.IDLE
            call.saved = call.committed = False


class Reserving(World):
    """Every task reserves something, the run is cancelled, and undos fail: where undos go wrong, it shows here."""

    has_paid = False

    def __init__(self, seed: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(seed, *args, **kwargs)
        tasks = tuple(map(_reserving, self.program.tasks))
        self.program = replace(self.program, tasks=tasks)
        self.flow = replace(flow_of(self.program), undo_on_failure=True)
        self.undo_faults_left = 9
        self.will_cancel = True


def _reserving(task: TaskSpec) -> TaskSpec:
    note = replace(task.note, deterministic=False, effect=None, rollback=True)
    return replace(task, note=note, undo=undo)


HABITATS: dict[type[Kernel] | type[SimulatedLog], type[World]] = {
    OldestUndoneFirst: Reserving,
    OlderUndoneAllTheSame: Reserving,
}
"""Worlds in which an animal shows soon what it breaks; the others are at home in any."""

ANIMALS: tuple[type[Kernel] | type[SimulatedLog], ...] = (
    EffectsBeforeTheirChoices, OnlyDirectInputsCommitted, NeverMeansNever, RollbackIsNoCommit, NothingIsReleased,
    ReadsAreNoLineage, AppendedIsEnough, IntentAfterTheBody, AcknowledgedEarly, OldestRecordWins, NoAgreementCheck,
    VersionsReused, LostChoicesNotMadeAgain, RetiredChoicesStillUsed, OnlyConsumersFall, UndoSkipped,
    NotUndoneBeforeRetry, OldestUndoneFirst, FailedAndForgotten, UndoneBeforeItHasFailed, GivenUpIsUndone,
    OlderUndoneAllTheSame, CommittedWithoutASnapshot, SnapshotOfARetiredVersion, DeadAttemptsCount, NoDoubt,
    PaidOnSand, PaidBeforeItsIntent, PaidInSilence, PaidUnasked, PaidAgain,
)  # fmt: skip
