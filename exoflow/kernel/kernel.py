"""The rules: when a task call may start, what is saved, what is undone, when a run is over.

Events come in as method calls, commands go out through ``take()``. There is no clock, no chance and no I/O in here, and
no difference between a first run and a recovery: recovery is a first run with a longer history. ``reference.py`` says
the same without any incremental state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache

from exoflow.errors import Corrupt, NondeterministicFlow, RunError
from exoflow.kernel.commands import (
    Command,
    Deliver,
    Doubt,
    EndScope,
    Finish,
    Intend,
    Make,
    Probe,
    Run,
    Save,
    Stop,
    Upload,
)
from exoflow.kernel.lineage import FIXED
from exoflow.kernel.retirement import Retirement
from exoflow.kernel.state import NOBODY, Call, Scope, State, joined
from exoflow.model import NO_VERSION, Annotations, CallId, Kind, Version, version

SECONDS_PER_BYTE = 1 / 200e6  # until the store's rate has been measured


class Kernel(Retirement):
    """One run, in one epoch."""

    def __init__(self, epoch: int, *, undo_on_failure: bool = False) -> None:
        super().__init__()
        self.epoch = epoch
        self.undo_on_failure = undo_on_failure
        self.damaged = False  # the journal had damaged records: a missing one may have existed
        self.forgiving = False  # the run had failed: errors that nothing stands on are forgotten (V14)
        self.finished = False
        self.seconds_per_byte = SECONDS_PER_BYTE
        self._number = 0
        self._records: deque[tuple[int, Call, Version, str]] = deque()  # appended, not known to be durable
        self._by_path: dict[str, list[Call]] = {}  # recalled calls by the path of their flow
        self._start_seq = 0  # of the run's Start record
        self._waiting_start: list[Call] = []
        self._unsure: set[CallId] = set()  # intents whose completion may have been a damaged record
        self._sought: set[Call] = set()  # in child flows whose bodies have not been replayed

    def _next_version(self) -> Version:
        self._number += 1
        return version(self.epoch, self._number)

    def take(self) -> list[Command]:
        """The commands that the last events gave rise to, in order."""
        if self._to_undo:
            self._undo_next()
        out = self.out
        if out:
            self.out = []
        return out

    # -- history ---------------------------------------------------------------------------------------------------

    def recall_result(
        self,
        id: CallId,
        path: str,
        version: Version,
        *,
        saved: bool,
        failed: bool,
        choice: bool,
        effect: bool,
        names: tuple[CallId, ...],
        refs: tuple[CallId, ...],
        reads_at: int,
        newest: Version = NO_VERSION,
    ) -> None:
        """A SAVED, FAILED or MADE record of an older epoch, in journal order."""
        call = self._recalled(id, path)
        call.version = version
        call.state = State.DONE if saved else State.IDLE
        call.saved = saved
        call.committed = saved
        call.failed = failed
        if names or call.rare:
            call.names = names
        call.refs = tuple(map(self.reference, refs)) if refs else ()
        call.recorded_reads_at = reads_at
        call.record_stamp = newest
        call.why = "not saved"
        call.note = _note(choice or failed, effect=effect, rollback=call.note.rollback)

    def recall_intent(
        self,
        id: CallId,
        path: str,
        version: Version,
        *,
        names: tuple[CallId, ...],
        releases: tuple[CallId, ...],
        rollback: bool,
    ) -> None:
        """An INTENT record of an older epoch."""
        call = self._recalled(id, path)
        call.intent = version
        call.intent_durable = True
        call.intent_names = names
        call.releases = releases
        call.note = _note(True, effect=not rollback, rollback=rollback)
        for released in releases:
            if released in self.calls:
                self.calls[released].released = True

    def recall_undone(self, id: CallId, version: Version) -> None:
        """An UNDONE record of an older epoch: the attempt and its effect are gone."""
        call = self.calls.get(id)
        if call is None:
            return
        if call.intent and call.intent <= version:
            call.intent = Version(0)
            call.intent_durable = False
        if call.version <= version:
            call.state = State.IDLE
            call.saved = False
            call.committed = call.failed = False

    def recalled(self) -> None:
        """The whole history has been told: what stands on a choice that was made again later is void."""
        if self.damaged:
            self._unsure = {call.id for call in self.calls.values() if call.intent and call.state is not State.DONE}
        for call in self.calls.values():
            if not call.rare:
                continue  # it names nothing
            named = [self.calls[name] for name in (*call.intent_names, *call.names) if name in self.calls]
            newest = max((source.version for source in named if source.is_choice), default=0)
            if call.intent and call.note.rollback and call.intent < newest or call.names and call.version < newest:
                self._void(call)
        for call in self.calls.values():
            if call.state is State.DONE or call.intent:
                self._detached(call)

    def reference(self, id: CallId) -> Call:
        """The call that a Ref names; not made yet by this incarnation of the body, perhaps."""
        call = self.calls.get(id)
        if call is None:
            call = self.calls[id] = Call(id, _PLAIN)
        return call

    def _recalled(self, id: CallId, path: str) -> Call:
        call = self.calls.get(id)
        if call is None:
            call = self.calls[id] = Call(id, _PLAIN)
            call.recalled = True
            if path not in self._by_path:
                self._by_path[path] = []
            self._by_path[path].append(call)
        return call

    # -- the body --------------------------------------------------------------------------------------------------

    def opened(self, path: str, owner: CallId | None) -> Scope:
        """A flow body begins, for the first time or again."""
        call = None if owner is None else self.calls[owner]
        if call is None and path in self.scopes:
            return self.scopes[path]
        scope = self.scopes[path] = Scope(path, call)
        if call is not None:
            call.body = scope
            self._reopening.discard(call)
        return scope

    def called(
        self, scope: Scope, id: CallId, note: Annotations, inputs: tuple[Call, ...] = (), passes: tuple[Call, ...] = ()
    ) -> Call:
        """The body makes a call. Its record, where there is one, is used if it still agrees with all it stands on."""
        call = self.calls.get(id)
        fresh = call is None
        if call is None:
            call = self.calls[id] = Call(id, note)
        else:
            assert not call.attached, id
            self.unattached.discard(call)
            call.note = note
        self._link(call, scope, inputs, passes)
        if not fresh:
            self._reattach(call)
        if not call.open and not call.closed and not call.must_commit:
            self._settle(call)
        if call.state is State.IDLE:
            if self.unattached:
                scope.deferred.append(call)
            else:
                self._need(call)
        if self._sought:
            self._found(call)
        return call

    def _reattach(self, call: Call) -> None:
        if (
            call.version
            and (call.state is State.DONE or call.intent)
            and call.version < self._lineage_stamp(call)
            or call.intent
            and call.intent < self._lineage_stamp(call)
        ):
            self._void(call)
        if call.state is State.DONE or call.intent:
            self._mark_derived(call)
            self._lineage_stamp(call)
            call.stamp_at = FIXED
        if call.state is State.DONE:
            if call.note.kind is Kind.FLOW:
                call.names = tuple(name for name in call.names if not self.calls[name].committed)
                call.forced = False  # an effect that waits for it has its body replayed, if something is open there
                if not call.names:
                    self._release(call)
            self._settle(call)
        elif call.state in (State.RUNNING, State.DOUBT) and call.note.kind is not Kind.TIMER:
            assert call.scope is not None
            call.scope.active += 1

    def wants(self, call: Call) -> None:
        """The body, or the end of the run, waits for the call's value."""
        call.wanted = True
        if call.failed and call.recalled and self.forgiving and not call.seen:
            self._forgive(call)
        if self.deliverable(call):
            self.out.append(Deliver(call.id))
        else:
            self._need(call)

    def _forgive(self, call: Call) -> None:
        """Run a failed call again if nothing recorded stands on its error (V14)."""
        assert call.scope is not None
        recalled = self._by_path.get(call.scope.path, ())
        if any(c.version > call.version and not c.attached and c.state is State.DONE for c in recalled):
            return
        call.state = State.IDLE
        call.failed = call.committed = False
        call.saved = False
        call.why = "failed before"

    def waits(self, scope: Scope, *, settled: bool = True) -> None:
        """The body can do nothing before it gets something. ``settled``: it surely made every call that it could."""
        if settled and self.unattached and not self.cancelling:
            self._check_all_made(scope)
        self._start_deferred(scope)

    def _start_deferred(self, scope: Scope) -> None:
        """V1: what no committed call has taken starts now; the rest when something that has to run needs it."""
        deferred, scope.deferred = scope.deferred, []
        for call in deferred:
            if call.state is not State.IDLE:
                continue
            taken = any(taker.state is State.DONE for taker in call.takers)
            if not taken or call.forced or call.note.effect is not None:
                self._need(call)

    def _check_all_made(self, scope: Scope, *, last: bool = False) -> None:
        made = len(scope.reads)
        owner = scope.owner
        newest = scope.stamp if owner is None or owner.scope is None else max(scope.stamp, self._fresh_stamp(owner))
        for call in self._by_path.get(scope.path, ()):
            if call.attached or call.state is not State.DONE or call.version < newest:
                continue
            if last or call.recorded_reads_at <= made and not newest:
                raise NondeterministicFlow(
                    f"the flow body did not make the recorded call {call.id} again, though everything that it "
                    f"has read is the same. A flow body may only branch on what it got from tasks, exoflow.now(), "
                    f"exoflow.uuid4() and exoflow.rng()."
                )

    def deliverable(self, call: Call) -> bool:
        return self._available(call)

    def read(self, scope: Scope, call: Call) -> None:
        """The body has been given the call's value or error: lineage of every later call of this body (G10)."""
        call.seen = True
        call.wanted = False
        if call.propagated:
            self.read(scope, call.refs[0])  # the error itself is what has to be durable
        at = len(scope.reads)
        index = call.reads_at if at == call.reads_at else at  # one int instead of two: a run has many of them
        if call.read_at < 0 and scope is call.scope:
            call.read_at = index  # a field, and no row: nearly every call is read once, by the body that made it
        else:
            call.read_by = joined(call.read_by, (scope, scope.incarnation, index))
        scope.reads.append(call)
        stamp = self._stamp(call)
        if stamp > scope.stamp:
            scope.stamp = stamp
        owner = scope.owner
        if owner is not None:
            self._link_late(owner, call)
            if owner.forced:
                self._force(call)
            if owner.state is State.DONE and owner.version < scope.stamp:
                self._fall([], [owner])
        if self._is_closed(call):
            self._advance(scope)

    def returned(self, scope: Scope, refs: tuple[Call, ...] = (), *, raised: bool = False) -> None:
        """The body has ended; ``refs`` stand in what it returned."""
        scope.returned = True
        scope.raised = raised
        scope.result_refs = refs
        owner = scope.owner
        if owner is None:
            for call in refs:
                self.wants(call)
        else:
            for call in refs:
                self._link_late(owner, call)
                if owner.forced:
                    self._force(call)
        if self.forgiving:
            for call in scope.calls:
                if call.failed and call.recalled and not call.seen:
                    self._forgive(call)
                    self._need(call)
        self._start_deferred(scope)
        self._try_end(scope)

    # -- needing and starting --------------------------------------------------------------------------------------

    def _available(self, call: Call) -> bool:
        """Its value, or its error, may be used by a consumer (G1)."""
        if call.state is not State.DONE:
            return False
        if call.failed:
            return True
        return (call.held or call.saved) and (call.note.saves != "sync" or call.committed)

    def _need(self, call: Call) -> None:
        """Have the call run, and before it whatever it takes that is missing (V2)."""
        stack = [call]
        while stack:
            current = stack.pop()
            if not current.attached:
                self._reopen(current)
            elif current.state is State.IDLE or current.state is State.DONE and not self._has_value(current):
                if self.cancelling:
                    continue
                current.state = State.NEEDED
                current.missing = 0
                if current.note.kind is not Kind.TIMER:  # nobody waits for one that was not read
                    assert current.scope is not None
                    current.scope.active += 1
                self._start(current, stack)

    def _has_value(self, call: Call) -> bool:
        return call.failed or call.held or call.saved

    def _has_result(self, call: Call) -> bool:
        return call.state is State.DONE

    def _reopen(self, call: Call) -> None:
        """A Ref into a child flow whose result is recorded: its body is replayed to see how the value is made (V6)."""
        self._sought.add(call)
        owner: Call | None = call
        while owner is not None and not owner.attached:
            owner = self.calls.get(CallId(owner.id.rpartition("/")[0]))
        if owner is not None:
            self._open_again(owner)

    def _open_again(self, owner: Call) -> None:
        if owner.state is not State.DONE or owner.body is not None or owner in self._reopening:
            return
        if not self._inputs_ready(owner, None) or not self._has_result(owner):
            return  # its body needs its arguments; if a choice among them has to be made again, its result falls
        self._reopening.add(owner)
        self.out.append(Run(owner.id, owner.version, owner.tries, "reopened"))

    def _found(self, call: Call) -> None:
        """A call was made while values inside child flows are looked for: it may be one, or lead to one."""
        if call in self._sought:
            self._sought.discard(call)
            if call.waiters or call.wanted:
                self._need(call)
        elif call.note.kind is Kind.FLOW and any(sought.id.startswith(f"{call.id}/") for sought in self._sought):
            self._open_again(call)

    def _start(self, call: Call, stack: list[Call] | None = None) -> None:
        """Start a needed call, or note what it waits for."""
        if call.missing or call.state is not State.NEEDED:
            return
        if call.fail_after_undo and not call.intent:
            self._fail(call)
            return
        if not self._inputs_ready(call, stack):
            return
        note = call.note
        if note.effect is None and not self._makes_way(call):
            return
        if self._is_blocked():
            self._held_back.append(call)
            return
        if note.effect is not None and not (self._may_act(call) and self._makes_way(call)):
            return
        if note.rollback and not self._may_be_undone(call):
            return
        if self._is_blocked():
            self._held_back.append(call)
            return
        self._run(call)

    def _makes_way(self, call: Call) -> bool:
        """Before a choice is made again, what stands on the old one falls (V3), its own last effect too (V4)."""
        if call.is_choice and (call.version and call.has_derived or call.id in self.standing):
            self._retire_derived(call)
            if not call.attached:
                return False  # its own body is among what fell
        if call.note.rollback and call.intent and (call.attempt == call.intent or call.recalled):
            self._held_back.append(call)
            self._queue_undo(call)
            return False
        return True

    def _run(self, call: Call) -> None:
        if self.damaged and call.is_choice and any(left.note.effect for left in self.unattached):
            raise Corrupt(
                f"a damaged record in the journal may have been the result of {call.id}, and a recorded effect "
                f"may stand on it. Nothing was run again."
            )
        if call.note.rollback:
            call.attempt = call.intent  # what the intent names is what an undo will name
        else:
            call.attempt = self._next_version()
        call.state = State.RUNNING
        call.held = False
        call.saved = False
        if call.body is not None:
            if not call.body.ended:
                return  # its body is at work again already, to find a value (V6)
            self._detach(call.body)
            call.body = None
        self._mark_derived(call)
        self._fix_stamp(call)
        if call.is_choice:
            call.version = call.attempt  # from now on nothing stands on the old one
            self.remade += 1
        self.out.append(Run(call.id, call.attempt, call.tries + call.losses + 1, call.why))

    def _inputs_ready(self, call: Call, stack: list[Call] | None) -> bool:
        """Whether every input's value is there, Refs inside the values included; asks for those that are not.

        With all inputs ended, the first error among them is the call's own: the same one in every replay.
        """
        found: dict[Call, None] = dict.fromkeys(call.inputs)
        missing: list[Call] = []
        error: Call | None = None
        pending = list(found)
        for source in pending:
            if source.failed and source.recalled and self.forgiving and not source.seen:
                self._forgive(source)
            if not self._available(source):
                missing.append(source)
            elif source.failed:
                error = error or source
            else:
                pending.extend(ref for ref in source.refs if ref not in found)
                found.update(dict.fromkeys(source.refs))
        call.missing = len(missing)
        for source in missing:
            source.waiters = joined(source.waiters, call)
        if stack is not None:
            stack.extend(missing)
        else:
            for source in missing:
                self._need(source)
        if error is not None and not missing and call.state is State.NEEDED:
            self._fail_with(call, error)
            return False
        return not missing

    def _fail_with(self, call: Call, source: Call) -> None:
        """An input's error is the call's own."""
        source.seen = True
        call.propagated = True
        call.refs = (source,)
        self._mark_derived(call)
        self._done(call, failed=True)

    # -- gates -----------------------------------------------------------------------------------------------------

    def _may_act(self, call: Call) -> bool:
        """G3, G6 and L1 for a task with an effect; its intent (L4) where it needs one."""
        if call.intent and call.note.effect == "irrevocable" and call.intent_durable:
            return self._doubt_settled(call)
        if call.open:
            if not call.gated:
                call.gated = True
                self._force_lineage(call)
            self.urgent = self.seq
            return False
        call.gated = False
        if call.note.effect == "idempotent" and not call.gate_seq:
            call.gate_seq = self.seq  # without an intent, that what it stands on was made has to be durable by itself
        needed = max(self._start_seq, call.gate_seq)
        if self.durable_seq < needed:
            self._waiting_start.append(call)
            self.urgent = max(self.urgent, needed)
            return False
        released = self._sweep(call)
        if call.note.effect == "idempotent" and not released and not call.intent:
            return True
        if call.intent_durable:
            return True
        if not call.intent:
            self._intend(call, (), released)
        return False

    def _may_be_undone(self, call: Call) -> bool:
        """A task with rollback starts behind its durable intent (L4)."""
        if self.durable_seq < self._start_seq:
            self._waiting_start.append(call)
            self.urgent = max(self.urgent, self._start_seq)
            return False
        if not call.intent:
            self._intend(call, self._open_lineage(call, choices=True), ())
            return False
        return call.intent_durable

    def _intend(self, call: Call, names: tuple[CallId, ...], releases: tuple[CallId, ...]) -> None:
        call.intent = self._next_version()
        call.intent_durable = False
        call.intent_names = names
        call.recalled = False
        self._mark_derived(call)
        self.seq += 1
        self.urgent = self.seq
        self._records.append((self.seq, call, call.intent, "intent"))
        self.out.append(Intend(call.id, call.intent, names, releases))

    def _gate_opened(self, call: Call) -> None:
        if call.state is State.NEEDED:
            self._start(call)

    def _force_lineage(self, call: Call) -> None:
        for source in self._behind(call):
            self._force(source)

    def _force(self, call: Call) -> None:
        """An effect waits for this call: save it, or make it again, and so with all behind it (G4, V2)."""
        stack = [call]
        while stack:
            source = stack.pop()
            if source.forced or source.closed:
                continue
            source.forced = True
            if source.note.kind is Kind.FLOW and source.state is State.IDLE:
                self._need(source)  # only its body knows which choices are behind it
            elif source.must_commit and not source.committed:
                if source.state is State.DONE and source.held:
                    self._save(source)
                elif source.state is State.IDLE or source.state is State.DONE and not self._has_value(source):
                    self._need(source)
            elif source.names and source.body is None and source.state is State.DONE:
                self._open_again(source)
            stack.extend(source.late)
            stack.extend(self._behind(source))

    # -- what became of attempts ----------------------------------------------------------------------------------

    def computed(
        self,
        id: CallId,
        version: Version,
        *,
        size: int,
        inline: bool,
        stored: bool = False,
        seconds: float = 0.0,
        refs: tuple[Call, ...] = (),
    ) -> bool:
        """An attempt returned. Whether its result counts: a retired attempt's does not."""
        call = self.calls[id]
        if not self._is_live(call, version):
            return False
        call.held = True
        if call.note.kind is Kind.FLOW:  # it is as new as the newest choice that its body made
            version = self._next_version()
            self._fix_stamp(call)
            call.record_stamp = call.stamp
        call.version = version
        call.refs = refs
        call.cost_s = (
            seconds + sum(i.cost_s for i in call.inputs if not i.saved) if call.note.saves == "cost" else seconds
        )
        self._mark_derived(call)
        saves = call.note.saves
        if saves == "cost":
            worth = call.cost_s > size * self.seconds_per_byte and call.cost_s > 0.001
            saves = "async" if worth else "never"
        if call.note.kind is Kind.FLOW:
            call.names = self._open_lineage(call)
        if saves == "never" and not call.forced:
            self.seq += 1
            self.out.append(Make(id, version))
        elif inline or stored:
            self._append_save(call)
        else:
            self.seq += 1
            self.out.append(Make(id, version))
            self._upload(call)
        self._done(call, failed=False)
        return True

    def _is_live(self, call: Call, version: Version) -> bool:
        if version in self.stale:
            del self.stale[version]
            self._undo_next()
            self._lift_barrier()
            self._try_finish()
            return False
        return call.state is State.RUNNING and call.attempt == version

    def _save(self, call: Call) -> None:
        if call.saved or call.upload:
            return
        self._upload(call)

    def _append_save(self, call: Call) -> None:
        self.seq += 1
        call.saved = True
        if call.forced or call.note.saves == "sync":
            self.urgent = self.seq
        self._records.append((self.seq, call, call.version, "save"))
        self.out.append(Save(call.id, call.version, call.names, call.failed, call.record_stamp))

    def _upload(self, call: Call) -> None:
        call.upload = call.version
        self._unsaved[call.id] = call.version
        self.out.append(Upload(call.id, call.version))

    def uploaded(self, id: CallId, version: Version) -> None:
        """The value is an object of the store now, or goes into its record."""
        call = self.calls[id]
        if self._unsaved.get(id) == version:
            del self._unsaved[id]
        if call.upload == version and call.version == version and call.state is State.DONE:
            call.upload = Version(0)
            self._append_save(call)
        self._try_finish()

    def failed(self, id: CallId, version: Version, *, did_not_happen: bool = False) -> bool:
        """An attempt raised; whether that counts."""
        call = self.calls[id]
        if not self._is_live(call, version):
            return False
        call.tries += 1
        if call.note.effect == "irrevocable":
            if did_not_happen:
                self._forget_intent(call, call.intent)
            elif call.note.on_doubt != "retry":
                self._doubt(call)
                return True
        self._again(call, "retry", may=call.tries <= call.note.retries)
        return True

    def vanished(self, id: CallId, version: Version) -> bool:
        """An attempt ended without a word: lost, timed out or stopped."""
        call = self.calls[id]
        if not self._is_live(call, version):
            return False
        call.losses += 1
        if call.note.effect == "irrevocable" and call.note.on_doubt != "retry":
            self._doubt(call)
            return True
        self._again(call, "lost", may=call.losses <= call.note.losses)
        return True

    def not_begun(self, id: CallId) -> None:
        """The body of a child flow could not begin: an argument's value was lost."""
        call = self.calls[id]
        call.body = None
        if call.state is State.RUNNING:
            self._again(call, "lost", may=True)
        else:
            self._open_again(call)

    def _again(self, call: Call, why: str, *, may: bool) -> None:
        """Another attempt if one is left; else the error stands. What the last one did is undone first (V4)."""
        call.why = why
        call.state = State.NEEDED
        call.missing = 0
        if may and not self.cancelling:
            self._start(call)
            return
        if call.note.rollback and call.intent:
            call.fail_after_undo = True
            self._held_back.append(call)
            self._queue_undo(call)
        else:
            self._fail(call)

    def _fail(self, call: Call) -> None:
        if call.version and call.note.deterministic and not self.cancelling:
            raise RunError(
                f"{call.id} is deterministic and returned a value before, but it fails now. What was derived from that "
                f"value stays true, so the run stops here: mend what makes it fail, then resume."
            )
        call.fail_after_undo = False
        if call.closed:  # as a function of its inputs it was no choice; an error is one
            call.closed = False
            for taker in (*call.takers, *call.late_takers):
                taker.open += 1
        call.failed = True
        call.version = call.attempt
        if call.note.kind is Kind.FLOW:
            call.version = self._next_version()
            self._fix_stamp(call)
            call.record_stamp = call.stamp
            call.names = self._open_lineage(call)
        self._mark_derived(call)
        if not self.cancelling:
            self._append_save(call)
        self._done(call, failed=True)

    def _done(self, call: Call, *, failed: bool) -> None:
        call.state = State.DONE
        call.failed = failed
        if call.note.kind is Kind.FLOW:
            self._release(call)
        if call.refs and not failed:
            self._link_refs(call)
        if call.takers and (call.refs or call.note.kind is Kind.FLOW):
            self._drop_older(call)
        self._settle(call)
        self._announce(call)
        self._ended(call)

    def _drop_older(self, call: Call) -> None:
        """What is behind the value is known only now: recorded results that were made from an older one fall."""
        older = [
            taker
            for taker in call.takers
            if taker.version
            and (taker.state is State.DONE or taker.intent)
            and taker.version < self._fresh_stamp(taker)
        ]
        if older:
            self._fall([], older)

    def _announce(self, call: Call) -> None:
        """Tell whoever waits for the value, if it may be used."""
        if not self._available(call):
            return
        if call.wanted:
            self.out.append(Deliver(call.id))
            root = self.scopes[""]
            if root.returned:
                self._try_end(root)
        waiters, call.waiters = call.waiters, NOBODY
        for waiter in waiters:
            if waiter.missing:
                waiter.missing -= 1
                if not waiter.missing and waiter.state is State.DONE:
                    self._open_again(waiter)
                elif not waiter.missing:
                    self._start(waiter)

    def _renew(self, call: Call) -> None:
        """A result was taken back: have it made again if somebody still needs it."""
        assert call.scope is not None
        if (
            call.wanted
            or call.scope.returned
            or not self.unattached
            or any(taker.state is State.NEEDED for taker in call.takers)
        ):
            self._need(call)
        else:
            call.scope.deferred.append(call)

    def lost(self, id: CallId) -> None:
        """The value is no longer in memory."""
        call = self.calls[id]
        call.held = False
        if call.upload and call.upload == call.version:
            call.upload = Version(0)
            self._unsaved.pop(id, None)
        if call.state is State.DONE and not call.saved and call.attached:
            call.why = "lost"
            if self.finishing:
                pass  # the run's result is encoded: nobody needs the value any more
            elif call.wanted or call.forced or call.waiters or any(t.state is State.NEEDED for t in call.takers):
                self._need(call)
        self._try_finish()

    # -- doubt -----------------------------------------------------------------------------------------------------

    def _doubt_settled(self, call: Call) -> bool:
        if call.id in self._unsure and call.note.on_doubt != "probe":
            raise Corrupt(
                f"a damaged record in the journal may have said that the effect of {call.id} happened. Nothing was run "
                f"again: look at the service that it speaks to, then fork the run or start a new one."
            )
        if call.note.on_doubt == "retry" or not call.recalled and call.attempt < call.intent:
            return True
        self._doubt(call)
        return False

    def _doubt(self, call: Call) -> None:
        call.state = State.DOUBT
        command = Probe if call.note.on_doubt == "probe" else Doubt
        self.out.append(command(call.id, call.intent))

    def resolved(self, id: CallId, *, happened: bool) -> Version:
        """Somebody knows whether the effect happened; the version that the value gets if it did."""
        call = self.calls[id]
        if call.state is not State.DOUBT:
            return Version(0)  # cancelled in the meantime
        call.state = State.RUNNING
        if happened:  # of a result that was lost, the value is back: it is no new choice
            call.attempt = call.version if call.version > call.intent else self._next_version()
            return call.attempt
        self._forget_intent(call, call.intent)
        call.state = State.NEEDED
        call.why = "did not happen"
        self._start(call)
        return Version(0)

    def doubt_again(self, id: CallId) -> None:
        """The probe could not be asked: an input of the call was lost."""
        call = self.calls[id]
        if call.state is State.DOUBT:
            call.state = State.NEEDED
            self._start(call)

    # -- durability ------------------------------------------------------------------------------------------------

    def started(self) -> None:
        """The run's Start record was appended: effects wait for it (L1)."""
        self.seq += 1
        self._start_seq = self.seq

    def durable(self, seq: int) -> None:
        """Every record of this run up to ``seq`` is durable."""
        self.durable_seq = max(self.durable_seq, seq)
        records = self._records
        while records and records[0][0] <= seq:
            _, call, version, what = records.popleft()
            if what == "save":
                if call.version == version and call.saved:
                    call.committed = True
                    self._settle(call)
                    if call.note.saves == "sync":
                        self._announce(call)
            elif call.intent == version:
                call.intent_durable = True
                if call.state is State.NEEDED:
                    self._start(call)
        if self._waiting_start:
            waiting, self._waiting_start = self._waiting_start, []
            for call in waiting:
                if call.state is State.NEEDED:
                    self._start(call)
        self._lift_barrier()
        self._try_finish()

    # -- ends ------------------------------------------------------------------------------------------------------

    def _ended(self, call: Call) -> None:
        scope = call.scope
        if scope is None or call.note.kind is Kind.TIMER:
            return
        scope.active -= 1
        if scope.returned:
            self._try_end(scope)

    def _try_end(self, scope: Scope) -> None:
        if not scope.returned or scope.ended:
            return
        if scope.deferred:
            self._start_deferred(scope)
        if scope.active or not scope.returned:
            return
        result = self._whole(scope.result_refs) if scope.owner is None else ()
        if result is None:
            return
        scope.ended = True
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

    def settled(self, *, failed: bool) -> None:
        """The root body's result is encoded, or its error."""
        if not self.finishing:
            self._finish(failed=failed)

    def unsettled(self) -> None:
        """A value that stands in the result was lost before it could be read: it has to be made again first."""
        root = self.scopes[""]
        root.ended = False
        self._try_end(root)

    def _finish(self, *, failed: bool) -> None:
        """The root body has ended: undo what must not stand, then end the run."""
        self.finishing = True
        for call in self.calls.values():
            if call.intent and call.note.rollback and not call.released:
                orphan = not failed and self._is_orphan(call)
                if orphan or self.cancelling or failed and self.undo_on_failure:
                    self._queue_undo(call)
        self._undo_next()
        self._try_finish()

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
        if not self.finishing or self.finished or self._unsaved and not self.cancelling:
            return
        if self._to_undo or self._undoing or self.durable_seq < self._undone_seq:
            self._undo_next()
            return
        if self.cancelling and self.stale:
            return
        self.finished = True
        self.out.append(Finish())

    def undone(self, id: CallId, version: Version) -> None:
        super().undone(id, version)
        self._try_finish()


_PLAIN = Annotations()


@cache
def _note(choice: bool, *, effect: bool, rollback: bool) -> Annotations:
    """What a record tells of a task, until the body has made the call and brought its own annotations."""
    return Annotations(deterministic=not choice, effect="irrevocable" if effect else None, rollback=rollback)
