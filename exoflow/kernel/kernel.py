"""The rules: when a task call may start, what is saved, what is undone, when a run is over.

Events come in as method calls and are noted; ``take()`` works off what they gave rise to, and the commands go out.
There is no clock, no chance and no I/O in here, and no difference between a first run and a recovery: recovery is a
first run with a longer history. ``reference`` says the same without any incremental state.

Each room knows those above it in this list, and none below:

======================  ================================================================
``call``                what is known of a call, and of a flow body
``state``               what is known of a run
``closing``, ``graph``  what stands on what, and whether all of it is committed
``lineage``             what is behind a call
``needs``               what has to run, and what that takes
``retirement``          what falls when a choice is made again, and is undone
``saving``              what is saved: results, and actors' states
``outcomes``            what became of attempts
``starting``            the gates
``forsaking``           values that the store has lost
``ending``              bodies and runs that are over
``history``             what the journal tells
``kernel``              what a flow body does
======================  ================================================================
"""

from __future__ import annotations

from exoflow.kernel.call import FIXED, Call, Scope, State, Turn, joined
from exoflow.kernel.commands import Command
from exoflow.kernel.history import History
from exoflow.model import NO_VERSION, Annotations, CallId, Kind


class Kernel(History):
    """One run, in one epoch."""

    def take(self) -> list[Command]:
        """The commands that the last events gave rise to, in order."""
        if self._ready or self._ending or self._held_back or self._misled or self._to_undo or self.finishing:
            self._conclude()
        if self._uncovered or self._hopeless or self._recovered:
            self._conclude()
        out = self.out
        if out:
            self.out = []
        return out

    def _conclude(self) -> None:
        """Work off what was noted. Whatever falls, falls here, and never while an event is being noted."""
        while True:
            if self._misled:
                self._look_again()
            elif self._uncovered:
                self._cover(self._uncovered.pop(0))
            elif self._recovered:
                self._recovered = False
                self._commit_covered()
            elif self._ready:
                ready, self._ready = self._ready, []
                for call in ready:
                    self._start(call)
            elif self._hopeless:
                self._cover(self._hopeless.pop(0), in_vain=True)
            elif self._held_back and not self._is_blocked():
                self._ready.extend(self._held_back)
                self._held_back.clear()
            elif self._ending:
                self._try_end(self._ending.pop(0))
            else:
                break
        if self._to_undo:
            self._undo_next()
        if self.finishing or self.stuck:
            self._try_finish()

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
        self,
        scope: Scope,
        id: CallId,
        note: Annotations,
        inputs: tuple[Call, ...] = (),
        passes: tuple[Call, ...] = (),
        turn: Turn | None = None,
    ) -> Call:
        """The body makes a call. Its record, where there is one, is used if it still agrees with all it stands on.

        ``turn``: of an actor's call.
        """
        call = self.calls.get(id)
        fresh = call is None
        if call is None:
            call = self.calls[id] = Call(id, note)
        else:
            assert not call.attached, id
            self.unattached.discard(call)
            if self._hoping and not self.unattached:
                self._give_up_hope()
            call.note = note
        if turn is not None:
            call.before, call.due = turn
            call.origin = call if turn.before is None else turn.before.origin
        self._link(call, scope, inputs, passes)
        if not fresh:
            self._reattach(call)
        if not call.open and not call.closed and not call.must_commit:
            self._settle(call)
        if call.state is State.IDLE and not note.may_be_left:
            if self.unattached and not call.forced and not call.owed:
                scope.deferred.append(call)
            else:
                self._need(call)
        if self._sought:
            self._found(call)
        owner = scope.owner
        named = owner is not None and owner.forced and owner.names and _is_named(call.id, owner.names)
        if named or call.forced:
            call.forced = False  # as if it began now: what is behind the call was not known before
            self._force(call)
        return call

    def _reattach(self, call: Call) -> None:
        """Use what is known of the call, or what still runs for it, unless a choice behind it was made since."""
        active = call.state in (State.RUNNING, State.DOUBT) and not call.note.may_be_left
        if active:
            assert call.scope is not None
            call.scope.active += 1
        newest = self._lineage_stamp(call)
        outdated = (
            call.state is State.DONE and call.version < newest
            or call.state is State.RUNNING and call.attempt < newest
            or call.intent and min(call.intent, call.version or call.intent) < newest
        )  # fmt: skip
        if outdated:
            self._void(call)
        if call.note.actor and call.state is State.DONE:
            self._reattach_state(call)
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

    def _reattach_state(self, call: Call) -> None:
        """Use what is known of the state that an actor's call has left."""
        if call.note.saves == "sync" and call.is_choice and not call.failed and not (call.has_state or call.snapping):
            call.state = State.IDLE  # nobody has seen its result: it is made again (V7)
            call.held = call.saved = call.written = False
            call.why = "not saved"
        elif call.snapped and (holder := self.holder(call)) is not None and not holder.closed:
            self._covers[call] = None
            self._recovered = True  # what it covers is committed, though no record becomes durable now
        if call.state is State.DONE:
            before = call.before
            while before is not None and before.state is State.IDLE and not before.version:
                self._need(before)  # it had stood aside: no record says so
                before = before.before
        if call.forced and call.is_choice and not call.committed:
            self._uncovered.append(call)  # it was not the body's when something began to wait for it

    def waits(self, scope: Scope, *, settled: bool = True) -> None:
        """The body can do nothing before it gets something. ``settled``: it surely made every call that it could."""
        if settled and self.unattached and not self.cancelling:
            self._check_all_made(scope)
        scope.idle = True
        self._start_deferred(scope)

    def made_before(self, scope: Scope) -> list[Call]:
        """What the body made in an earlier life, in the order of how much it had read then."""
        calls = {*self.by_path.get(scope.path, ()), *self.former.get(scope.path, ())}
        return sorted((c for c in calls if not c.attached), key=lambda call: (call.recorded_reads_at, call.id))

    def is_due(self, scope: Scope, call: Call) -> bool:
        """Whether the body, as far as is known, will make the call again: an attempt or an intent of it agrees."""
        newest = max(call.version, call.attempt, call.intent, call.called_at)
        return not call.attached and newest > NO_VERSION and newest >= scope.stamp

    def is_past(self, call: Call) -> bool:
        """Whether no body can make this call again as it was: a choice that it stands on has been made again."""
        if call.attached or call.state is not State.DONE:
            return False
        path = call.id.rpartition("/")[0]
        while path:
            owner = self.calls.get(CallId(path))
            if owner is not None and owner.attached:
                if owner.state is State.DONE and owner.body is None:
                    return False  # its result stands without its body (V17)
                stamp = (
                    self._fresh_stamp(owner) if owner.body is None else max(self._fresh_stamp(owner), owner.body.stamp)
                )
                return call.version < stamp
            path = path.rpartition("/")[0]
        root = self.scopes.get("")
        return root is not None and call.version < root.stamp

    deliverable = History._available

    def read(self, scope: Scope, call: Call) -> None:
        """The body has been given the call's value or error: lineage of every later call of this body (G10)."""
        call.seen = True
        call.wanted = scope.idle = False
        if call.failed and call.propagated:
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

    def left(self, call: Call) -> None:
        """Nobody waits for this event, or timer, any more: it is not to take a message that another one could have."""
        if call.state in (State.NEEDED, State.RUNNING) and not call.waiters and not call.handed_out:
            call.state = State.IDLE
            call.wanted = False

    def counted(self) -> None:
        """A record was appended that is not the kernel's own: an effect after it waits for it too."""
        self.seq += 1

    def returned(self, scope: Scope, refs: tuple[Call, ...] = (), *, raised: bool = False) -> None:
        """The body has ended; ``refs`` stand in what it returned."""
        scope.returned = scope.idle = True
        scope.raised = raised
        scope.result_refs = refs
        for call in refs:
            if call.note.may_be_left:
                call.handed_out = True
        owner = scope.owner
        if owner is None:
            for call in refs:
                self.wants(call)
        else:
            for call in refs:
                self._link_late(owner, call)
                if call.note.kind is Kind.EVENT:
                    self.wants(call)
            if owner.forced:
                for call in refs:
                    self._force(call)
        if self.forgiving:
            for call in scope.calls:
                if self._is_forgivable(call):
                    self._forgive(call)
                    self._need(call)
        self._start_deferred(scope)
        self._ending.append(scope)


def _is_named(id: CallId, names: tuple[CallId, ...]) -> bool:
    """Whether the call, or one inside of it, is among these open choices."""
    return any(name == id or name.startswith(f"{id}/") for name in names)
