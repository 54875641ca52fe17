"""When a body has ended, and when the run is over (V15, V16)."""

from __future__ import annotations

from collections.abc import Sequence

from exoflow.errors import NondeterministicFlow
from exoflow.kernel.call import Call, Scope, State
from exoflow.kernel.commands import EndScope, Finish, RecordFailing, Stop
from exoflow.kernel.forsaking import Forsaking
from exoflow.model import CallId, Kind


class Ending(Forsaking):
    """A body ends with its calls; the run ends when nothing has to be saved or undone any more."""

    # -- durability ------------------------------------------------------------------------------------------------

    def started(self) -> None:
        """The run's Start record was appended: effects wait for it (L1)."""
        self.seq += 1
        self.start_seq = self.seq

    def durable(self, seq: int) -> None:
        """Every record of this run up to ``seq`` is durable."""
        self.durable_seq = max(self.durable_seq, seq)
        records = self.records
        while records and records[0][0] <= seq:
            _, call, version, what = records.popleft()
            if what == "save":
                if call.version == version and call.saved:
                    call.committed = not call.note.actor or self._is_committed(call)
                    self._settle(call)
                    if call.note.saves == "sync":
                        self._announce(call)
            elif what == "snapshot":
                if call.snapshot == version == call.version:
                    self._snapped(call)
            elif call.intent == version:
                call.intent_durable = True
                if call.state is State.NEEDED:
                    self._ready.append(call)
                elif call.state is State.RUNNING and call.note.paid:
                    self._dispatch(call)
        if self._covers:
            self._commit_covered()
        if self._waiting_start:
            self._ready.extend(self._waiting_start)
            self._waiting_start.clear()

    def _is_committed(self, call: Call) -> bool:
        """An actor's call, now that its record is durable."""
        call.written = True
        return not call.is_choice or call.snapped

    def _snapped(self, call: Call) -> None:
        """The snapshot of an actor's call is durable: it, and what can be computed from it, will not change."""
        call.snapped = True
        if call.written:
            call.committed = True
        self._settle(call)
        if call.note.saves == "sync":
            self._announce(call)
        taker = call.after
        while taker is not None and not taker.is_choice:
            self._settle(taker)
            taker = taker.after
        holder = self.holder(call)
        if holder is not None and not holder.closed:
            self._covers[call] = None

    def _commit_covered(self) -> None:
        """A snapshot commits the calls before it too, once nothing can take it back (V7)."""
        for cover in list(self._covers):
            if not cover.attached or cover.state is not State.DONE or not cover.snapped:
                del self._covers[cover]
                continue
            found = self._committed_by(cover)
            if found is None:
                continue
            del self._covers[cover]
            for call in found:
                call.committed = True
            for call in sorted(found, key=lambda call: call.version):
                self._settle(call)

    # -- bodies ----------------------------------------------------------------------------------------------------

    def _start_deferred(self, scope: Scope) -> None:
        """V1: what no committed call has taken, near or far, starts now; the rest when something that runs needs it."""
        self._give_up_hope()
        deferred, scope.deferred = scope.deferred, []
        spared: set[Call] = set()
        alone: list[Call] = []
        for call in reversed(deferred):  # who takes a call was made after it
            if call.state is not State.IDLE:
                continue
            taken = any(taker.state is State.DONE or taker in spared for taker in call.takers)
            if not taken or call.forced or call.note.effect is not None:
                alone.append(call)
            else:
                spared.add(call)
        for call in reversed(alone):
            self._need(call)

    def _check_all_made(self, scope: Scope, *, last: bool = False) -> None:
        made = len(scope.reads)
        owner = scope.owner
        newest = scope.stamp if owner is None or owner.scope is None else max(scope.stamp, self._fresh_stamp(owner))
        for call in self.by_path.get(scope.path, ()):
            if call.attached or call.state is not State.DONE or call.version < newest:
                continue
            if last or call.recorded_reads_at <= made and not newest:
                raise NondeterministicFlow(
                    f"the flow body did not make the recorded call {call.id} again, though everything that it "
                    f"has read is the same. A flow body may only branch on what it got from tasks, exoflow.now(), "
                    f"exoflow.uuid4() and exoflow.rng()."
                )

    def _try_end(self, scope: Scope) -> None:
        if not scope.returned or scope.ended:
            return
        if scope.deferred:
            self._start_deferred(scope)
        if scope.active or scope.owner is None and self._is_looking():
            return
        refs = scope.result_refs
        if scope.owner is not None:  # its result is older than no choice behind it, and an event may still be to come
            refs = tuple(call for call in refs if call.note.kind is Kind.EVENT)
        result = self._whole(refs)
        if result is None:
            return
        scope.ended = True
        self._ending.append(self.scopes[""])
        if scope.owner is not None and scope.owner.state is State.DONE and scope.owner.names:
            scope.owner.names = ()  # replayed to see what was open behind it: its late inputs say so now
            self._release(scope.owner)
            self._settle(scope.owner)
        error = None if scope.raised else next((c.id for c in scope.calls if c.failed and not c.seen), None)
        if error is None and not scope.raised:
            error = next((c.id for c in result if c.failed), None)  # its Ref stands in the result
        if not scope.raised and error is None and not self.cancelling:
            self._check_all_made(scope, last=True)
        self.out.append(EndScope(scope.path, error))

    def _is_looking(self) -> bool:
        """Whether a child flow is replayed to find a value: what it has not called again yet is part of the run."""
        if self._reopening:
            return True
        within = (scope for scope in self.scopes.values() if scope.owner is not None and scope.owner.body is scope)
        return any(not scope.ended for scope in within)

    def _whole(self, refs: tuple[Call, ...]) -> Sequence[Call] | None:
        """These calls and those that Refs in their values stand for, if all are there; else wants the others."""
        pending = list(refs)
        seen: dict[Call, None] = {}
        there = True
        while pending:
            call = pending.pop()
            if call in seen:
                continue
            seen[call] = None
            if self._available(call):
                pending.extend(() if call.failed else call.refs)
            else:
                there = False
                if call.state is not State.RUNNING:
                    self.wants(call)
                call.wanted = True
        return tuple(seen) if there else None

    # -- the run ---------------------------------------------------------------------------------------------------

    def settled(self, *, failed: bool) -> None:
        """The root body's result is encoded, or its error."""
        if not self.finishing:
            self._finish(failed=failed)

    def unsettled(self) -> None:
        """A value that stands in the result was lost before it could be read: it has to be made again first."""
        root = self.scopes[""]
        root.ended = False
        self._ending.append(root)

    def _finish(self, *, failed: bool) -> None:
        """The root body has ended: undo what must not stand, then end the run."""
        self.finishing = True
        rolls_back = self.unwinding or failed and self.undo_on_failure
        for call in self.calls.values():
            if call.intent and call.note.rollback and (rolls_back or not failed and self._is_orphan(call)):
                self._queue_undo(call)
        if rolls_back and self._to_undo and not self.unwinding:
            self.failing = True
            self.seq += 1
            self.urgent = self._failing_seq = self.seq
            self.out.append(RecordFailing())

    def _is_orphan(self, call: Call) -> bool:
        """No present body has made the call, nor a child flow whose result stands without its body."""
        while not call.attached:
            owner = self.calls.get(CallId(call.id.rpartition("/")[0]))
            if owner is None or owner.body is not None:
                return True
            if owner.attached:
                return owner.state is not State.DONE
            call = owner
        return False

    def goes_on_failing(self) -> None:
        """An earlier epoch had failed, durably, and was rolling back: no body runs, the rest is undone (V15)."""
        self.failing = True
        self._finish(failed=True)

    def cancel(self) -> None:
        """The cancel is durable (V15): nothing new starts, what runs is ended, what can be undone is undone."""
        self.cancelling = True
        for call in list(self.calls.values()):
            if call.state is State.RUNNING and call.note.kind is Kind.TASK:
                self.stale[call.attempt] = call
                self.out.append(Stop(call.id, call.attempt))
                call.state = State.IDLE
            elif call.state in (State.NEEDED, State.DOUBT, State.RUNNING):
                call.state = State.IDLE
        self._finish(failed=True)

    def _try_finish(self) -> None:
        if self.finished or self._unsaved and not self.cancelling:
            return
        if self._is_at_work() if self.stuck else self._is_blocked() or self.cancelling and self.stale:
            return
        self.finished = True
        self.out.append(Finish())

    def _is_at_work(self) -> bool:
        """Whether an attempt still runs: what it does is to be recorded, or stands on what is to be undone."""
        running = (call for call in self.calls.values() if call.state is State.RUNNING)
        return bool(self.stale) or any(call.note.kind is Kind.TASK for call in running)
